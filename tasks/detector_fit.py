"""What is usual for a student's pictures: a detector fitted on training inputs and calibrated on held-out ones.

Held out are the validation inputs, and the training inputs of each photo under a detector that was fitted without that
photo: a few photos are too few for validation ones alone. Called by tasks/detector.py; reads and writes nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.calibration import Threshold, threshold

Pictures = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float64]

BATCH = 16
FOLDS = 8  # or as many as there are photos
ROOM = 0.1  # between the scores at which the effect begins to fade and is gone, at least


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Inputs and where they were cut from."""

    pictures: Pictures  # (N,S,S,3)
    photos: list[str]  # of each its photo, or its clip or cluster of near-duplicates

    @property
    def count(self) -> int:
        """How many photos there are."""
        return len(set(self.photos))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A detector and its two thresholds."""

    outside: Any  # models.outside.Outside, in eval mode: its score is 1 where the effect begins to fade
    passes_at: float  # the score at which the effect is gone
    fades: Threshold  # before it was scaled to 1
    passes: Threshold
    held_out: int  # scores that it was calibrated on


def fit(student: Any, train: Sample, val: Sample, looks_at: Sequence[str], *, fades: float, passes: float) -> Fitted:
    """Fit on the training inputs, calibrate on held-out ones: `fades` and `passes` are the rates of false alarms."""
    from models.outside import Gaussian, Outside, figures_of

    photos = [*val.photos, *train.photos]
    parts, distances = [], []
    for part in looks_at:
        figures = figures_of(part, train.pictures.shape[1], student)
        taught, unseen = (of_pictures(figures, sample.pictures) for sample in (train, val))
        usual = Gaussian(taught)
        held_out = np.concatenate([usual.distance(unseen), without_own_photo(taught, train.photos)])
        unit = threshold(held_out, photos, fades).score
        parts.append((figures, usual, unit))
        distances.append(held_out / unit)
    scores = np.max(distances, axis=0)
    begins = threshold(scores, photos, fades)
    ends = threshold(scores, photos, passes)
    outside = Outside([(figures, usual, unit * begins.score) for figures, usual, unit in parts]).eval()
    passes_at = max(ends.score / begins.score, 1 + ROOM)
    return Fitted(outside=outside, passes_at=passes_at, fades=begins, passes=ends, held_out=len(scores))


def without_own_photo(values: Values, photos: Sequence[str]) -> Values:
    """Distances (N,) of figures (N,C), each from what is usual of other photos alone."""
    from models.outside import Gaussian

    names, member = np.unique(np.asarray(photos), return_inverse=True)
    fold = member % min(FOLDS, len(names))
    found = np.empty(len(values))
    for one in range(min(FOLDS, len(names))):
        found[fold == one] = Gaussian(values[fold != one]).distance(values[fold == one])
    return found


def of_pictures(model: Callable[[Any], Any], pictures: Pictures) -> Values:
    """What a torch module makes of (N,S,S,3) uint8 pictures, batch by batch."""
    import torch

    from models.metrics import batches, to_tensor

    with torch.inference_mode():
        return np.concatenate([model(to_tensor(batch)).double().numpy() for (batch,) in batches([pictures], BATCH)])
