"""Losses as small functions of (output, target), each (B,3,H,W) in about [0,1], giving a scalar >= 0.

What each is worth for two teachers, alone and beside the others: docs/losses.md.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from models.errors import UserError
from models.perceptual import perceptual

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
MS_SSIM_WEIGHTS = (0.071, 0.4525, 0.4765)  # of the published five (0.0448, 0.2856, 0.3001, ...) the first three


def l1(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error: what one would begin with, and is to be compared with."""
    return (output - target).abs().mean()


def pixel(output: Tensor, target: Tensor) -> Tensor:
    """Charbonnier loss: L1 with a soft corner at zero (Charbonnier et al. 1994; epsilon 1e-3)."""
    return ((output - target).square() + 1e-6).sqrt().mean()


def structure(output: Tensor, target: Tensor) -> Tensor:
    """1 - SSIM on luma (Wang et al. 2004), with an 8x8 box window every 4 pixels instead of a dense Gaussian.

    The dense 7x7 window cost more than the student itself (field notes); this one is nearly free.
    """
    brightness, contrast = _similarity(luma(output), luma(target))
    return (1 - brightness * contrast).mean()


def ms_ssim(output: Tensor, target: Tensor) -> Tensor:
    """1 - MS-SSIM on luma (Wang et al. 2003) at three scales, with the windows of `structure`.

    The published weights of the three finest scales, made to sum to 1; 32 pixels are the least.
    """
    x, y = luma(output), luma(target)
    logs = output.new_zeros(())
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        if scale:
            x, y = functional.avg_pool2d(x, 2), functional.avg_pool2d(y, 2)
        brightness, contrast = _similarity(x, y)
        last = scale == len(MS_SSIM_WEIGHTS) - 1
        similarity = (brightness * contrast if last else contrast).mean(dim=(1, 2, 3))
        logs = logs + weight * similarity.clamp(min=1e-4).log()
    return (1 - logs.exp()).mean()


def _similarity(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM's two factors, of brightness and of contrast and structure, in 8x8 windows every 4 pixels of (B,1,H,W)."""
    moments = functional.avg_pool2d(torch.cat([x, y, x * x, y * y, x * y], dim=1), 8, stride=4)
    mean_x, mean_y, xx, yy, xy = moments.split(1, dim=1)
    variance_x, variance_y, covariance = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    brightness = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return brightness, (2 * covariance + c2) / (variance_x + variance_y + c2)


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


def laplacian(output: Tensor, target: Tensor) -> Tensor:
    """L1 between the levels of Laplacian pyramids, each level's weight twice the finer one's.

    Bojanowski et al. 2018, with 2x2 means for the pyramid's filter: band-passes without the cost of one.
    """
    difference, loss = output - target, output.new_zeros(())
    for level in range(3):
        coarse = functional.avg_pool2d(difference, 2)
        band = difference - functional.interpolate(coarse, scale_factor=2, mode="nearest")
        loss = loss + 2**level * band.abs().mean()
        difference = coarse
    return (loss + 2**3 * difference.abs().mean()) / 15


def wavelet(output: Tensor, target: Tensor) -> Tensor:
    """L1 between the details of Haar wavelets at three levels: across, down and diagonal (Mallat 1989)."""
    difference, loss = output - target, output.new_zeros(())
    for _ in range(3):
        left, right = difference[..., 0::2], difference[..., 1::2]
        low, high = left + right, left - right
        details = (low[..., 0::2, :] - low[..., 1::2, :], high[..., 0::2, :] + high[..., 1::2, :])
        diagonal = high[..., 0::2, :] - high[..., 1::2, :]
        loss = loss + torch.stack([one.abs().mean() for one in (*details, diagonal)]).sum() / 2
        difference = (low[..., 0::2, :] + low[..., 1::2, :]) / 4
    return loss / 9


def frequency(output: Tensor, target: Tensor) -> Tensor:
    """Focal frequency loss (Jiang et al. 2021, alpha 1): squared errors of the spectrum, the largest weighed most."""
    found = torch.fft.rfft2(output - target, norm="ortho")
    squared = found.real.square() + found.imag.square()
    weight = squared.detach().sqrt()
    weight = weight / weight.amax(dim=(-2, -1), keepdim=True).clamp(min=1e-8)
    return (weight * squared).mean()


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
    ours, theirs = _energy(detail.square()).chunk(2)
    return (ours - theirs).abs().mean()


def colour(output: Tensor, target: Tensor) -> Tensor:
    """L1 between the root mean square of chroma, as in models/metrics.py, in 8x8 windows every 4 pixels.

    `sharpness` for colour: where a student cannot know which of two colours the teacher gives, pixel losses pay for
    the grey between them; this one asks that there be as much colour here as the teacher has here.
    """
    both = torch.cat([output, target])
    grey = luma(both)
    blue, red = (both[:, 2:3] - grey) / 1.772, (both[:, 0:1] - grey) / 1.402
    ours, theirs = _energy(blue.square() + red.square()).chunk(2)
    return (ours - theirs).abs().mean()


def _energy(squares: Tensor) -> Tensor:
    """The root of the mean in 8x8 windows every 4 pixels."""
    return (functional.avg_pool2d(squares, 8, stride=4) + 1e-5).sqrt()


def luma(image: Tensor) -> Tensor:
    """(B,3,H,W) -> (B,1,H,W), Rec. 601."""
    red, green, blue = image.split(1, dim=1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": l1,
    "pixel": pixel,
    "structure": structure,
    "ms_ssim": ms_ssim,
    "gradient": gradient,
    "laplacian": laplacian,
    "wavelet": wavelet,
    "frequency": frequency,
    "chroma": chroma,
    "sharpness": sharpness,
    "colour": colour,
    "perceptual": perceptual,
}


def check_losses(weights: Mapping[str, float]) -> None:
    """Refuse names that are no loss, and a sum without any part."""
    unknown = sorted(set(weights) - set(LOSSES))
    if unknown:
        raise UserError(f"train.losses: unknown {', '.join(unknown)}; there are: {', '.join(LOSSES)}")
    if not any(weights.values()):
        raise UserError("train.losses: every weight is 0, so there is nothing to learn; give at least one weight")


def total(output: Tensor, target: Tensor, weights: Mapping[str, float]) -> Tensor:
    """The weighted sum; a loss of weight 0 is not computed."""
    return torch.stack([weight * LOSSES[name](output, target) for name, weight in weights.items() if weight]).sum()
