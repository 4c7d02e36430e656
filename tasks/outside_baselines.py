"""Other ways to tell that a picture is unusual, that a detector is held against: plainer ones, and the bottleneck.

Each is a Gaussian of some features of training inputs, as the detector's own (models/outside.py): mean luma, the plain
features that drift is measured on, and what the student's deepest encoder level holds (Lee et al. 2018). Called by
tasks/detector.py.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from models.spread import spread
from tasks.detector_fit import Sample, Values
from tasks.features import FEATURES, encoder_features, plain_features
from tasks.progress import Advance
from tasks.quality import Pictures

FITTED_ON = 300  # training inputs, evenly over them
Features = Callable[[Sequence[Pictures]], Values]


def plain(pictures: Sequence[Pictures]) -> Values:
    """(N,7): the features of tasks/features.py."""
    found = plain_features(pictures)
    return np.stack([found[name] for name in FEATURES], axis=1)


def luma(pictures: Sequence[Pictures]) -> Values:
    """(N,1): mean luma."""
    return np.array([[float((picture @ np.array([0.299, 0.587, 0.114])).mean() / 255)] for picture in pictures])


BASELINES = ("luma", "plain", "bottleneck")


def baselines(
    train: Sample, usual: Pictures, sets: Mapping[str, Pictures], folder: Path, advance: Advance
) -> dict[str, dict[str, tuple[Values, Values]]]:
    """Way -> set -> scores of the usual pictures and of the set's."""
    from models.outside import Gaussian

    ways: dict[str, Features] = {
        "luma": luma,
        "plain": plain,
        "bottleneck": lambda pictures: encoder_features(folder / "student", pictures),
    }
    taught = list(train.pictures[spread(len(train.pictures), FITTED_ON)])
    found: dict[str, dict[str, tuple[Values, Values]]] = {}
    for way in BASELINES:
        gaussian = Gaussian(ways[way](taught))
        ordinary = gaussian.distance(ways[way](list(usual)))
        found[way] = {}
        for name, pictures in sets.items():
            found[way][name] = (ordinary, gaussian.distance(ways[way](list(pictures))))
            advance(1)
    return found
