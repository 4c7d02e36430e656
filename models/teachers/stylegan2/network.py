"""The generator of StyleGAN2 (Karras et al. 2020): z -> w -> picture, by way of the styles that edits work on.

The tensors are called as in NVIDIA's PyTorch release, so that its checkpoints convert one to one (pickles.py). A
generator is a folder of config.json and model.safetensors.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.errors import UserError
from models.teachers.stylegan2.operations import Linear, leaky, modulated_conv2d, upsample

CONFIG, WEIGHTS = "config.json", "model.safetensors"
MAPPING_RATE = 0.01


class Mapping(nn.Module):
    """z (B,z_dim), drawn from N(0,1), to w (B,w_dim)."""

    w_avg: torch.Tensor

    def __init__(self, *, z_dim: int, w_dim: int, layers: int) -> None:
        super().__init__()
        self.layers = layers
        for number in range(layers):
            self.add_module(f"fc{number}", Linear(z_dim if number == 0 else w_dim, w_dim, rate=MAPPING_RATE))
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """(B,z_dim) -> (B,w_dim), not truncated."""
        x = z * torch.rsqrt(z.square().mean(dim=1, keepdim=True) + 1e-8)
        for number in range(self.layers):
            x = leaky(self.get_submodule(f"fc{number}")(x))
        return x


class Layer(nn.Module):
    """A modulated convolution with noise, bias and leaky ReLU."""

    noise_const: torch.Tensor

    def __init__(self, inputs: int, outputs: int, *, w_dim: int, size: int, up: bool, clamp: float | None) -> None:
        super().__init__()
        self.affine = Linear(w_dim, inputs, bias=1)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise_const", torch.randn(size, size))
        self.up, self.clamp = up, clamp

    def forward(self, x: torch.Tensor, style: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """x (B,I,H,W), style (B,I), noise (size,size) or (B,1,size,size) -> (B,O,size,size)."""
        y = modulated_conv2d(x, self.weight, style, up=self.up) + noise * self.noise_strength
        return leaky(y + self.bias[:, None, None], clamp=self.clamp)


class ToRGB(nn.Module):
    """A modulated 1x1 convolution to colours; not demodulated."""

    def __init__(self, inputs: int, *, w_dim: int, clamp: float | None) -> None:
        super().__init__()
        self.affine = Linear(w_dim, inputs, bias=1)
        self.weight = nn.Parameter(torch.randn(3, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))
        self.gain, self.clamp = inputs**-0.5, clamp

    def forward(self, x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        """x (B,I,H,W), style (B,I) -> (B,3,H,W)."""
        y = modulated_conv2d(x, self.weight, style * self.gain, demodulate=False) + self.bias[:, None, None]
        return y if self.clamp is None else y.clamp(-self.clamp, self.clamp)


class Block(nn.Module):
    """The layers of one resolution: conv0, which doubles the size (not in the first), conv1 and torgb."""

    def __init__(self, inputs: int, outputs: int, *, w_dim: int, size: int, clamp: float | None) -> None:
        super().__init__()
        self.first = inputs == 0
        if self.first:
            self.const = nn.Parameter(torch.randn(outputs, size, size))
        else:
            self.conv0 = Layer(inputs, outputs, w_dim=w_dim, size=size, up=True, clamp=clamp)
        self.conv1 = Layer(outputs, outputs, w_dim=w_dim, size=size, up=False, clamp=clamp)
        self.torgb = ToRGB(outputs, w_dim=w_dim, clamp=clamp)

    def convolutions(self) -> list[Layer]:
        """In the order in which they work."""
        return [self.conv1] if self.first else [self.conv0, self.conv1]


class Synthesis(nn.Module):
    """w, once for every layer, to a picture."""

    def __init__(self, *, w_dim: int, channels: Sequence[int], conv_clamp: float | None) -> None:
        super().__init__()
        self.sizes = [4 * 2**level for level in range(len(channels))]
        for level, size in enumerate(self.sizes):
            inputs = channels[level - 1] if level else 0
            block = Block(inputs, channels[level], w_dim=w_dim, size=size, clamp=conv_clamp)
            self.add_module(f"b{size}", block)

    def blocks(self) -> list[Block]:
        """From 4x4 to the whole resolution."""
        return [self.get_submodule(f"b{size}") for size in self.sizes]  # type: ignore[misc]

    def convolutions(self) -> list[Layer]:
        """All of them, in the order in which they work."""
        return [layer for block in self.blocks() for layer in block.convolutions()]

    def styles(self, ws: torch.Tensor) -> list[torch.Tensor]:
        """ws (B,num_ws,w_dim) -> a style (B,I) for every layer: conv0, conv1, torgb, block by block.

        A block's torgb shares its w with the next block's first convolution.
        """
        found, at = [], 0
        for block in self.blocks():
            layers = [*block.convolutions(), block.torgb]
            found += [layer.affine(ws[:, at + place]) for place, layer in enumerate(layers)]
            at += len(layers) - 1
        return found

    def render(self, styles: Sequence[torch.Tensor], noise: Sequence[torch.Tensor] | None = None) -> torch.Tensor:
        """Styles as `styles` gives them -> (B,3,R,R), meant to lie in [-1,1]; `noise` is a map for each convolution."""
        maps = iter(noise if noise is not None else [layer.noise_const for layer in self.convolutions()])
        given = iter(styles)
        blocks = self.blocks()
        x = blocks[0].const.expand(len(styles[0]), -1, -1, -1)
        picture = None
        for block in blocks:
            for layer in block.convolutions():
                x = layer(x, next(given), next(maps))
            colours = block.torgb(x, next(given))
            picture = colours if picture is None else upsample(picture) + colours
        assert picture is not None
        return picture


class Generator(nn.Module):
    """The whole: `channels` are those of 4x4, 8x8 and so on, so their number decides the resolution."""

    def __init__(
        self, *, z_dim: int, w_dim: int, mapping_layers: int, channels: Sequence[int], conv_clamp: float | None = None
    ) -> None:
        super().__init__()
        self.config = {
            "z_dim": z_dim,
            "w_dim": w_dim,
            "mapping_layers": mapping_layers,
            "channels": list(channels),
            "conv_clamp": conv_clamp,
        }
        self.z_dim, self.w_dim = z_dim, w_dim
        self.mapping = Mapping(z_dim=z_dim, w_dim=w_dim, layers=mapping_layers)
        self.synthesis = Synthesis(w_dim=w_dim, channels=channels, conv_clamp=conv_clamp)
        self.resolution = self.synthesis.sizes[-1]
        self.num_ws = 2 * len(channels)

    def broadcast(self, w: torch.Tensor) -> torch.Tensor:
        """(B,w_dim) -> (B,num_ws,w_dim), the same for every layer; what has a w for each layer stays."""
        return w[:, None].expand(-1, self.num_ws, -1) if w.ndim == 2 else w

    def truncated(self, z: torch.Tensor, psi: float) -> torch.Tensor:
        """z (B,z_dim) -> w (B,w_dim), drawn towards the mean by `psi` (1 leaves it, 0 is the mean)."""
        return torch.lerp(self.mapping.w_avg, self.mapping(z), psi)

    def forward(self, w: torch.Tensor, noise: Sequence[torch.Tensor] | None = None) -> torch.Tensor:
        """w (B,w_dim) or (B,num_ws,w_dim) -> (B,3,R,R), meant to lie in [-1,1]."""
        return self.synthesis.render(self.synthesis.styles(self.broadcast(w)), noise)


def save(generator: Generator, folder: Path) -> None:
    """Write config.json and model.safetensors into an existing folder."""
    from safetensors.torch import save_file

    tensors = {name: value.detach().contiguous() for name, value in generator.state_dict().items()}
    save_file(tensors, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(generator.config, indent=2) + "\n")


def load(folder: Path) -> Generator:
    """The generator in a folder, ready for use; a UserError that says what is wrong with it."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text())
        generator = Generator(**config)
        generator.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, ValueError, TypeError, IndexError, RuntimeError, SafetensorError) as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(
            f"{folder} holds no StyleGAN2 generator ({why}): a folder with {CONFIG} and {WEIGHTS} is wanted, "
            "as `understudy teacher convert` makes it"
        ) from None
    return generator.eval().requires_grad_(False)
