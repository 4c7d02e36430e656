"""How far a picture lies outside those a student was taught on: one number a frame, for an app to fade the effect by.

A picture becomes some figures, and their distance from those of the training pictures is what a Gaussian says
(Mahalanobis distance; Lee et al. 2018). The figures are how much there is at each scale of light and of colour: mean
squares and mean magnitudes of a Haar pyramid, as logarithms (natural scene statistics, as NIQE has them: Mittal et al.
2013). Or they are means and deviations of the student's own encoder at every level down to its bottleneck, which
find less and cost more (docs/decisions/0019-outside.md). Of several the furthest counts.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.perceptual import spread

Values = npt.NDArray[np.float64]

SHRINKAGE = 0.2  # of the correlations towards none: few pictures tell few of them (0.1 to 0.3 found as much)
COARSEST = 4  # pixels that the last level of the pyramid has at least on a side
LEAST_SQUARE, LEAST_MAGNITUDE = 1e-6, 1e-3  # below what eight bits can tell
LEAST_DEVIATION = 1e-2  # of a figure: one that hardly varied in training says nothing when it does
# Luma, and two differences of colour that are 0 for grey.
OPPONENT = ((0.299, 0.587, 0.114), (0.5, -0.5, 0.0), (0.25, 0.25, -0.5))
# The mean of 2x2 pixels and what it leaves out: across, down, on the diagonal. Squares of the four add up to the
# mean square of the pixels.
HAAR = ((1, 1, 1, 1), (1, -1, 1, -1), (1, 1, -1, -1), (1, -1, -1, 1))


class PictureFigures(nn.Module):
    """(B,3,S,S) in [0,1] -> (B,C): means, strength of colour, contrast, and what there is at each scale."""

    first: Tensor
    rest: Tensor
    middle: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.levels = levels_of(size)
        haar = torch.tensor(HAAR, dtype=torch.float32).reshape(4, 1, 2, 2) / 4
        # The means of the three channels first, then the three details of each.
        order = [0, 4, 8, *(4 * channel + detail for channel in range(3) for detail in (1, 2, 3))]
        plain = torch.einsum("dkij,cn->cdnij", haar, torch.eye(3)).flatten(0, 1)[order]
        self.register_buffer("rest", plain)
        self.register_buffer("first", torch.einsum("ocij,cn->onij", plain, torch.tensor(OPPONENT)))
        self.register_buffer("middle", torch.tensor([-0.5] + [0.0] * 11))  # of luma: small numbers lose fewer bits

    def forward(self, x: Tensor) -> Tensor:
        """As above."""
        squares, magnitudes = [], []
        for level in range(self.levels):
            first = level == 0
            x = nn.functional.conv2d(x, self.first if first else self.rest, self.middle if first else None, stride=2)
            x, details = x[:, :3], x[:, 3:]
            squares.append(over_picture(details.square()).reshape(-1, 3, 3).sum(dim=2))
            magnitudes.append(over_picture(details.abs()).reshape(-1, 3, 3).mean(dim=2))
        mean, square = over_picture(x), over_picture(x.square())
        for one in squares:
            square = square + one
        strength = torch.cat([square[:, 1:], square - mean.square(), *squares], dim=1).clamp(min=0) + LEAST_SQUARE
        return torch.cat([mean, strength.log(), (torch.cat(magnitudes, dim=1) + LEAST_MAGNITUDE).log()], dim=1)


def over_picture(x: Tensor) -> Tensor:
    """(B,C,H,W) -> (B,C), means; as a pooling, which LiteRT takes in its own layout, without moving every value."""
    return nn.functional.avg_pool2d(x, x.shape[-1]).flatten(1)


class EncoderFigures(nn.Module):
    """(B,3,S,S) in [0,1] -> (B,C): mean and deviation of every channel at every level of a student's encoder.

    It sees the picture at half the side: a quarter of the work.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> Tensor:
        """As above."""
        found = self.encoder(nn.functional.avg_pool2d(x, 2))
        return torch.cat([*(one.mean(dim=(2, 3)) for one in found), *(spread(one) for one in found)], dim=1)


class Gaussian:
    """What figures are usual, of (N,C) of them; `distance` is about 1 for those it was fitted on."""

    def __init__(self, values: Values) -> None:
        self.mean = values.mean(axis=0)
        deviation = np.maximum(values.std(axis=0), LEAST_DEVIATION)
        scaled = (values - self.mean) / deviation
        correlations = (1 - SHRINKAGE) * scaled.T @ scaled / len(values) + SHRINKAGE * np.eye(scaled.shape[1])
        inner = np.linalg.cholesky(np.linalg.inv(correlations))
        self.whitening = inner / deviation[:, None] / np.sqrt(values.shape[1])

    def distance(self, values: Values) -> Values:
        """(M,C) -> (M,), the root of the mean square over the figures."""
        found: Values = np.sqrt(np.square((values - self.mean) @ self.whitening).sum(axis=1))
        return found


class Outside(nn.Module):
    """(B,3,S,S) in [0,1] -> (B,): how far outside, 1 where the effect is to begin to fade."""

    def __init__(self, parts: list[tuple[nn.Module, Gaussian, float]]) -> None:
        """`parts`: what makes figures, what is usual of them, and the distance that is to be 1."""
        super().__init__()
        self.figures = nn.ModuleList([figures for figures, _, _ in parts])
        for number, (_, usual, unit) in enumerate(parts):
            self.register_buffer(f"mean{number}", torch.tensor(usual.mean, dtype=torch.float32))
            self.register_buffer(f"whitening{number}", torch.tensor(usual.whitening / unit, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """As above."""
        distances = []
        for number, figures in enumerate(self.figures):
            away = (figures(x) - getattr(self, f"mean{number}")) @ getattr(self, f"whitening{number}")
            distances.append(away.square().sum(dim=1))
        furthest = distances[0]
        for one in distances[1:]:
            furthest = torch.maximum(furthest, one)
        return furthest.sqrt()


class ChannelsLast(nn.Module):
    """The same on (1,S,S,3), as a LiteRT file takes it."""

    def __init__(self, outside: Outside) -> None:
        super().__init__()
        self.outside = outside

    def forward(self, x: Tensor) -> Tensor:
        """(1,S,S,3) in [0,1] -> (1,)."""
        score: Tensor = self.outside(x.permute(0, 3, 1, 2))
        return score


def levels_of(size: int) -> int:
    """How often pictures of `size` pixels can be halved."""
    levels = 0
    while size % 2 == 0 and size // 2 >= COARSEST:
        size, levels = size // 2, levels + 1
    return levels


def figures_of(looks_at: str, size: int, student: Any) -> nn.Module:
    """What makes the figures of "picture" or of "encoder", in eval mode."""
    return (PictureFigures(size) if looks_at == "picture" else EncoderFigures(student.encoder)).eval()


def to_files(outside: Outside, size: int) -> dict[str, bytes]:
    """Float32 files by runtime, "litert" on (1,S,S,3) and "onnx" on (1,3,S,S), that give (1,); takes half a minute."""
    from models.litert import converted
    from models.onnx_export import to_onnx

    return {
        "litert": converted(ChannelsLast(outside).eval(), torch.zeros(1, size, size, 3)),
        "onnx": to_onnx(outside, size),
    }
