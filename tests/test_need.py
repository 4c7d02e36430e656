"""Whether a student is needed: the teacher against the student's own budget."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_onnx import affine_bytes

from models.errors import UserError
from models.teachers import load_teacher
from tasks.files import sha256_bytes
from tasks.need import check_need, size_mib, timed
from tasks.params import load_params, parse_params, parse_yaml
from tasks.student_params import Student

REPOSITORY = Path(__file__).parent.parent


def student(teacher: dict[str, Any], *, anyway: bool = False, **gate: float) -> Student:
    raw = parse_yaml((REPOSITORY / "params.yaml").read_text())
    block = raw["students"]["oil"] | {"teacher": teacher, "distil_anyway": anyway}
    raw["students"] = {"oil": block | {"gate": block["gate"] | gate}}
    return parse_params(raw).student("oil")


@pytest.fixture
def model(tmp_path: Path) -> dict[str, Any]:
    """The pin of a teacher that any phone can run."""
    data = affine_bytes(0.5, 0.2)
    (tmp_path / "t.onnx").write_bytes(data)
    return {"kind": "onnx", "name": "t", "version": 1, "path": str(tmp_path / "t.onnx"), "sha256": sha256_bytes(data)}


def test_a_teacher_that_keeps_to_the_budget_is_told_to_ship_itself(model: dict[str, Any]) -> None:
    teacher = load_teacher(model)
    told = r"no student is needed: .* 0\.0 MiB, .* 20; it takes .* ms .* 33: ship .* of oil .*oil.distil_anyway: true$"
    with pytest.raises(UserError, match=told):
        check_need("oil", student(model), lambda: teacher)
    assert check_need("oil", student(model, anyway=True), lambda: teacher).startswith(
        "no student is needed, but one is asked"
    )


def test_one_that_is_too_slow_or_too_big_needs_a_student(model: dict[str, Any]) -> None:
    teacher = load_teacher(model)
    assert "where a student may take 1e-06" in check_need("oil", student(model, max_p90_ms=1e-6), lambda: teacher)
    told = check_need("oil", student(model, max_bundle_mib=1e-6), None)  # type: ignore[arg-type]  # not even timed
    assert told == "a student is needed: the teacher's files have 0.0 MiB, where a bundle may have 1e-06"


def test_one_of_code_cannot_be_shipped() -> None:
    shipped = load_params(REPOSITORY / "params.yaml").student("oil")
    assert size_mib(shipped.teacher.model_dump()) is None
    assert "no file" in check_need("oil", shipped, None)  # type: ignore[arg-type]  # not even timed


def test_one_picture_at_a_time_is_timed_and_a_slow_one_not_often() -> None:
    asked: list[tuple[int, ...]] = []

    class Slow:
        digest = ""

        def __call__(self, inputs: np.ndarray, seeds: Sequence[int]) -> np.ndarray:
            asked.append(inputs.shape)
            return inputs.astype(np.float32)

    assert timed(Slow(), 64) > 0
    assert set(asked) == {(1, 64, 64, 3)} and len(asked) == 11
