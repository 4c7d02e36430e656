"""From scores to thresholds and figures: when a picture counts as unusual, and how well that tells sets apart.

Pictures cut from one photo are not independent, so photos count, not pictures: a threshold for a rate of false alarms
is one for a picture of a photo that nobody has seen. With enough photos it is a quantile over them with room for the
one to come (conformal prediction for two layers: Dunn, Wasserman & Ramdas 2022). Fewer than 1 / rate - 1 photos cannot
vouch for a rate; then logarithms of scores are taken for normal, and the threshold is the bound of their prediction
interval (Student's t), which is the wider the fewer there are. Pure numpy and scipy, reads and writes nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from tasks.intervals import LEVEL, RESAMPLES, SEED

Values = npt.NDArray[np.float64]
By = Literal["photos", "extrapolation"]

LEAST_DRAWN = 5  # photos: drawing from fewer does not tell how others would differ
LEAST_SCORE = 1e-6  # a score of 0 has no logarithm
DETECTED = 0.95  # share of a set that is to be told from ordinary pictures, as OpenOOD's FPR@95 has it


@dataclass(frozen=True, slots=True)
class Threshold:
    """A score that ordinary pictures exceed at a rate, and what vouches for it."""

    score: float
    by: By


def threshold(scores: Values, photos: Sequence[str], rate: float) -> Threshold:
    """The score that a picture of another photo exceeds with a probability of `rate`, from (N,) held-out scores.

    Needs the scores of at least two photos.
    """
    names, member = np.unique(np.asarray(photos), return_inverse=True)
    if len(names) < 1 / rate - 1 - 1e-9:
        return Threshold(extrapolated(scores, member, len(names), rate), "extrapolation")
    # Each photo weighs the same, and so does one to come, of which nothing is known.
    weights = 1 / ((len(names) + 1) * np.bincount(member)[member])
    order = np.argsort(scores, kind="stable")
    place = min(int(np.searchsorted(np.cumsum(weights[order]), 1 - rate - 1e-9)), len(scores) - 1)
    return Threshold(max(float(scores[order[place]]), LEAST_SCORE), "photos")


def extrapolated(scores: Values, member: npt.NDArray[np.intp], photos: int, rate: float) -> float:
    """The upper bound of Student's prediction interval for the logarithm of a score of another photo."""
    from scipy.stats import t

    logs = np.log(np.maximum(scores, LEAST_SCORE))
    counts = np.bincount(member, minlength=photos)
    means = np.bincount(member, weights=logs, minlength=photos) / counts
    within = float(np.mean(np.bincount(member, weights=np.square(logs - means[member]), minlength=photos) / counts))
    between = float(means.var(ddof=1))
    spread = math.sqrt(between * (1 + 1 / photos) + within)
    return float(np.exp(means.mean() + t.ppf(1 - rate, photos - 1) * spread))


def auroc(usual: Values, shifted: Values) -> float:
    """The probability that a shifted picture scores higher than a usual one; a tie counts half."""
    return float(wins(usual, shifted).mean())


def wins(usual: Values, shifted: Values) -> Values:
    """(N,), (M,) -> (N,M): 1 where the shifted one scores higher, a half where they are equal."""
    higher: Values = (shifted[None] > usual[:, None]) + 0.5 * (shifted[None] == usual[:, None])
    return higher


def auroc_interval(usual: Values, shifted: Values, photos: Sequence[str], others: Sequence[str]) -> list[float] | None:
    """Where the AUROC lies, 95 % of the time, were other photos drawn (cluster bootstrap); None for too few.

    `photos` and `others` are where the usual and the shifted pictures come from; where both are the same photos, the
    same are drawn of both.
    """
    names, member = np.unique(np.asarray(photos), return_inverse=True)
    other_names, other = np.unique(np.asarray(others), return_inverse=True)
    if min(len(names), len(other_names)) < LEAST_DRAWN:
        return None
    of_photos = np.eye(len(names))[member], np.eye(len(other_names))[other]
    won = of_photos[0].T @ wins(usual, shifted) @ of_photos[1]
    pairs = np.outer(of_photos[0].sum(axis=0), of_photos[1].sum(axis=0))
    random = np.random.default_rng(SEED)
    drawn = random.multinomial(len(names), np.full(len(names), 1 / len(names)), RESAMPLES).astype(float)
    others_drawn = drawn
    if list(names) != list(other_names):
        even = np.full(len(other_names), 1 / len(other_names))
        others_drawn = random.multinomial(len(other_names), even, RESAMPLES).astype(float)
    found = np.einsum("rp,pq,rq->r", drawn, won, others_drawn) / np.einsum("rp,pq,rq->r", drawn, pairs, others_drawn)
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return [float(low), float(high)]


def false_alarms(usual: Values, shifted: Values, detected: float = DETECTED) -> float:
    """The share of usual pictures above the score that a share `detected` of the shifted ones reach."""
    return float((usual >= np.quantile(shifted, 1 - detected)).mean())


def share_interval(shares: Sequence[float]) -> list[float]:
    """Where the mean of photos' shares lies, 95 % of the time, were other photos drawn.

    As if each photo were one picture (Clopper & Pearson 1934): wide, and not a point where none or all are flagged.
    """
    from scipy.stats import beta

    count, hits = len(shares), float(np.sum(shares))
    tail = (1 - LEVEL) / 2
    low = beta.ppf(tail, hits, count - hits + 1) if hits > 0 else 0.0
    high = beta.ppf(1 - tail, hits + 1, count - hits) if hits < count else 1.0
    return [float(low), float(high)]
