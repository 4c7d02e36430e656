"""The robustness table: a student that copes with a bad camera and one that does not are told apart."""

from pathlib import Path

import numpy as np
import pytest
from scenes import scene

from models import camera
from models.errors import UserError
from tasks.quality import Floats, Pictures
from tasks.robustness import CAMERA, NOISY, SCENES, degraded, measure, robustness, samples, table

SIZE = 64


def details() -> Pictures:
    """Five coloured pictures with fine detail."""
    fine = np.random.default_rng(0).integers(-40, 40, size=(5, SIZE, SIZE, 1))
    coarse = np.stack([scene(seed, SIZE, SIZE) for seed in range(5)])
    return np.clip(coarse + fine, 0, 255).astype(np.uint8)


INPUTS = details()
TARGETS = 255 - INPUTS


def invert(pictures: Pictures) -> Floats:
    """The teacher itself, which knows nothing of cameras."""
    return 1 - pictures.astype(np.float32) / np.float32(255)


def remember(pictures: Pictures) -> Floats:
    """The teacher's picture of whichever input looks most like what is seen: no camera can confuse it."""
    nearest = [np.square(INPUTS.astype(float) - picture).sum(axis=(1, 2, 3)).argmin() for picture in pictures]
    return invert(INPUTS[nearest])


def test_the_conditions_lie_in_the_ranges_that_training_draws_from() -> None:
    assert next(iter(CAMERA)) == "clean"
    low, high = np.log(camera.SHOT)
    assert low < NOISY[0] < NOISY[1] <= high


def test_the_table_tells_who_copes() -> None:
    found = measure({"teacher": invert, "robust": remember}, INPUTS, TARGETS)
    assert list(found) == list(CAMERA)
    for condition, by_model in found.items():
        assert by_model["robust"]["explained_effect"] == pytest.approx(1), condition
    teacher = {condition: by_model["teacher"]["explained_effect"] for condition, by_model in found.items()}
    assert teacher.pop("clean") == pytest.approx(1)
    assert all(value < 0.999 for value in teacher.values())
    for mild, strong in (("blur 1.5", "blur 3"), ("noise dim", "noise dark"), ("JPEG 40", "JPEG 15")):
        assert teacher[strong] < teacher[mild]
    assert found["blur 3"]["teacher"]["sharpness_ratio"] < 0.2 < 1.1 < found["noise dark"]["teacher"]["sharpness_ratio"]
    lines = table(found).splitlines()
    assert len(lines) == 2 + len(CAMERA) and lines[2].startswith("| clean | 1.000 |")


def test_a_changed_scene_is_held_against_what_the_teacher_makes_of_it() -> None:
    found = measure({"same": invert, "by heart": remember}, INPUTS, TARGETS, invert)
    assert list(found) == [*CAMERA, *SCENES]
    for condition in SCENES:
        assert found[condition]["same"]["explained_effect"] == pytest.approx(1)
        assert found[condition]["by heart"]["explained_effect"] < 0.99
    assert all(not np.array_equal(degraded(INPUTS, condition), INPUTS) for condition in SCENES)


@pytest.mark.parametrize("condition", [*CAMERA, *SCENES])
def test_a_picture_is_degraded_the_same_whatever_batch_it_is_in(condition: str) -> None:
    whole = degraded(INPUTS, condition)
    assert np.array_equal(whole[2:], degraded(INPUTS[2:], condition, 2))
    assert np.array_equal(whole, INPUTS) == (condition == "clean")


def test_the_sheet_has_a_row_a_condition() -> None:
    from io import BytesIO

    from PIL import Image

    with Image.open(BytesIO(samples(invert, INPUTS, TARGETS))) as image:
        assert image.height > SIZE * len(CAMERA) and image.width > 9 * SIZE


def test_a_student_that_is_not_made_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="missing data/students/oil/pairs/pairs.json"):
        robustness("oil", tmp_path / "out")
    assert not (tmp_path / "out").exists()
