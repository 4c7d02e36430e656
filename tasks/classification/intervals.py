"""How sure a classifier's figures are: 95 % intervals over test examples, which are drawn independently of one another.

A share alone has Wilson's interval (Wilson 1927), since a bootstrap of a hundred right answers in a hundred would be
sure of 1. A mean, and the difference of two contestants on the same examples, has the percentile bootstrap (Efron
1979), paired, so that what makes an example hard for both cancels out; beside the difference of two accuracies stands
the exact McNemar test (1947). The seed is fixed: equal figures give equal intervals. Reads and writes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from tasks.intervals import LEVEL, RESAMPLES, SEED
from tasks.records import Record

DIGITS = 6
LEAST_EXAMPLES = 2  # one says nothing about others
AT_ONCE = 2_000_000  # numbers drawn at a time

Mask = Sequence[bool] | npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleInterval(Record):
    """Where a figure lies, were other examples of the same kind drawn."""

    low: float
    high: float
    level: float
    examples: int


def share_interval(count: int, of: int) -> ExampleInterval | None:
    """Of `count` hits among `of` examples, by Wilson; None for fewer than LEAST_EXAMPLES."""
    if of < LEAST_EXAMPLES:
        return None
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    middle, width = count + z * z / 2, z * (count * (of - count) / of + z * z / 4) ** 0.5
    ends = (middle - width) / (of + z * z), (middle + width) / (of + z * z)
    return _interval(max(0.0, ends[0]), min(1.0, ends[1]), of)


def mean_interval(values: npt.NDArray[np.float64]) -> ExampleInterval | None:
    """Of the mean of (N,) values; None for fewer than LEAST_EXAMPLES."""
    count = len(values)
    if count < LEAST_EXAMPLES:
        return None
    draws = np.random.default_rng(SEED)
    each = max(1, AT_ONCE // count)
    sizes = [min(each, RESAMPLES - start) for start in range(0, RESAMPLES, each)]
    means = [values[draws.integers(0, count, size=(size, count))].mean(axis=1) for size in sizes]
    return _quantiles(np.concatenate(means), count)


def difference_interval(mine: Mask, other: Mask) -> ExampleInterval | None:
    """Of how much oftener `mine` is true than `other`, both (N,) of the same examples.

    An example counts 1, 0 or -1, so a resample is a draw of how often each comes up: the bootstrap itself, for sets of
    any size. None for fewer than LEAST_EXAMPLES.
    """
    better, worse, count = *_apart(mine, other), len(mine)
    if count < LEAST_EXAMPLES:
        return None
    shares = np.array([better, worse, count - better - worse]) / count
    drawn = np.random.default_rng(SEED).multinomial(count, shares, size=RESAMPLES)
    return _quantiles((drawn[:, 0] - drawn[:, 1]) / count, count)


def mcnemar(mine: Mask, other: Mask) -> float:
    """The exact two-sided p of so unequal a number of examples on which one alone is true, were both as good."""
    from scipy.stats import binomtest

    better, worse = _apart(mine, other)
    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0


def _apart(mine: Mask, other: Mask) -> tuple[int, int]:
    """On how many examples `mine` alone is true, and `other` alone."""
    a, b = np.asarray(mine, np.bool_), np.asarray(other, np.bool_)
    return int((a & ~b).sum()), int((b & ~a).sum())


def _quantiles(values: npt.NDArray[np.float64], examples: int) -> ExampleInterval:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return _interval(float(low), float(high), examples)


def _interval(low: float, high: float, examples: int) -> ExampleInterval:
    return ExampleInterval(low=round(low, DIGITS), high=round(high, DIGITS), level=LEVEL, examples=examples)
