"""tasks/teacher_drift.py: a new teacher that halves the contrast, against old ones whose distance is known."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_evaluate import SIZE, TEST, make_pairs
from tiny_onnx import NCHW, affine_bytes, graph_bytes, pinned

from models.errors import UserError
from models.teachers import load_teacher
from tasks.charts import GAP
from tasks.files import write_json
from tasks.teacher_drift import FIGURES, TeacherDrift, spread, teacher_drift


@pytest.fixture
def student(tmp_path: Path) -> Path:
    """A student's folder curated with the teacher 0.5 x + 0.25."""
    folder = tmp_path / "data/students/oil"
    make_pairs(folder / "pairs", tmp_path / "data/inputs/inputs.jsonl")
    return folder


def halving(path: Path, scale: float = 0.5, shift: float = 0.25) -> dict[str, Any]:
    return pinned(path, affine_bytes(scale, shift))


def test_the_same_teacher_has_not_drifted(student: Path, tmp_path: Path) -> None:
    found = teacher_drift(student, halving(tmp_path / "old.onnx"), 100)
    assert (found.n, found.old, found.new) == (TEST, "tiny version 1", "half version 1")
    assert found.rms_levels == 0 and found.explained_effect == 1
    assert found.chroma_ratio == 1 and found.sharpness_ratio == 1
    assert found.told.startswith("the new teacher paints the old one's pictures")


def test_figures_of_a_teacher_that_is_a_known_way_off(student: Path, tmp_path: Path) -> None:
    # 20 levels brighter everywhere: nothing else changes.
    found = teacher_drift(student, halving(tmp_path / "old.onnx", shift=0.25 + 20 / 255), 100)
    assert found.rms_levels == pytest.approx(20, abs=0.1)
    inputs = np.load(student / "pairs/test.inputs.npy").astype(float)
    targets = np.load(student / "pairs/test.targets.npy")
    change = np.square(inputs - targets).mean()
    assert found.explained_effect == pytest.approx(1 - 400 / change, abs=0.01)
    assert found.sharpness_ratio == pytest.approx(1, abs=0.01)


def test_an_old_teacher_that_left_pictures_alone_explains_nothing(student: Path, tmp_path: Path) -> None:
    found = teacher_drift(student, halving(tmp_path / "old.onnx", 1.0, 0.0), 100)
    assert found.explained_effect == pytest.approx(0, abs=1e-3)
    assert found.chroma_ratio == pytest.approx(0.5, abs=0.02) and found.sharpness_ratio == pytest.approx(0.25, abs=0.02)
    assert "to be learnt from scratch" in found.told and "colour x0.50, fine detail x0.25" in found.told


def test_rows_are_spread_and_their_number_kept(student: Path, tmp_path: Path) -> None:
    assert spread(100, 4).tolist() == [0, 33, 66, 99]
    assert spread(3, 10).tolist() == [0, 1, 2]
    assert teacher_drift(student, halving(tmp_path / "old.onnx"), 3).n == 3


def test_the_sheet_shows_input_old_and_new(student: Path, tmp_path: Path) -> None:
    teacher_drift(student, halving(tmp_path / "old.onnx", 0.0, 0.5), 100, tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(io.BytesIO((tmp_path / "sheet.png").read_bytes())))
    left, top, step = 84, 36, SIZE + GAP
    assert sheet.shape == (top + 4 * step, left + 3 * step, 3)
    old = sheet[top : top + SIZE, left + step : left + step + SIZE]
    assert (old == 128).all()
    new = sheet[top : top + SIZE, left + 2 * step : left + 2 * step + SIZE]
    assert np.array_equal(new, np.load(student / "pairs/test.targets.npy")[0])


def gone(path: Path) -> dict[str, Any]:
    block = halving(path)
    path.unlink()
    return block


def swapped(path: Path) -> dict[str, Any]:
    block = halving(path)
    path.write_bytes(affine_bytes(0.1, 0.1))
    return block


def nan(path: Path) -> dict[str, Any]:
    return pinned(path, graph_bytes([("Sub", ("x", "x"), "z"), ("Div", ("z", "z"), "y")], shape=NCHW))


def older(path: Path) -> dict[str, Any]:
    return {"kind": "diffusion", "name": "tiny", "version": 1}


@pytest.mark.parametrize(
    ("make", "why"),
    [(gone, "cannot read"), (swapped, "expected"), (nan, "gives no picture"), (older, "does not fit this version")],
)
def test_an_old_teacher_that_cannot_be_asked_is_told(student: Path, tmp_path: Path, make: Any, why: str) -> None:
    found = teacher_drift(student, make(tmp_path / "old.onnx"), 100, tmp_path / "sheet.png")
    assert all(getattr(found, name) is None for name in FIGURES)
    assert found.told.startswith("not compared") and why in found.told
    assert not (tmp_path / "sheet.png").exists()


def test_code_that_has_changed_since_is_not_the_old_teacher(student: Path, tmp_path: Path) -> None:
    block = halving(tmp_path / "old.onnx")
    digest = load_teacher(block).digest
    assert teacher_drift(student, block, 2, old_digest=digest).rms_levels == 0
    assert "not the one that taught" in teacher_drift(student, block, 2, old_digest="f" * 64).told


def test_pairs_that_are_not_whole_are_refused(student: Path, tmp_path: Path) -> None:
    (student / "pairs/kept.jsonl").write_text("")
    with pytest.raises(UserError, match="does not list test row 0"):
        teacher_drift(student, halving(tmp_path / "old.onnx"), 100)


def test_command(student: Path, tmp_path: Path, repository: Path) -> None:
    write_json(tmp_path / "old.json", halving(tmp_path / "old.onnx", 0.6, 0.2))
    (tmp_path / "params.yaml").write_bytes((repository / "params.yaml").read_bytes())
    command = [sys.executable, "-m", "tasks.teacher_drift", "--student", "oil", "--old", "old.json"]
    command += ["--out", "found/teacher.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = TeacherDrift.from_json(json.loads((tmp_path / "found/teacher.json").read_text()))
    assert f"oil: {found.told}" in done.stdout
    assert (tmp_path / "found/teacher.png").is_file()
