"""What the effect usually makes of its inputs, and how far a pair departs from that.

An effect may well turn everything blue, lay a faint weave over the picture or burn out the lights. What is suspicious
is the pair on which it does so more than it does for other inputs like this one. So figures of the target are foretold
from those of the input by the plane that fits most of the training pairs (models/trimmed_fit.py, as tasks/usual.py asks
for traces); spectra are compared with the training pairs' median.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from models.pair_scores import cliffs, spikes
from models.trimmed_fit import trimmed_fit
from tasks.neighbours import Neighbours

Values = npt.NDArray[np.float64]

HEARD = 0.75  # share of the training pairs that the plane is of
NEAREST = 8  # pairs to which the distance is taken
SAMPLE = 20_000  # spectra of which the median is taken, evenly over the training pairs
BATCH = 4_096  # pairs whose spectra are in memory as floats at once


def unforetold(given: Values, target: Values, is_train: npt.NDArray[np.bool_], least: Values) -> Values:
    """(N,A) of the inputs, (N,B) of the targets -> (N,B): the target minus what the training pairs foretell.

    `least` (B,) are differences that are none, however well the plane fits.
    """
    columns = np.concatenate([given, np.ones((len(given), 1))], axis=1)
    plane, _ = trimmed_fit(columns[is_train], target[is_train], least, HEARD)
    return np.asarray(target - columns @ plane)


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
