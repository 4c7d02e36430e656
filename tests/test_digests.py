"""What identifies a teacher, told without loading it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_onnx import affine_bytes

from models.teachers import load_teacher
from models.teachers.digests import teacher_digest
from tasks.files import sha256_bytes

OIL = {"kind": "painter", "name": "oil-painter", "version": 1, "style": "oil"}
# Pairs made and students taught are known by it: another value here would retrain everybody.
OIL_DIGEST = "8db05c31e61b1029e80efb152a1d06e7d48aad91a966f424f1f7608b8807186d"


def onnx(path: Path, **changed: Any) -> dict[str, Any]:
    data = affine_bytes(0.5, 0.2)
    path.write_bytes(data)
    return {"kind": "onnx", "name": "t", "version": 1, "path": str(path), "sha256": sha256_bytes(data)} | changed


def test_the_teachers_say_the_same(tmp_path: Path) -> None:
    for settings in (OIL, OIL | {"style": "sketch"}, onnx(tmp_path / "t.onnx")):
        assert load_teacher(settings).digest == teacher_digest(settings)
    assert teacher_digest(dict(reversed(OIL.items()))) == OIL_DIGEST


@pytest.mark.parametrize("changed", [{"version": 2}, {"style": "sketch"}, {"name": "other"}])
def test_what_decides_a_painting_decides_its_digest(changed: dict[str, Any]) -> None:
    assert teacher_digest(OIL | changed) != OIL_DIGEST


def test_the_bytes_of_a_model_decide_and_not_where_it_lies(tmp_path: Path) -> None:
    here = onnx(tmp_path / "a.onnx")
    assert teacher_digest(here) == teacher_digest(onnx(tmp_path / "b.onnx", name="u", version=2))
    assert teacher_digest(here) != teacher_digest(here | {"sha256": "0" * 64})


def test_nothing_heavy_is_imported() -> None:
    heavy = "{'numpy', 'skimage', 'onnx', 'torch', 'huggingface_hub'}"
    code = f"import sys, models.teachers.digests, models.teachers.pinned; print({heavy} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
