"""Every kind of teacher through the whole pipeline, from photographs to a bundle, by the command a user runs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_diffusers
import tiny_stylegan2
import yaml
from picture_api import GEMINI, picture_api
from tiny_onnx import affine_bytes, pinned
from whole_pipeline import copy_repository, understudy

from models.teachers.digests import teacher_digest
from models.teachers.folders import file_sha256, folder_sha256
from tasks.files import read_json, read_jsonl
from tasks.manifest import verify_bundle
from tasks.params import load_params

pytestmark = pytest.mark.slow  # half a minute of conversions for each teacher


def folder_pin(kind: str, folder: Path) -> dict[str, Any]:
    return {"kind": kind, "name": folder.name, "version": 1, "model": str(folder), "sha256": folder_sha256(folder)}


def diffusers_teacher(models: Path) -> dict[str, Any]:
    call = {"prompt": "oil", "strength": 0.6, "num_inference_steps": 3, "guidance_scale": 2.0}
    return folder_pin("diffusers", tiny_diffusers.save(models / "img2img", "img2img")) | {"call": call}


def stylegan2_teacher(models: Path) -> dict[str, Any]:
    clip = tiny_stylegan2.save_clip(models / "clip")
    edit = {"by": "text-direction", "text": "a b", "neutral": "c d", "beta": 0.1, "samples": 2}
    edit |= {"clip": {"model": str(clip), "sha256": folder_sha256(clip)}}
    inversion = {"steps": 10, "learning_rate": 0.05, "tuning_steps": 5, "tuning_rate": 0.001}
    pin = folder_pin("stylegan2", tiny_stylegan2.save_generator(models / "faces"))
    return pin | {"edit": edit, "strength": [2.0, 4.0], "inversion": inversion}


def genai_teacher() -> dict[str, Any]:
    caps = {"calls_per_minute": 1e6, "max_calls": 1000, "price_per_call": 0.04, "max_cost": 100.0}
    return {"kind": "genai", "name": "painted", "version": 1, "model": GEMINI, "call": {"prompt": "in oil"}, **caps}


def style_network(path: Path) -> dict[str, Any]:
    return {"kind": "onnx", "name": path.stem, "version": 1, "path": str(path), "sha256": file_sha256(path)}


@pytest.mark.timeout(2400)
def test_to_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path) -> None:
    folder, models = copy_repository(tmp_path / "repository"), tmp_path / "models"
    models.mkdir()
    raw = yaml.safe_load((folder / "params.yaml").read_text())
    block = raw["students"]["oil"] | {"distil_anyway": True}  # these teachers are tiny
    restyler = yaml.safe_load((folder / "models/teachers/weights/restyler/pin.yaml").read_text())
    teachers: dict[str, dict[str, Any]] = {
        "affine": pinned(models / "affine.onnx", affine_bytes(0.5, 0.25)),
        "img2img": diffusers_teacher(models),
        "restyled": restyler,
        "faces": stylegan2_teacher(models),
        "painted": genai_teacher(),
    }
    raw["students"] = {name: block | {"teacher": teacher} for name, teacher in teachers.items()}
    raw["students"]["faces"]["pairs"] = block["pairs"] | {"samples": 6}
    for path in sorted((repository.parent / "shared/data/teachers").glob("*.onnx")):
        sized = {"pairs": block["pairs"] | {"size": 256}, "train": block["train"]}
        raw["students"][path.stem] = block | sized | {"teacher": style_network(path)}
    # Networks of random weights may paint grey, or leave a picture as it is.
    raw["curate"] |= {"min_change": 0.0, "min_contrast": 0.0}
    (folder / "params.yaml").write_text(yaml.safe_dump(raw))
    with picture_api() as api:
        monkeypatch.setenv("GOOGLE_API_KEY", "a-secret-key")
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", api.address)
        told = understudy(folder, "run", "--all", timeout=2200)
    assert "a-secret-key" not in told and not [
        path for path in (folder / "data").rglob("*") if path.is_file() and b"a-secret-key" in path.read_bytes()
    ]
    pins = load_params(folder / "params.yaml").students
    for name, student in pins.items():
        made = folder / "data/students" / name
        manifest = verify_bundle(made / "bundle")
        assert len(manifest.files) == 4
        assert manifest.digests.teacher.digest == teacher_digest(student.teacher.model_dump())
        assert manifest.digests.teacher.digest in (made / "lineage.json").read_text()
    asked = len(read_jsonl(folder / "data/inputs/inputs.jsonl")) * 2
    assert len(api.paid) == asked
    faces = [pair for path in (folder / "data/students/faces/raw").glob("shard-*.jsonl") for pair in read_jsonl(path)]
    assert len(faces) == asked + 6 and all(2 <= pair["strength"] <= 4 for pair in faces)
    assert read_json(folder / "data/students/affine/pairs/yield.json")["train"]["kept"] > 0
    targets = np.load(folder / "data/students/affine/pairs/train.targets.npy", mmap_mode="r")
    assert int(targets.min()) >= 63  # half the contrast, a quarter brighter
