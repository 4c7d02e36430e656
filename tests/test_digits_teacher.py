"""The digits' teacher that ships is the file its record says, and as often right as it says."""

from pathlib import Path

import numpy as np
import pytest

from models.classification.teachers import load_teacher
from tasks.classification.network_params import NetworkTeacher
from tasks.classification.train_digits_teacher import ARCHITECTURE, RECIPE, WEIGHTS, digits
from tasks.files import read_json


def test_it_is_as_good_as_its_record_says(repository: Path) -> None:
    folder = repository / WEIGHTS
    record = read_json(folder / "teacher.json")
    assert (record["architecture"], record["recipe"]) == (ARCHITECTURE, RECIPE)
    assert (folder / "weights.safetensors").stat().st_size < 1_000_000
    block = {"kind": "network", "name": "digits", "version": 1, "path": str(folder / "weights.safetensors")}
    settings = NetworkTeacher.model_validate(block | {key: record[key] for key in ("architecture", "sha256")})
    teacher = load_teacher(settings.model_dump())
    arrays, about = digits()
    assert about["digest"] == record["dataset"] and about["classes"] == record["classes"]
    assert teacher.classes == 10
    for split in ("val", "test"):
        right = teacher(arrays[f"{split}.inputs.npy"]).argmax(axis=1) == arrays[f"{split}.labels.npy"]
        assert float(np.mean(right)) == pytest.approx(record["accuracy"][split], abs=0.003)
    assert record["accuracy"]["test"] > 0.98
