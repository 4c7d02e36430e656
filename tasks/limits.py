"""When a score of a pair is too high, in figures: a limit of params.yaml made a number of one student's pairs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks.curate_params import Limit, Quantile

FEWEST = 20  # training pairs; of fewer neither a quantile nor a spread says anything
NONE = "no pair has it"
TOO_FEW = "too few training pairs have it"
NORMAL = 1.4826  # standard deviation over the median absolute one, of a normal distribution


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A limit as it is for one student's pairs; `value` is None where the rule judges nothing, and `how` says why."""

    value: float | None
    how: str
    judged: int  # pairs of all splits that have the score


def threshold(limit: Limit, taught: Sequence[float], judged: int) -> Threshold:
    """The limit in figures; taught: the scores of the training pairs that are not broken."""
    if limit is None:
        return Threshold(value=None, how="off", judged=0)
    if not judged:
        return Threshold(value=None, how=NONE, judged=0)
    if isinstance(limit, float | int):
        return Threshold(value=float(limit), how="as set", judged=judged)
    if len(taught) < FEWEST:
        return Threshold(value=None, how=f"{TOO_FEW} ({len(taught)} of {FEWEST})", judged=0)
    if isinstance(limit, Quantile):
        value = float(np.quantile(taught, limit.quantile))
        return Threshold(value=value, how=f"quantile {limit.quantile:g} of the training pairs", judged=judged)
    median = float(np.median(taught))
    deviation = NORMAL * float(np.median(np.abs(np.asarray(taught) - median)))
    value = median + limit.spread * deviation
    if value < limit.least:
        return Threshold(value=limit.least, how="the least", judged=judged)
    return Threshold(value=value, how=f"{limit.spread:g} deviations above {median:.3g}", judged=judged)
