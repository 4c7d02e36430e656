"""Encoders of students: timm's feature extractors, and one of our own that begins with patches.

MobileNetV4's inverted bottlenecks: Qin et al. 2024. Patches as a stem: Dosovitskiy et al. 2021; a convolution whose
stride is its kernel is space-to-depth and a pointwise convolution in one, and stays in every delegate.
"""

import re
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from models.errors import UserError
from models.torch_setup import import_timm

PATCHES = re.compile(r"patches(?P<patch>\d+)(?P<widths>(?:_\d+)+)(?P<gates>_se)?")


class Block(nn.Sequential):
    """Convolution, BatchNorm and, if it has one, an activation."""

    def forward(self, x: Tensor, film: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """(B,C,H,W) -> (B,C',H',W'); `film` is a scale and a shift, (B,C',1,1) both, before the activation."""
        if film is None:
            made: Tensor = super().forward(x)
            return made
        convolution, norm, activation = self
        filmed: Tensor = activation(norm(convolution(x)) * film[0] + film[1])
        return filmed


def conv_bn(
    inputs: int, outputs: int, *, kernel: int = 1, stride: int = 1, groups: int = 1, activate: bool = True
) -> Block:
    """Convolution, BatchNorm and, if asked, ReLU6; keeps the spatial size but for the stride."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if activate:
        layers.append(nn.ReLU6(inplace=True))
    return Block(*layers)


class InvertedBlock(nn.Module):
    """Depthwise 3x3, to twice the channels, back; added to what came in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = conv_bn(channels, channels, kernel=3, groups=channels, activate=False)
        self.expand = conv_bn(channels, 2 * channels)
        self.project = conv_bn(2 * channels, channels, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,h,w) -> (B,C,h,w)."""
        out: Tensor = x + self.project(self.expand(self.depthwise(x)))
        return out


class SqueezeExcite(nn.Module):
    """Tells every place what the picture as a whole is like: channels scaled by 0 to 2, from means over the picture.

    Hu et al. 2018, without the squeeze: at these levels there are few channels. A teacher with instance norm takes its
    own statistics over the whole picture, which no stack of 3x3 convolutions sees. No shift besides: it trained worse
    (docs/decisions/0017-squeeze-and-excitation.md).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.hidden = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.ReLU6(inplace=True))
        self.scale = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.ReLU6())
        with torch.no_grad():  # nearly 1 for every picture at first
            first: Any = self.scale[0]
            first.weight.mul_(0.1)
            first.bias.mul_(0.1).add_(3.0)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,h,w) -> (B,C,h,w)."""
        scale: Tensor = self.scale(self.hidden(self.pool(x))) * (1 / 3)
        return x * scale


class PatchEncoder(nn.Module):
    """Features at 1/patch, 1/2patch, ... of the size, one inverted block at the finest and two at each other level.

    With `gates` each level but the finest ends in squeeze and excitation.
    """

    def __init__(self, patch: int, widths: list[int], in_channels: int, gates: bool = False) -> None:
        super().__init__()
        from timm.models import FeatureInfo

        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, widths[0], patch, patch, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU6(inplace=True),
        )
        self.levels = nn.ModuleList([nn.Sequential(InvertedBlock(widths[0]))])
        for before, width in pairwise(widths):
            down = conv_bn(before, width, kernel=3, stride=2)
            blocks = [InvertedBlock(width), InvertedBlock(width), *([SqueezeExcite(width)] if gates else [])]
            self.levels.append(nn.Sequential(down, *blocks))
        about = [
            {"num_chs": width, "reduction": patch << level, "module": f"levels.{level}"}
            for level, width in enumerate(widths)
        ]
        self.feature_info = FeatureInfo(about, tuple(range(len(widths))))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B,3,H,W) -> features, the finest first."""
        x = self.stem(x)
        found = []
        for level in self.levels:
            x = level(x)
            found.append(x)
        return found


def make_encoder(name: str, in_channels: int) -> Any:
    """The encoder of that name: `patchesP_C1_C2_...` is ours, for patches of PxP; all others are timm's.

    With `_se` at the end ours has squeeze and excitation, and so sees the whole picture.

    Its `feature_info` tells channels() and reduction() of what it returns, as timm's do.
    """
    import_timm()
    ours = PATCHES.fullmatch(name)
    if ours:
        widths = [int(width) for width in ours["widths"].split("_")[1:]]
        return PatchEncoder(int(ours["patch"]), widths, in_channels, bool(ours["gates"]))
    import timm

    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:5]) or "see timm.list_models()"
        raise UserError(
            f"architecture.encoder: timm has no model {name!r}; near: {near}; ours are patchesP_C1_C2... and "
            "patchesP_C1_C2..._se"
        )
    encoder = timm.create_model(name, pretrained=False, features_only=True, in_chans=in_channels)
    replace_relu(encoder)
    return encoder


def replace_relu(module: nn.Module) -> None:
    """Put ReLU6 in the place of every ReLU below `module`: bounded activations quantise better."""
    for name, child in module.named_children():
        if isinstance(child, nn.ReLU):
            setattr(module, name, nn.ReLU6(inplace=True))
        else:
            replace_relu(child)
