"""The test set in parts, so that a mean does not hide where a student is bad: by photo, in halves, and in slices.

From figures per crop to sums per part; pure numpy, called by tasks/quality.py.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from tasks.evidence import Photo, Slice

Columns = Mapping[str, npt.NDArray[np.float64]]

DIGITS = 9  # of sums of mean squared errors, the smallest of which is about 1e-5
# Of each property of an input (models.metrics.scene) the names of its lower and its upper half.
HALVES = {"luma": ("dark", "bright"), "detail": ("plain", "detailed"), "chroma": ("grey", "colourful")}


def by_photo(columns: Columns, photos: Sequence[str]) -> tuple[Photo, ...]:
    """Sums of `error` and `change` over the crops of each photo; `photos[i]` is where crop i was cut from."""
    names, member = np.unique(np.asarray(photos), return_inverse=True)
    error = np.bincount(member, weights=columns["error"])
    change = np.bincount(member, weights=columns["change"])
    return tuple(
        Photo(
            name=str(name),
            count=int((member == index).sum()),
            error=round(float(error[index]), DIGITS),
            change=round(float(change[index]), DIGITS),
        )
        for index, name in enumerate(names)
    )


def halves(columns: Columns, scene: Columns) -> tuple[Slice, ...]:
    """Sums over the crops below and above the median of each property; of equal inputs the upper half is empty."""
    slices = []
    for of, (lower, upper) in HALVES.items():
        below = scene[of] <= np.median(scene[of])
        slices += [part(lower, columns, below), part(upper, columns, ~below)]
    return tuple(slices)


def named(columns: Columns, masks: Mapping[str, npt.NDArray[np.bool_]]) -> tuple[Slice, ...]:
    """Sums over the crops of each slice, (N,) by name."""
    return tuple(part(name, columns, chosen) for name, chosen in masks.items())


def part(name: str, columns: Columns, chosen: npt.NDArray[np.bool_]) -> Slice:
    """The slice of the chosen crops."""
    error, change = (round(float(columns[key][chosen].sum()), DIGITS) for key in ("error", "change"))
    return Slice(name=name, samples=int(chosen.sum()), error=error, change=change)
