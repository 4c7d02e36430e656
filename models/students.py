"""The student: a UNet with an encoder of models/encoders.py and a decoder of MobileNet blocks (depthwise, pointwise).

Choices measured in the field notes: BatchNorm (folds away), ReLU6 (exact in int8), bilinear resize with
align_corners=False and addition of skips (both stay inside LiteRT's delegate), and a head that stops below the
picture's size and shuffles its channels into blocks of RGB pixels (full-resolution layers cost most).

UNet: Ronneberger et al. 2015. MobileNet blocks: Howard et al. 2017. Pixel shuffle: Shi et al. 2016.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.compression import fit
from models.encoders import Block, conv_bn, make_encoder
from models.errors import UserError


class DecoderLevel(nn.Module):
    """Project, double the size, join the skip, then one depthwise-separable block."""

    def __init__(self, *, inputs: int, skip_channels: int, outputs: int, skip: str, upsample: str) -> None:
        super().__init__()
        self.upsample = upsample
        self.concat = skip == "concat"
        joined = outputs + skip_channels if self.concat else outputs
        self.project = conv_bn(inputs, outputs, activate=False)
        # Also where the channels fit already: added as it is, a skip cost 0.09 of the explained effect (measured).
        self.lateral = nn.Identity() if self.concat else conv_bn(skip_channels, outputs, activate=False)
        self.depthwise = conv_bn(joined, joined, kernel=3, groups=joined)
        self.pointwise = conv_bn(joined, outputs)

    def blocks(self) -> tuple[Block, Block]:
        """The last convolutions, each with BatchNorm and ReLU6."""
        return self.depthwise, self.pointwise

    def forward(self, x: Tensor, skip: Tensor, films: Sequence[Any] = (None, None)) -> Tensor:
        """(B,inputs,h,w), (B,skip_channels,2h,2w) -> (B,outputs,2h,2w); `films` are those of `blocks`, if any."""
        x = double(self.project(x), self.upsample)
        skip = self.lateral(skip)
        x = torch.cat([x, skip], dim=1) if self.concat else x + skip
        for block, film in zip(self.blocks(), films, strict=True):
            x = block(x, film)
        return x


def double(x: Tensor, mode: str) -> Tensor:
    """(B,C,h,w) -> (B,C,2h,2w) by "bilinear" (half-pixel centres) or "nearest"."""
    if mode == "bilinear":
        return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    return functional.interpolate(x, scale_factor=2, mode="nearest")


class UNet(nn.Module):
    """Image to image, (B,3,H,W) in [0,1] -> (B,3,H,W); H and W are multiples of the encoder's reduction."""

    def __init__(
        self, *, encoder: str, decoder_channels: list[int], skip: str, upsample: str, head: str, in_channels: int = 3
    ) -> None:
        super().__init__()
        self.encoder = make_encoder(encoder, in_channels)
        channels = self.encoder.feature_info.channels()
        *reductions, _ = self.encoder.feature_info.reduction()
        shuffles = head == "pixel-shuffle"
        most = len(channels) - 1
        if len(decoder_channels) > most or (not shuffles and (len(decoder_channels) < most or reductions[0] > 2)):
            wanted = f"{most} or fewer" if shuffles else f"{most}, and an encoder that begins at half resolution"
            raise UserError(
                f"architecture.decoder_channels has {len(decoder_channels)} entries; {encoder} with head {head} needs "
                f"{wanted}, one for each level from the deepest skip on"
            )
        # Where the decoder ends before the finest skip, its pixels become larger blocks.
        self.block = reductions[-len(decoder_channels)] if shuffles else 1
        levels = []
        inputs = channels[-1]
        for skip_channels, outputs in zip(reversed(channels[:-1]), decoder_channels, strict=False):
            levels.append(
                DecoderLevel(inputs=inputs, skip_channels=skip_channels, outputs=outputs, skip=skip, upsample=upsample)
            )
            inputs = outputs
        self.decoder = nn.ModuleList(levels)
        self.upsample = upsample
        self.head = nn.Conv2d(inputs, 3 * self.block**2, 3, padding=1)
        # Grey is the best first guess of a picture; zero would begin at black.
        nn.init.constant_(self.head.bias, 0.5)  # type: ignore[arg-type]

    def features(self, x: Tensor) -> Tensor:
        """(B,3,H,W) in [0,1] -> what the head sees: (B,C,H/block,W/block) before a pixel shuffle, else (B,C,H,W)."""
        *skips, y = self.encoder(x)
        for level, skip in zip(self.decoder, reversed(skips), strict=False):
            y = level(y, skip)
        return self.finished(y)

    def finished(self, y: Tensor) -> Tensor:
        """What the decoder gives as the head takes it."""
        return y if self.block > 1 else double(y, self.upsample)

    def picture(self, features: Tensor) -> Tensor:
        """Features -> (B,3,H,W); clamped to [0,1] in eval mode only, so that gradients live."""
        y = self.head(features)
        if not self.training:
            y = y.clamp(0.0, 1.0)  # before the shuffle, so that the head's scale in int8 covers [0,1] and no more
        return functional.pixel_shuffle(y, self.block) if self.block > 1 else y

    def forward(self, x: Tensor) -> Tensor:
        """(B,3,H,W) in [0,1] -> (B,3,H,W); clamped to [0,1] in eval mode only."""
        return self.picture(self.features(x))


def build_student(architecture: Mapping[str, Any], size: int, control: str = "none") -> nn.Module:
    """An untrained student for `size` x `size` pictures, seeded by torch's global generator.

    `architecture` is the block's section of params.yaml as a mapping, `control` its `control.by`. Raises UserError for
    an encoder timm does not have, or a size the encoder cannot halve often enough.
    """
    from models.controls import Controlled  # a UNet itself

    student = (UNet if control == "none" else Controlled)(**architecture)
    reduction = student.encoder.feature_info.reduction()[-1]
    if size % reduction:
        raise UserError(f"pairs.size {size} is not a multiple of {reduction}, the encoder's reduction")
    return student


def load_student(folder: Path, weights: Path | None = None) -> nn.Module:
    """The trained student of a student folder, in eval mode; its weights' sha256 is checked first.

    `weights` is their file where it does not lie in the folder.
    """
    from safetensors.torch import load

    record = json.loads((folder / "student.json").read_text())
    file = weights or folder / "weights.safetensors"
    data = file.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != record["weights_sha256"]:
        raise UserError(f"{file} has sha256 {found}, {folder}/student.json says otherwise: train again")
    student = build_student(record["architecture"], record["size"], record.get("control", "none"))
    values = load(data)
    fit(student, values, record.get("ranks", {}))
    student.load_state_dict(values)
    return student.eval()
