"""Losses as small functions of (output, target), each (B,3,H,W) in about [0,1], giving a scalar >= 0.

`total` weighs them by name and returns the parts too, so that "why is my student bad" has an answer.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from models.errors import UserError

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def pixel(output: Tensor, target: Tensor) -> Tensor:
    """Charbonnier loss: L1 with a soft corner at zero (Charbonnier et al. 1994; epsilon 1e-3)."""
    return ((output - target).square() + 1e-6).sqrt().mean()


def structure(output: Tensor, target: Tensor) -> Tensor:
    """1 - SSIM on luma (Wang et al. 2004), with an 8x8 box window every 4 pixels instead of a dense Gaussian.

    The dense 7x7 window cost more than the student itself (field notes); this one is nearly free.
    """
    x, y = luma(output), luma(target)
    moments = functional.avg_pool2d(torch.cat([x, y, x * x, y * y, x * y], dim=1), 8, stride=4)
    mean_x, mean_y, xx, yy, xy = moments.split(1, dim=1)
    variance_x, variance_y, covariance = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity = similarity / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))
    return (1 - similarity).mean()


def gradient(output: Tensor, target: Tensor) -> Tensor:
    """L1 between finite differences at three scales; punishes blur, which plain L1 forgives (Mathieu et al. 2016)."""
    loss = output.new_zeros(())
    difference = output - target
    for scale in range(3):
        if scale:
            difference = functional.avg_pool2d(difference, 2)
        horizontal = difference[..., :, 1:] - difference[..., :, :-1]
        vertical = difference[..., 1:, :] - difference[..., :-1, :]
        loss = loss + horizontal.abs().mean() + vertical.abs().mean()
    return loss / 3


def chroma(output: Tensor, target: Tensor) -> Tensor:
    """L1 between the colour differences R-Y and B-Y at a quarter of the resolution; punishes greying."""
    difference = functional.avg_pool2d(output - target, 4)
    grey = luma(difference)
    return (difference[:, 0:1] - grey).abs().mean() + (difference[:, 2:3] - grey).abs().mean()


def sharpness(output: Tensor, target: Tensor) -> Tensor:
    """L1 between the root mean square of the Laplacian of luma in 8x8 windows, every 4 pixels.

    A pixel loss pays for a crisp line in slightly the wrong place twice, for a soft one once, and so teaches
    softness; this one asks only that there be as much detail here as the teacher has here.
    """
    y = torch.cat([luma(output), luma(target)])
    # Shifted sums: a convolution of one channel took eight times as long on CPU.
    across = y[..., 1:-1, :-2] + y[..., 1:-1, 2:] + y[..., :-2, 1:-1] + y[..., 2:, 1:-1]
    detail = across - 4 * y[..., 1:-1, 1:-1]
    energy = (functional.avg_pool2d(detail.square(), 8, stride=4) + 1e-5).sqrt()
    ours, theirs = energy.chunk(2)
    return (ours - theirs).abs().mean()


def luma(image: Tensor) -> Tensor:
    """(B,3,H,W) -> (B,1,H,W), Rec. 601."""
    red, green, blue = image.split(1, dim=1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "pixel": pixel,
    "structure": structure,
    "gradient": gradient,
    "chroma": chroma,
    "sharpness": sharpness,
}


def check_losses(weights: Mapping[str, float]) -> None:
    """Refuse names that are no loss, and a sum without any part."""
    unknown = sorted(set(weights) - set(LOSSES))
    if unknown:
        raise UserError(f"train.losses: unknown {', '.join(unknown)}; there are: {', '.join(LOSSES)}")
    if not any(weights.values()):
        raise UserError("train.losses: every weight is 0, so there is nothing to learn; give at least one weight")


def total(output: Tensor, target: Tensor, weights: Mapping[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum and its unweighted parts by name; a part of weight 0 is not computed."""
    parts = {name: LOSSES[name](output, target) for name, weight in weights.items() if weight}
    weighted = torch.stack([weights[name] * value for name, value in parts.items()]).sum()
    return weighted, {name: value.detach() for name, value in parts.items()}
