"""The whole pipeline at its smallest, by the command a user runs: real stages, real converters, real MLflow."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from processes import gone, wait_until
from test_students import SMALL

from tasks.files import read_json, sha256_file
from tasks.manifest import verify_bundle
from tasks.pipeline import SHARED, STAGES

PARTS = ("flows", "tasks", "models", "data/sources", ".dvc/config", ".dvcignore", "dvc.yaml", "mlflow/tags.yaml")


def tiny_params(repository: Path) -> dict[str, Any]:
    params: dict[str, Any] = yaml.safe_load((repository / "params.yaml").read_text())
    params["generate"]["workers"] = 1
    params["train"] |= {"threads": 1, "checkpoint_every": 4, "validate_every": 4}
    params["quantise"] = {"calibration_samples": 4, "parity_samples": 2}
    params["benchmark"] = {"warmup": 1, "runs": 2, "threads": [1]}
    params["evaluate"]["grid"] = 1
    for block in params["students"].values():
        block["architecture"] = SMALL
        block["pairs"] |= {"size": 64, "train_crops": 2, "held_out_crops": 2}
        block["train"] |= {"steps": 8, "batch_size": 2, "crop": 64}
    return params


def copy_repository(folder: Path) -> Path:
    """What the pipeline needs of this repository, with a student small enough for a test."""
    repository = Path(__file__).parent.parent
    for part in PARTS:
        source, target = repository / part, folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    (folder / "params.yaml").write_text(yaml.safe_dump(tiny_params(repository)))
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A copy of the repository in which `understudy run --all` has run, and what it printed."""
    folder = copy_repository(tmp_path_factory.mktemp("end to end") / "repository")
    return folder, understudy(folder, "run", "--all")


def command(folder: Path, *words: str) -> dict[str, Any]:
    """How to start `understudy` in that folder."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return {"args": [sys.executable, "-m", "flows.cli", *words], "cwd": folder, "env": environment}


def understudy(folder: Path, *words: str) -> str:
    done = subprocess.run(**command(folder, *words), capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "ERROR" not in done.stderr
    return done.stdout


def test_a_bundle_an_app_can_ship(made: tuple[Path, str]) -> None:
    bundle = made[0] / "data/students/oil/bundle"
    manifest = verify_bundle(bundle)
    assert {(entry.runtime, entry.precision) for entry in manifest.files} == {
        (runtime, precision) for runtime in ("litert", "onnx") for precision in ("fp32", "int8")
    }
    for entry in manifest.files:
        assert sha256_file(bundle / entry.file) == entry.sha256
        assert entry.latency
        assert entry.quality.psnr_db
    assert not manifest.gate.passed  # eight steps make no painter, and the gate says so


def test_the_report_and_the_lineage_speak_of_the_same_weights(made: tuple[Path, str]) -> None:
    student = made[0] / "data/students/oil"
    weights = sha256_file(student / "student/weights.safetensors")
    assert weights in (student / "report/index.html").read_text()
    assert weights in (student / "lineage.json").read_text()
    assert read_json(student / "report/quality.json")["test_samples"] > 0


def test_it_says_where_things_are(made: tuple[Path, str]) -> None:
    for name in ("oil", "sketch"):
        for part in ("report/index.html", "bundle"):
            assert f"data/students/{name}/{part}" in made[1]
    assert made[1].count("  quality explained effect") == 2
    assert "make ui" in made[1]


def test_a_second_run_does_nothing_and_says_the_same(made: tuple[Path, str]) -> None:
    folder = made[0]
    before = {path: path.stat().st_mtime_ns for path in (folder / "data/students").rglob("*")}
    told = understudy(folder, "run", "--all")
    assert told.count("nothing to do") == 2
    assert told.splitlines()[-8:] == made[1].splitlines()[-8:]
    assert {path: path.stat().st_mtime_ns for path in (folder / "data/students").rglob("*")} == before


def kill_in(stage: str, folder: Path) -> None:
    """Start a run and SIGKILL it as soon as `stage` has begun; returns when all its processes are gone."""
    work = folder / "data/.work" if stage in SHARED else folder / "data/.work/oil"
    lock = work / f"{stage}.lock"
    lock.unlink(missing_ok=True)
    process = subprocess.Popen(**command(folder, "run"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: lock.exists() or process.poll() is not None, timeout_s=200)
    assert process.poll() is None, f"the run ended before {stage} began"
    family = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    process.kill()
    process.wait()
    wait_until(lambda: all(gone(pid) for pid in family))


def shipped(folder: Path) -> dict[str, str]:
    """Digests of the weights and of the bundle's model files."""
    student = folder / "data/students/oil"
    files = [student / "student/weights.safetensors", *sorted((student / "bundle").glob("student.*"))]
    return {path.name: sha256_file(path) for path in files}


@pytest.mark.timeout(600)
def test_killed_in_every_stage_it_ends_with_the_same_bytes(made: tuple[Path, str], tmp_path: Path) -> None:
    folder = copy_repository(tmp_path / "repository")
    for stage in STAGES:
        kill_in(stage, folder)
    understudy(folder, "run")
    assert len(shipped(folder)) == 5
    assert shipped(folder) == shipped(made[0])
