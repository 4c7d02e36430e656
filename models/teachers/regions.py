"""Regions of a picture, each of which another teacher paints: soft shares that sum to 1 at every pixel.

They are functions of the input alone, and their edges are blurred, so no seam is painted. A student that is taught on
crops sees what is dark, but not where the middle of the picture was: `centre` and `surround` ask for whole pictures.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from models.errors import UserError
from models.teachers.onnx_model import read_pinned, refuse_external_weights, start

Plane = npt.NDArray[np.float32]
Picture = npt.NDArray[np.uint8]
FEATHER = 0.03  # standard deviation of the blur, over the picture's shorter side
LEAST = 1e-6  # of each share before they are scaled: where no region claims a pixel, all have an equal part of it


class MaskModel:
    """A region from an ONNX segmentation model: (1,3,H,W) float32 in [0,1] -> (1,1,H,W) in [0,1]."""

    def __init__(self, *, path: str, sha256: str, name: str) -> None:
        data = read_pinned(Path(path), sha256, name)
        refuse_external_weights(data, name)
        self.name, self.path, self.session = name, path, start(data, name)

    def __call__(self, picture: Picture) -> Plane:
        """(H,W,3) uint8 RGB -> (H,W); UserError where the model gives no mask."""
        values = np.ascontiguousarray((picture.astype(np.float32) / 255).transpose(2, 0, 1)[None])
        mask = np.asarray(self.session.run(None, {self.session.get_inputs()[0].name: values})[0])
        if mask.shape != (1, 1, *picture.shape[:2]) or not np.isfinite(mask).all():
            raise UserError(
                f"teacher {self.name}: {self.path} gives {mask.shape} for a picture of {values.shape}: a mask is "
                f"{(1, 1, *picture.shape[:2])}, finite, in [0,1]"
            )
        return np.clip(mask[0, 0], 0, 1).astype(np.float32)


Region = str | MaskModel  # one of REGIONS, "rest", or a mask


def shares(picture: Picture, regions: Sequence[Region]) -> Plane:
    """(N,H,W) float32 that sum to 1: how much of each pixel of a picture (H,W,3) belongs to each region."""
    claimed = {number: _claim(picture, region) for number, region in enumerate(regions) if region != "rest"}
    left = np.clip(1 - np.sum(list(claimed.values()), axis=0, dtype=np.float32), 0, 1)
    sigma = FEATHER * min(picture.shape[:2])
    planes = [ndimage.gaussian_filter(claimed.get(number, left), sigma) for number in range(len(regions))]
    raised = np.clip(np.stack(planes), 0, 1) + np.float32(LEAST)
    return (raised / raised.sum(axis=0)).astype(np.float32)


def _claim(picture: Picture, region: Region) -> Plane:
    return region(picture) if isinstance(region, MaskModel) else REGIONS[region](picture)


def _rise(x: Plane, begin: float, end: float) -> Plane:
    """0 up to `begin`, 1 from `end` on, smooth between them."""
    share = np.clip((x - begin) / (end - begin), 0, 1)
    return (share * share * (3 - 2 * share)).astype(np.float32)


def _luma(picture: Picture) -> Plane:
    return (picture.astype(np.float32) / 255 @ np.array([0.299, 0.587, 0.114], np.float32)).astype(np.float32)


def _shadows(picture: Picture) -> Plane:
    return 1 - _rise(_luma(picture), 0.2, 0.45)


def _highlights(picture: Picture) -> Plane:
    return _rise(_luma(picture), 0.55, 0.8)


def _midtones(picture: Picture) -> Plane:
    return 1 - _shadows(picture) - _highlights(picture)


def _centre(picture: Picture) -> Plane:
    height, width = picture.shape[:2]
    y, x = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)[None]
    return 1 - _rise(np.hypot(x, y), 0.4, 0.9)


def _surround(picture: Picture) -> Plane:
    return 1 - _centre(picture)


REGIONS: dict[str, Callable[[Picture], Plane]] = {
    "shadows": _shadows,
    "midtones": _midtones,
    "highlights": _highlights,
    "centre": _centre,
    "surround": _surround,
}
