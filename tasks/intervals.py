"""How sure a figure over a test set is: 95 % bootstrap intervals that draw whole photos.

Crops of one photo are not independent, so photos are drawn, with their sums, not crops (Efron 1979; cluster
bootstrap). The seed is fixed: equal sums give equal intervals. Pure numpy, reads and writes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.records import Record

LEVEL = 0.95
DIGITS = 6
RESAMPLES = 2000
SEED = 0
LEAST_PHOTOS = 2  # one photo says nothing about others


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval(Record):
    """Where a figure lies, were other photos of the same kind drawn."""

    low: float
    high: float
    level: float
    photos: int
    resamples: int


def explained_interval(error: Sequence[float], change: Sequence[float]) -> Interval | None:
    """Interval of the explained effect 1 - sum(error) / sum(change), given the two sums of each photo.

    None for fewer than LEAST_PHOTOS photos.
    """
    errors, changes = np.asarray(error, np.float64), np.asarray(change, np.float64)
    return _ratio_interval(changes - errors, changes)


def gain_interval(error: Sequence[float], other: Sequence[float], change: Sequence[float]) -> Interval | None:
    """Interval of how much more effect `error` explains than `other`: (sum(other) - sum(error)) / sum(change).

    Paired: the same photos are drawn for both, so what makes a photo hard for both cancels out. Position i of all
    three belongs to one photo. None for fewer than LEAST_PHOTOS photos.
    """
    errors, others = np.asarray(error, np.float64), np.asarray(other, np.float64)
    return _ratio_interval(others - errors, np.asarray(change, np.float64))


def _ratio_interval(above: npt.NDArray[np.float64], below: npt.NDArray[np.float64]) -> Interval | None:
    """Interval of sum(above) / sum(below) over photos drawn with replacement."""
    photos = len(above)
    if photos < LEAST_PHOTOS:
        return None
    drawn = np.random.default_rng(SEED).integers(0, photos, size=(RESAMPLES, photos))
    # A draw in which the teacher changed nothing must count as hopeless or perfect, not raise.
    with np.errstate(over="ignore", invalid="ignore"):
        values = above[drawn].sum(axis=1) / np.maximum(below[drawn].sum(axis=1), np.finfo(np.float64).tiny)
        low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(
        low=round(float(low), DIGITS), high=round(float(high), DIGITS), level=LEVEL, photos=photos, resamples=RESAMPLES
    )
