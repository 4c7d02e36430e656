"""Pairs that a teacher answered unlike its others are told apart, also where all inputs of a kind were."""

from collections.abc import Callable

import numpy as np
import pytest
from scenes import scene

from models.effect import EFFECT, SCENE, WORDS, describe
from models.errors import UserError
from tasks.usual import find_usual, in_words, unusual

COUNT, SIZE = 150, 64
INPUTS = np.stack([scene(seed, SIZE, SIZE) for seed in range(COUNT)])
NAMES = [str(number) for number in range(COUNT)]
Pictures = np.ndarray


def effect(pictures: Pictures) -> Pictures:
    """A plain teacher: warmer, more contrast."""
    changed = 128 + 1.3 * (pictures.astype(float) - 128) + [20, 0, -20]
    return np.clip(changed, 0, 255).astype(np.uint8)


TARGETS = effect(INPUTS)
FAULTS: dict[str, Callable[[Pictures, Pictures], Pictures]] = {
    "chroma": lambda x, y: np.repeat(y.mean(axis=-1, keepdims=True), 3, axis=-1).astype(np.uint8),
    "change": lambda x, y: x,
    "warmth": lambda x, y: np.clip(y.astype(int) + np.array([-40, 0, 40]), 0, 255).astype(np.uint8),
    "structure": lambda x, y: y[:, ::-1],
}


def test_each_number_has_words_and_says_what_was_done() -> None:
    assert tuple(WORDS) == EFFECT and EFFECT[: len(SCENE)] == SCENE
    scenes, effects = describe(INPUTS[:4], INPUTS[:4])
    assert scenes.shape == (4, 6) and effects.shape == (4, 8)
    np.testing.assert_allclose(effects[:, :6], 0, atol=1e-6)
    brighter = np.clip(INPUTS[:4].astype(int) + 30, 0, 255).astype(np.uint8)
    lifted = describe(INPUTS[:4], brighter)[1]
    assert (lifted[:, EFFECT.index("luma")] > 0.05).all() and (lifted[:, EFFECT.index("change")] > -3).all()
    grey = describe(INPUTS[:1], np.full((1, SIZE, SIZE, 3), 128, np.uint8))[1]
    assert np.isfinite(grey).all() and grey[0, EFFECT.index("structure")] == 0


@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_answers_to_inputs_of_one_kind_are_unusual(fault: str) -> None:
    light = INPUTS.mean(axis=(1, 2, 3))
    wrong = light < np.quantile(light, 0.12)
    targets = TARGETS.copy()
    targets[wrong] = FAULTS[fault](INPUTS[wrong], TARGETS[wrong])
    scenes, effects = describe(INPUTS, targets)
    deviations = find_usual(scenes, effects, NAMES).deviations(scenes, effects)
    found = unusual(deviations)
    assert found[wrong].mean() > 0.8 and found[~wrong].mean() < 0.1
    told = deviations[wrong][:, EFFECT.index(fault)]
    assert (np.abs(told) > 6).mean() > 0.8


def test_a_teacher_that_always_does_the_same_has_nothing_unusual() -> None:
    scenes, effects = describe(INPUTS, TARGETS)
    assert unusual(find_usual(scenes, effects, NAMES).deviations(scenes, effects)).mean() < 0.1


def test_in_words_the_strongest_come_first() -> None:
    deviations = np.zeros(8)
    assert in_words(deviations) == ""
    deviations[EFFECT.index("chroma")], deviations[EFFECT.index("detail")] = -11.2, 7.0
    assert in_words(deviations) == "greyer (11 deviations) and with more fine detail (7 deviations)"


def test_too_few_pairs_are_refused() -> None:
    with pytest.raises(UserError, match="10 training pairs of 10 inputs do not show what is usual"):
        find_usual(*describe(INPUTS[:10], TARGETS[:10]), NAMES[:10])
