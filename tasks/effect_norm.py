"""What the effect usually makes of its inputs, and how far a pair departs from that.

An effect may well turn everything blue, lay a faint weave over the picture or burn out the lights. What is suspicious
is the pair on which it does so more than it does for other inputs like this one. So figures of the target are foretold
from those of the input by a plane fitted to the training pairs, of which the worst are left out and the rest fitted
again; spectra are compared with the training pairs' median.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from models.pair_scores import cliffs, spikes
from tasks.neighbours import Neighbours

Values = npt.NDArray[np.float64]

LEFT_OUT = 0.1  # share of the training pairs that the second fit does not see
NEAREST = 8  # pairs to which the distance is taken
SAMPLE = 20_000  # spectra of which the median is taken, evenly over the training pairs
BATCH = 4_096  # pairs whose spectra are in memory as floats at once


def unforetold(given: Values, target: Values, is_train: npt.NDArray[np.bool_]) -> Values:
    """(N,A) of the inputs, (N,B) of the targets -> (N,B): the target minus what the training pairs foretell."""
    columns = np.concatenate([given, np.ones((len(given), 1))], axis=1)
    taught = np.flatnonzero(is_train)
    for _ in range(2):
        plane, *_ = np.linalg.lstsq(columns[taught], target[taught], rcond=None)
        rest = target - columns @ plane
        size = np.linalg.norm(rest, axis=1)
        taught = np.flatnonzero(is_train & (size <= np.quantile(size[is_train], 1 - LEFT_OUT)))
    return np.asarray(rest)


Spectra = npt.NDArray[np.float16]  # (N,2,F) log10 of power (models/pair_scores.spectrum)


def repetition(given: Spectra, target: Spectra, is_train: npt.NDArray[np.bool_]) -> Values:
    """(N,): the strongest spike of a target's spectrum that neither its input has nor the effect usually makes.

    In decades over the neighbouring frequencies.
    """
    usual = np.median(spikes(target[sample(is_train)]), axis=0)
    return by_parts(
        lambda some: (spikes(target[some]) - np.maximum(np.maximum(spikes(given[some]), usual), 0)).max(axis=(1, 2)),
        len(target),
    )


def cut_off(given: Spectra, target: Spectra, is_train: npt.NDArray[np.bool_]) -> Values:
    """(N,): the deepest fall of a target's spectrum beyond that of its input, each beside what is usual; in decades."""
    rows = sample(is_train)
    usual = [np.median(side[rows].astype(np.float32), axis=0) for side in (given, target)]

    def fall(side: Spectra, usually: npt.NDArray[np.float32]) -> Values:
        return np.asarray(cliffs(side - usually).max(axis=(1, 2)), np.float64)

    return by_parts(
        lambda some: fall(target[some], usual[1]) - np.maximum(fall(given[some], usual[0]), 0),
        len(target),
    )


def sample(is_train: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """At most SAMPLE training rows, evenly."""
    rows = np.flatnonzero(is_train)
    return rows[:: -(-len(rows) // SAMPLE)]


def by_parts(score: Callable[[slice], npt.NDArray[Any]], count: int) -> Values:
    """(count,): the scores of all rows, BATCH at a time, as spectra are kept as half floats."""
    parts = [score(slice(start, start + BATCH)) for start in range(0, count, BATCH)]
    return np.concatenate(parts).astype(np.float64)


def loneliness(vectors: npt.NDArray[np.float32]) -> Values:
    """(N,): mean distance of each pair to its nearest, in whitened deviations; 0 where there are too few to say."""
    if len(vectors) <= NEAREST:
        return np.zeros(len(vectors))
    distances, _ = Neighbours(vectors).of_each_other(NEAREST)
    return np.asarray(distances.mean(axis=1), np.float64)
