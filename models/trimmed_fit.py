"""A linear fit that wrong answers do not bend: least trimmed squares (Rousseeuw 1984).

By the concentration steps of Rousseeuw & Van Driessen (2006), from the fit to all: those that the last fit meets worst
have no say in the next. How far an answer lies off is the largest of its columns, each in robust standard deviations,
so that columns in several units count alike.
"""

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

ROUNDS = 8  # after which those that are heard no longer change, or hardly


def trimmed_fit(
    known: Values, answers: Values, least: Values, share: float
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.bool_]]:
    """(N,P), (N,B) -> weights (P,B), from known to answers, and which of the N have a say: about a `share` of them.

    `least` (B,) are the deviations below which differences in a column are none, however alike the answers are.
    """
    heard = np.ones(len(known), bool)
    for _ in range(ROUNDS):
        weights = np.linalg.lstsq(known[heard], answers[heard], rcond=None)[0]
        rest = answers - known @ weights
        worst = np.abs(rest / robust_deviation(rest, least)).max(axis=1)
        heard = worst <= np.quantile(worst, share)
    return weights, heard


def robust_deviation(rest: Values, least: Values) -> Values:
    """The standard deviation of each column about 0, by the median of what lies off, (N,B) -> (B,); `least` or more."""
    found: Values = np.maximum(1.4826 * np.median(np.abs(rest), axis=0), least)
    return found
