"""Bands and grain that a quantised file adds to smooth areas: synthetic gradients, and the plain parts of photos.

A quantised output departs from its float one by an error of a few levels. In texture nobody sees it. On a sky the
part of it that holds together over some pixels is seen as bands or blotches, the part that changes from pixel to
pixel as grain. Both are root mean squares of the error in levels of 255, told apart by box means:

- banding: the error's 5x5 mean less its 31x31 mean. What is wider than that is a shift of the colour, not a band.
- grain: the error less its 5x5 mean.

Comparing with the float file rather than with the gradient leaves the effect's own strokes out of it.
"""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from models.losses import luma
from models.metrics import to_tensor

Pictures = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Model = Callable[[Pictures], Floats]  # (B,S,S,3) uint8 -> (B,S,S,3) in [0,1]

FINE, WIDE = 5, 31  # pixels: narrower than FINE is grain, wider than WIDE a shift of the colour
PLAIN_LEVELS = 1.0  # root mean square of the input luma's detail (finer than FINE) within WIDE, below which it is plain
LEAST_PLAIN = 1000  # pixels; of fewer there is nothing to tell
# From, to (RGB) and direction (right, down) of the gradients: skies, dusk, skin, walls, shadows, highlights.
RAMPS = (
    ((205, 225, 245), (90, 140, 215), (0, 1)),
    ((250, 170, 90), (70, 50, 110), (1, 1)),
    ((240, 200, 175), (190, 140, 115), (1, 0)),
    ((0, 0, 0), (255, 255, 255), (1, 0)),
    ((10, 12, 16), (52, 50, 44), (0, 1)),
    ((200, 205, 200), (255, 252, 245), (1, 1)),
)


def gradients(size: int) -> Pictures:
    """Smooth pictures as a camera gives them, rounded to 8 bits: (6,S,S,3) uint8."""
    along = np.linspace(0, 1, size)
    pictures = []
    for start, end, (right, down) in RAMPS:
        share = (right * along[None, :] + down * along[:, None]) / (right + down)
        share = np.broadcast_to(share, (size, size))[..., None]
        pictures.append(np.rint(np.array(start) * (1 - share) + np.array(end) * share))
    return np.stack(pictures).astype(np.uint8)


def box_mean(image: Tensor, side: int) -> Tensor:
    """Mean over side x side pixels, of what there is of them at the border: (B,C,H,W) -> same."""
    return functional.avg_pool2d(image, side, stride=1, padding=side // 2, count_include_pad=False)


def split_error(error: Tensor) -> tuple[Tensor, Tensor]:
    """The parts of an error (B,3,H,W) in [-1,1] that are seen as bands and as grain, in levels of 255."""
    levels = error * 255
    fine = box_mean(levels, FINE)
    return fine - box_mean(fine, WIDE), levels - fine


def plain(inputs: Tensor) -> Tensor:
    """Where an input (B,3,H,W) in [0,1] is plain: (B,1,H,W) bool."""
    grey = luma(inputs) * 255
    return box_mean((grey - box_mean(grey, FINE)).square(), WIDE) < PLAIN_LEVELS**2


def on_gradients(quantised: Model, floating: Model, size: int) -> dict[str, float]:
    """`banding` and `grain` of a model against its float twin on the synthetic gradients, levels of 255."""
    pictures = gradients(size)
    bands, grain = split_error(to_tensor(quantised(pictures)) - to_tensor(floating(pictures)))
    return {"banding": rms(bands), "grain": rms(grain)}


def on_plain_areas(quantised: Model, floating: Model, batches: Iterator[Pictures]) -> dict[str, float | None]:
    """The same on the plain parts of photos, given in batches (B,S,S,3) uint8; None where there is hardly any."""
    squares = np.zeros(2)
    pixels = 0
    for pictures in batches:
        mask = plain(to_tensor(pictures))
        parts = split_error(to_tensor(quantised(pictures)) - to_tensor(floating(pictures)))
        squares += [float((part.square() * mask).sum()) for part in parts]
        pixels += int(mask.sum())
    if pixels < LEAST_PLAIN:
        return {"plain_banding": None, "plain_grain": None}
    bands, grain = np.sqrt(squares / (3 * pixels))
    return {"plain_banding": float(bands), "plain_grain": float(grain)}


def rms(values: Tensor) -> float:
    """Root mean square."""
    return float(torch.sqrt(values.square().mean()))
