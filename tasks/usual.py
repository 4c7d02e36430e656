"""What a teacher's answer usually is for an input of a kind, so that those which are not can be told.

A linear fit of the effect's numbers on the scene's (models/effect.py) over the training pairs, by least trimmed squares
(models/trimmed_fit.py): the quarter that fits worst has no say, so up to a quarter of wrong answers do not become the
usual ones, not even where all inputs of one kind were answered wrongly. Deviations are in robust standard deviations.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.effect import EFFECT, WORDS, Pictures, describe
from models.errors import UserError
from models.trimmed_fit import robust_deviation, trimmed_fit

Values = npt.NDArray[np.float64]

MANNER_OF = 64  # training pictures that show what a student does everywhere
LEAST = 60  # pairs; of fewer nothing is usual
FOLDS = 5  # in which inputs are left out in turn
HEARD = 0.75  # share that the fit is of
# Robust deviations of the largest of the eight from which on a pair is unusual. Of 900 pairs of the udnie network 1 %
# are, of 900 of which 90 were answered in grey, with a colour cast, by half or not at all, these 90.
UNUSUAL = 6.0
ALIKE = 0.5  # cosine of two effects' deviations from which on they are unusual in the same way
MOST_COUNTED = 12.0  # deviations: what is off by more is not more alike
# Below these a difference is none, however alike the pairs are.
LEAST_DEVIATION = np.array([0.01, 0.03, 0.1, 0.03, 0.01, 0.005, 0.03, 0.03])


@dataclass(frozen=True, slots=True)
class Usual:
    """The fit."""

    centre: Values  # (6,): of the scene
    scale: Values  # (6,)
    weights: npt.NDArray[np.floating]  # (13,8)
    deviation: Values  # (8,)

    def deviations(self, scene: Values, effect: Values) -> Values:
        """(N,6), (N,8) -> how many robust deviations each number lies from the usual one, signed: (N,8)."""
        found: Values = (effect - terms(scene, self.centre, self.scale) @ self.weights) / self.deviation
        return found


def terms(scene: Values, centre: Values, scale: Values) -> Values:
    """What the fit is linear in: 1, the scene's numbers and their squares, (N,13)."""
    standard = np.clip((scene - centre) / scale, -3, 3)  # beyond what was seen a parabola leads nowhere
    return np.concatenate([np.ones((len(scene), 1)), standard, np.square(standard)], axis=1)


def find_usual(scene: Values, effect: Values, inputs: Sequence[str]) -> Usual:
    """The fit to (N,6) and (N,8) of pairs cut from these inputs, (N,); UserError for too few pairs or inputs."""
    if len(scene) < LEAST or len(set(inputs)) < FOLDS:
        raise UserError(
            f"{len(scene)} training pairs of {len(set(inputs))} inputs do not show what is usual; it takes {LEAST} of "
            f"{FOLDS}: add inputs"
        )
    centre = np.median(scene, axis=0).astype(np.float64)
    scale = scene.std(axis=0) + 1e-6
    known = terms(scene, centre, scale)
    weights, heard = trimmed_fit(known, effect, LEAST_DEVIATION, HEARD)
    deviation = robust_deviation(unseen(known, effect, heard, inputs), LEAST_DEVIATION)
    return Usual(centre, scale, weights, deviation)


def unseen(known: Values, effect: Values, heard: npt.NDArray[np.bool_], inputs: Sequence[str]) -> Values:
    """What each pair lies off the fit to pairs of other inputs, (N,8): how far the next input's may lie.

    Crops of one photo lie near to one another; of few photos their scatter would promise too much.
    """
    fold = np.unique(np.asarray(inputs), return_inverse=True)[1] % FOLDS
    rest = np.empty_like(effect)
    for one in range(FOLDS):
        out = fold == one
        weights = np.linalg.lstsq(known[heard & ~out], effect[heard & ~out], rcond=None)[0]
        rest[out] = effect[out] - known[out] @ weights
    return rest


def manner(usual: Usual, inputs: Pictures, outputs: Pictures) -> Values:
    """What a student does everywhere, such as smoothing: the deviations of what it makes of training inputs, (N,8).

    Both (N,S,S,3) uint8. It is no news about one picture.
    """
    return usual.deviations(*describe(inputs, outputs))


def unusual(deviations: Values) -> npt.NDArray[np.bool_]:
    """Which of (N,8) are unusual, (N,)."""
    found: npt.NDArray[np.bool_] = np.abs(deviations).max(axis=1) > UNUSUAL
    return found


def same_way(pairs: Values, own: Values) -> npt.NDArray[np.bool_]:
    """Which of the pairs' deviations (N,8) are unusual, and in the way of `own` (8,): (N,)."""
    theirs, mine = (np.clip(one, -MOST_COUNTED, MOST_COUNTED) for one in (pairs, own))
    lengths = np.linalg.norm(theirs, axis=1) * np.linalg.norm(mine)
    found: npt.NDArray[np.bool_] = unusual(pairs) & (theirs @ mine > ALIKE * np.maximum(lengths, 1e-9))
    return found


def in_words(deviations: Values, most: int = 3) -> str:
    """What is unusual about one, (8,): "greyer (11 deviations) and smoother (7)", the strongest first; or ""."""
    strongest: Sequence[int] = [int(one) for one in np.argsort(-np.abs(deviations))]
    told = [
        f"{WORDS[EFFECT[one]][int(deviations[one] > 0)]} ({abs(deviations[one]):.0f} deviations)"
        for one in strongest[:most]
        if abs(deviations[one]) > UNUSUAL
    ]
    return " and ".join(told)
