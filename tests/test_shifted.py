"""Test inputs as a student is not meant to see them: each does what its name says, the same every time."""

import numpy as np
import pytest
from scenes import scene

from models.light import to_light
from tasks.detector_report import WORDS
from tasks.shifted import SETS, SHIFTS, line_art, shifted

INPUTS = np.stack([scene(seed, 64, 64) for seed in range(3)])
LUMA = np.array([0.299, 0.587, 0.114])


def detail(pictures: np.ndarray) -> float:
    luma = pictures @ LUMA
    return float(np.abs(np.diff(luma, axis=1)).mean())


@pytest.mark.parametrize("name", SHIFTS)
def test_pictures_are_of_the_same_form_and_the_same_every_time(name: str) -> None:
    made = shifted(name, INPUTS)
    assert made.shape == INPUTS.shape and made.dtype == np.uint8
    assert (made == shifted(name, INPUTS)).all() and (made != INPUTS).any()


def test_each_does_what_its_name_says() -> None:
    made = {name: shifted(name, INPUTS) for name in SHIFTS}
    assert to_light(made["night"]).mean() < 0.15 * to_light(INPUTS).mean()
    assert made["covered"].mean() < 12
    assert np.ptp(made["grey"], axis=3).max() == 0
    assert set(np.unique(made["outlines"])) == {20, 255}
    assert set(np.unique(made["flat_colours"])) <= {0, 85, 170, 255}
    assert detail(made["close"]) < 0.5 * detail(INPUTS) < 0.25 * detail(made["static"])
    assert detail(made["far"]) > 1.5 * detail(INPUTS) and detail(made["noise"]) > 1.5 * detail(INPUTS)
    assert (made["inverted"] + INPUTS == 255).all()
    assert (made["upside_down"][:, ::-1, ::-1] == INPUTS).all()


def test_rows_have_noise_of_their_own() -> None:
    made = shifted("static", INPUTS)
    assert (made[0] != made[1]).any()


def test_line_art_comes_from_a_library_and_each_crop_is_another() -> None:
    pictures, names = line_art(64)
    assert pictures.shape == (18, 64, 64, 3) and len(set(names)) == 3
    assert len({one.tobytes() for one in pictures}) == 18
    assert np.ptp(pictures, axis=3).max() == 0


def test_the_report_has_words_for_every_set() -> None:
    assert set(WORDS) == {"test", *SETS}
