"""Shares of slices on two sides, and which the one lacks: pure figures for tasks/coverage.py.

A ratio of shares has the score interval (Koopman 1984; Miettinen & Nurminen 1985), at a level that holds for all judged
slices together (Bonferroni). Intervals on the log scale (Katz et al. 1978) are of no use where training has none at all
of a slice, which is what is looked for: 30 of 60 against 0 of 60 would not count.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.stats import norm

from tasks.features import FEATURES, Features
from tasks.records import Record

Labels = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]

BINS = 5
TAILS = 0.01  # share of the pictures beyond the outer bins' inner range: one odd picture is not to stretch it
LEVEL = 0.95
REACH = 30.0  # of the logarithm of a ratio
DIGITS = 4
TRAIN, RECENT = "train", "recent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice(Record):
    """Pictures with something in common, and how many there are on each side."""

    axis: str  # a feature, "cluster", "faces", ...
    name: str  # in words
    counts: dict[str, int]  # by side
    shares: dict[str, float]  # of the side's pictures; of its faces on an axis about faces
    ratio: float | None = None  # serving's share over training's; None without serving, or where training has none
    low: float | None = None
    high: float | None = None  # None where there is no upper end
    verdict: str = ""  # "lacking", "too small", or ""
    told: str = ""  # in words
    wanted: int = 0  # further training pictures of it that would give it serving's share


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """A way to take pictures apart: which slice each picture of every side is in; -1 is none."""

    name: str
    slices: tuple[str, ...]
    labels: dict[str, Labels]


def edges(values: Values) -> Values:
    """The inner edges of BINS bins of equal width over the middle of the values; the outer bins are open."""
    low, high = np.quantile(values, [TAILS, 1 - TAILS])
    return np.linspace(low, high, BINS + 1)[1:-1]


def feature_axes(features: Mapping[str, Features]) -> list[Axis]:
    """An axis for each plain feature, its bins the same on every side."""
    axes = []
    for name, feature in FEATURES.items():
        inner = edges(np.concatenate([side[name] for side in features.values()]))
        labels = {side: np.digitize(values[name], inner).astype(np.int64) for side, values in features.items()}
        ends = [
            f"below {inner[0]:.2f}",
            *(f"{low:.2f} to {high:.2f}" for low, high in pairwise(inner)),
        ]
        words = [f" ({feature.falls})", *[""] * (BINS - 2), f" ({feature.rises})"]
        slices = tuple(f"{end}{word}" for end, word in zip([*ends, f"{inner[-1]:.2f} and above"], words, strict=True))
        axes.append(Axis(name=name, slices=slices, labels=labels))
    return axes


def slices_of(axis: Axis) -> list[Slice]:
    """Counts and shares of an axis's slices on every side."""
    counts = {
        side: np.bincount(labels[labels >= 0], minlength=len(axis.slices)) for side, labels in axis.labels.items()
    }
    return [
        Slice(
            axis=axis.name,
            name=name,
            counts={side: int(found[index]) for side, found in counts.items()},
            shares={side: round(float(found[index] / max(1, found.sum())), DIGITS) for side, found in counts.items()},
        )
        for index, name in enumerate(axis.slices)
    ]


def ratio_interval(k: int, n: int, m: int, of: int, level: float) -> tuple[float, float]:
    """The interval of the ratio of the shares that k of n and m of `of` come from; 0 and infinity are open ends."""
    limit = float(norm.ppf(0.5 + level / 2))

    def end(sign: float) -> float:
        return float(np.exp(brentq(lambda log: _score(float(np.exp(log)), k, n, m, of) - sign * limit, -REACH, REACH)))

    return end(1.0) if k else 0.0, end(-1.0) if m else math.inf


def _score(ratio: float, k: int, n: int, m: int, of: int) -> float:
    """How many standard deviations k/n lies above `ratio` times m/of, were that the ratio; it falls as that rises."""
    a, b, c = (n + of) * ratio, -(n * ratio + k + of + m * ratio), k + m
    share = (-b - max(0.0, b * b - 4 * a * c) ** 0.5) / (2 * a)  # of the second, the likeliest at this ratio
    variance = ratio * share * (1 - min(1.0, ratio * share)) / n + ratio**2 * share * (1 - share) / of
    return float((k / n - ratio * m / of) / math.sqrt(max(variance, 1e-300)))


def size_up(slices: Sequence[Slice], min_slice: int) -> list[Slice]:
    """The same where there is nothing to compare with: small ones are named."""
    return [one if one.counts[TRAIN] >= min_slice else _small(one) for one in slices]


def judge(slices: Sequence[Slice], min_slice: int, min_ratio: float) -> list[Slice]:
    """The same with serving compared to training; a slice of fewer than `min_slice` pictures of both is only named."""
    judged = [one for one in slices if seen(one) >= min_slice]
    level = 1 - (1 - LEVEL) / max(1, len(judged))
    return [_judged(one, _totals(slices, one), level, min_ratio) if one in judged else _small(one) for one in slices]


def share_of(count: int, total: int) -> float:
    """Its share, 0 of nothing."""
    return count / total if total else 0.0


def _totals(slices: Sequence[Slice], of: Slice) -> dict[str, int]:
    same = [one for one in slices if one.axis == of.axis]
    return {side: sum(one.counts[side] for one in same) for side in (TRAIN, RECENT)}


def seen(one: Slice) -> int:
    """How many pictures of a slice training and serving have together."""
    return one.counts[TRAIN] + one.counts.get(RECENT, 0)


def _small(one: Slice) -> Slice:
    total = seen(one)
    told = "no picture of it" if not total else f"{total} picture{'s' if total > 1 else ''}: too small to judge"
    return Slice.from_json(one.to_json() | {"verdict": "too small", "told": told})


def _judged(one: Slice, totals: Mapping[str, int], level: float, min_ratio: float) -> Slice:
    k, m = one.counts[RECENT], one.counts[TRAIN]
    low, high = ratio_interval(k, totals[RECENT], m, totals[TRAIN], level) if totals[RECENT] else (0.0, math.inf)
    ratio = share_of(k, totals[RECENT]) / share_of(m, totals[TRAIN]) if m else None
    lacking = low >= min_ratio
    share = share_of(k, totals[RECENT])
    wanted = int(np.ceil((share * totals[TRAIN] - m) / (1 - share))) if lacking and share < 1 else 0
    if ratio is None:
        told = f"training has none; at least {low:.1f} times its share"
    else:
        told = f"{ratio:.1f} times training's share ({low:.1f} to {high:.1f})"
    figures = {
        "ratio": None if ratio is None else round(ratio, DIGITS),
        "low": round(low, DIGITS),
        "high": None if math.isinf(high) else round(high, DIGITS),
    }
    words = {"verdict": "lacking" if lacking else "", "told": told, "wanted": wanted}
    return Slice.from_json(one.to_json() | figures | words)


def collect_next(slices: Sequence[Slice]) -> list[Slice]:
    """The slices training lacks, those first that most of serving's pictures are missing of."""
    lacking = [one for one in slices if one.verdict == "lacking"]
    return sorted(lacking, key=lambda one: (-(one.shares[RECENT] - one.shares[TRAIN]), one.axis, one.name))
