"""The repository with a student small enough for a test, and one whole run of it that all test files share."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from made_once import made_once

from tasks.files import sha256_file

PARTS = (
    "flows",
    "tasks",
    "models",
    "data/sources",
    "data/decisions",
    "data/panel.json",
    ".dvc/config",
    ".dvcignore",
    "dvc.yaml",
    "mlflow/tags.yaml",
)
# The smallest encoder that timm has: a conversion takes 40 % less of the processor than the shipped encoder's.
ARCHITECTURE = {
    "encoder": "test_resnet",
    "decoder_channels": [8, 8, 8, 8],
    "skip": "add",
    "upsample": "bilinear",
    "head": "pixel-shuffle",
}


def tiny_params(repository: Path) -> dict[str, Any]:
    params: dict[str, Any] = yaml.safe_load((repository / "params.yaml").read_text())
    params["generate"]["workers"] = 1
    params["train"] |= {"threads": 1, "checkpoint_every": 4, "validate_every": 4}
    # test_resnet pools, which XNNPACK does not take.
    params["exportability"] |= {"runs": 2, "max_fallbacks": 4, "max_partitions": 5}
    params["quantise"] |= {"calibration_samples": 4, "parity_samples": 2}
    params["benchmark"] |= {"warmup": 1, "runs": 2, "threads": [1], "frames": 2}
    params["detector"] |= {"runs": 3}
    params["video"] |= {"photos": 1, "frames": 2, "clip_frames": 2}
    params["evaluate"]["grid"] = 1
    for block in params["students"].values():
        block["architecture"] = ARCHITECTURE
        block["pairs"] |= {"size": 64, "train_crops": 2, "held_out_crops": 2}
        block["train"] |= {"steps": 8, "batch_size": 2, "crop": 64}
        block["quantise_aware"]["steps"] = 0  # it would trace the student and train it longer
    return params


def copy_repository(folder: Path) -> Path:
    """What the pipeline needs of this repository, with a student small enough for a test."""
    repository = Path(__file__).parent.parent
    for part in PARTS:
        source, target = repository / part, folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
        else:
            shutil.copy(source, target)
    (folder / "params.yaml").write_text(yaml.safe_dump(tiny_params(repository)))
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    return folder


def command(folder: Path, *words: str) -> dict[str, Any]:
    """How to start `understudy` in that folder; byte code is kept, as tens of processes import the same files."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": ""}
    return {"args": [sys.executable, "-m", "flows.cli", *words], "cwd": folder, "env": environment}


def understudy(folder: Path, *words: str, timeout: float = 280) -> str:
    """What a run that ends well prints."""
    done = subprocess.run(**command(folder, *words), capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "ERROR" not in done.stderr
    return done.stdout


def whole(factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A copy of the repository in which `understudy run` has run, and what it printed."""
    return made_once(factory, "whole", lambda folder: understudy(copy_repository(folder), "run"))


def shipped(folder: Path) -> dict[str, str]:
    """Digests of the weights and of the bundle's model files."""
    student = folder / "data/students/oil"
    files = [student / "student/weights.safetensors", *sorted((student / "bundle").glob("student.*"))]
    return {path.name: sha256_file(path) for path in files}
