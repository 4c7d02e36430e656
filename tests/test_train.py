"""The train stage: killed and resumed it writes the same bytes; what it cannot use it refuses in one line."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml
from processes import wait_until
from scenes import scene
from test_students import SMALL

import models
from models.checkpoints import restore_about
from models.errors import UserError
from models.students import load_student
from tasks.files import read_json, read_jsonl, sha256_file, sha256_json, write_json
from tasks.learning import start_record
from tasks.params import load_params
from tasks.taught import check_pairs
from tasks.train import own_checkpoint, train

STUDENT = Path("data/students/oil/student")
STAGE = [sys.executable, "-m", "tasks.train", "--student", "oil"]


def write_repository(folder: Path, repository: Path, **settings: Any) -> None:
    """params.yaml with a tiny student, and pairs for it."""
    params = yaml.safe_load((repository / "params.yaml").read_text())
    block = params["students"]["oil"]
    params["students"] = {"oil": block}
    params["train"] |= {"threads": 1, "processes": 1, "checkpoint_every": 2, "validate_every": 10}
    block["architecture"] = SMALL
    block["pairs"]["size"] = 64
    block["train"] |= {"steps": 30, "batch_size": 2, "crop": 64, "warmup_steps": 2, **settings}
    block["quantise_aware"]["steps"] = 0
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    shutil.copytree(repository / "models" / "start", folder / "models" / "start")
    pairs = folder / "data/students/oil/pairs"
    pairs.mkdir(parents=True)
    for split, seeds in (("train", range(4)), ("val", (4,)), ("test", (5,))):
        inputs = np.stack([scene(seed, 64, 64) for seed in seeds])
        np.save(pairs / f"{split}.inputs.npy", inputs)
        np.save(pairs / f"{split}.targets.npy", 255 - inputs)
    files = {path.name: sha256_file(path) for path in pairs.glob("*.npy")}
    write_json(pairs / "pairs.json", {"digest": sha256_json(files), "teacher": "t" * 64, "size": 64, "files": files})


@pytest.fixture
def here(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_repository(tmp_path, repository)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(repository))
    return tmp_path


def test_killed_in_the_middle_and_run_again_gives_the_same_bytes(here: Path) -> None:
    subprocess.run(STAGE, check=True, stderr=subprocess.DEVNULL)
    whole = {path.name: path.read_bytes() for path in STUDENT.iterdir()}
    shutil.rmtree(here / "data/students/oil/student")
    shutil.rmtree(here / "data/.work")

    process = subprocess.Popen(STAGE, stderr=subprocess.DEVNULL)
    wait_until(lambda: bool(list(here.glob("data/.work/oil/train-*.safetensors"))))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not STUDENT.exists()

    again = subprocess.run(STAGE, check=True, capture_output=True, text=True)
    assert "going on from step" in again.stdout
    assert {path.name: path.read_bytes() for path in STUDENT.iterdir()} == whole
    record = json.loads(whole["student.json"])
    assert record["weights_sha256"] == sha256_file(STUDENT / "weights.safetensors")
    assert record["init"] == "scratch"
    curve = read_jsonl(STUDENT / "curve.jsonl")
    assert [line["step"] for line in curve if "val_l1" in line] == [10, 20, 30]


def test_ctrl_c_is_one_line_and_130(here: Path) -> None:
    process = subprocess.Popen(STAGE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: bool(list(here.glob("data/.work/oil/train-*.safetensors"))))
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "train: stopped; run again to go on from here" in told
    assert "Traceback" not in told


def test_starts_from_another_student(here: Path, repository: Path) -> None:
    params = load_params()
    train(params, "oil", params.student("oil"))
    first = read_json(STUDENT / "student.json")
    shutil.copytree(STUDENT, here / "before")
    raw = yaml.safe_load((here / "params.yaml").read_text())
    raw["students"]["oil"] |= {"init": "before"}
    (here / "params.yaml").write_text(yaml.safe_dump(raw))
    params = load_params()
    train(params, "oil", params.student("oil"))
    second = read_json(STUDENT / "student.json")
    assert second["init"] == first["weights_sha256"]
    assert second["val"]["val_l1"] < first["val"]["val_l1"]


def test_start_weights_are_checked(here: Path) -> None:
    block = load_params().student("oil")
    other = block.architecture.model_dump() | {"skip": "concat"}
    folder = here / "other"
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(b"x")
    write_json(folder / "student.json", {"architecture": other, "weights_sha256": "0" * 64})
    with pytest.raises(UserError, match="another architecture"):
        start_record(folder, block)
    write_json(folder / "student.json", {"architecture": block.architecture.model_dump(), "weights_sha256": "0" * 64})
    with pytest.raises(UserError, match="init: .* has sha256"):
        start_record(folder, block)
    with pytest.raises(UserError, match=r"missing .*student\.json"):
        start_record(here / "nowhere", block)


def test_pairs_with_other_bytes_are_refused(here: Path) -> None:
    block = load_params().student("oil")
    folder = here / "data/students/oil/pairs"
    check_pairs(folder, block)
    with (folder / "train.targets.npy").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    with pytest.raises(UserError, match="pairs .*sha256"):
        check_pairs(folder, block)


def test_a_checkpoint_of_other_code_is_not_taken(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = load_params()
    train(params, "oil", params.student("oil"))
    [before] = (here / "data/.work/oil").glob("train-*.safetensors")
    changed = shutil.copytree(Path(models.__path__[0]), here / "changed")
    with (changed / "losses.py").open("a") as file:
        file.write("# another loss\n")
    monkeypatch.setattr(models, "__path__", [str(changed)])
    train(params, "oil", params.student("oil"))
    [after] = (here / "data/.work/oil").glob("train-*.safetensors")
    assert after != before


def test_only_the_checkpoint_of_this_work_is_kept(tmp_path: Path) -> None:
    stale = own_checkpoint(tmp_path, "train", {"pairs": "a"})
    stale.touch()
    mine = own_checkpoint(tmp_path, "train", {"pairs": "b"})
    assert mine != stale
    assert not stale.exists()


def cut(here: Path, **settings: Any) -> None:
    """Have the trained student compressed."""
    raw = yaml.safe_load((here / "params.yaml").read_text())
    compress = {"prune": 0.5, "low_rank": 0.9, "recovery_steps": 10, "recovery_rate": 0.3, **settings}
    raw["students"]["oil"] |= {"compress": compress}
    (here / "params.yaml").write_text(yaml.safe_dump(raw))


def test_a_student_is_cut_and_trained_again(here: Path) -> None:
    params = load_params()
    train(params, "oil", params.student("oil"))
    whole = read_json(STUDENT / "student.json")
    trained = next((here / "data/.work/oil").glob("train-*.safetensors"))
    before = trained.stat().st_mtime_ns
    cut(here)
    params = load_params()
    train(params, "oil", params.student("oil"))
    assert trained.stat().st_mtime_ns == before  # the training before the cut is not made twice
    record = read_json(STUDENT / "student.json")
    assert record["parameters"] < 0.6 * whole["parameters"]
    assert record["compress"]["prune"] == 0.5
    steps = [line["step"] for line in read_jsonl(STUDENT / "curve.jsonl") if "val_l1" in line]
    assert steps == [10, 20, 30, 40]
    first = {path.name: path.read_bytes() for path in STUDENT.iterdir()}

    # Again from the state in which a kill in the recovery leaves it, and from nothing.
    for state in ("recover-*.safetensors", "*.safetensors"):
        for path in (here / "data/.work/oil").glob(state):
            path.unlink()
        train(params, "oil", params.student("oil"))
        assert {path.name: path.read_bytes() for path in STUDENT.iterdir()} == first
    load_student(STUDENT)

    shutil.copytree(STUDENT, here / "small")
    with pytest.raises(UserError, match="compressed already"):
        start_record(here / "small", params.student("oil"))


def test_a_cut_without_recovery_is_refused(here: Path) -> None:
    cut(here, recovery_steps=0)
    with pytest.raises(UserError, match=r"students\.oil\.compress.*recovery_steps"):
        load_params()


def in_processes(here: Path, count: int, **settings: Any) -> None:
    """Have the batch shared by so many processes."""
    raw = yaml.safe_load((here / "params.yaml").read_text())
    raw["train"] |= {"processes": count}
    raw["students"]["oil"]["train"] |= settings
    (here / "params.yaml").write_text(yaml.safe_dump(raw))


def test_two_processes_learn_as_one_does_and_go_on_from_one_another(here: Path) -> None:
    """Stopped by SIGTERM in two processes, gone on in one: near what one alone ends with (BatchNorm sees halves)."""
    subprocess.run(STAGE, check=True, stderr=subprocess.DEVNULL)
    alone = read_jsonl(STUDENT / "curve.jsonl")
    shutil.rmtree(STUDENT)
    shutil.rmtree(here / "data/.work")
    in_processes(here, 2)

    process = subprocess.Popen(STAGE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: bool(list(here.glob("data/.work/oil/train-*.safetensors"))))
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "Traceback" not in told
    assert "Traceback" not in (here / "data/.work/oil/train.helpers.log").read_text()  # told, it stopped too
    assert not processes_of("tasks.train_helper")
    [checkpoint] = here.glob("data/.work/oil/train-*.safetensors")
    begun = int(restore_about(checkpoint)["step"])
    assert 2 <= begun < 30

    in_processes(here, 1)
    again = subprocess.run(STAGE, check=True, capture_output=True, text=True)
    assert f"going on from step {begun}" in again.stdout
    curve = read_jsonl(STUDENT / "curve.jsonl")
    assert [line["step"] for line in curve] == [line["step"] for line in alone]
    assert curve[-1]["val_l1"] == pytest.approx(alone[-1]["val_l1"], rel=0.25)


def test_a_batch_that_cannot_be_shared_is_refused(here: Path) -> None:
    in_processes(here, 3)
    with pytest.raises(UserError, match=r"students\.oil\.train\.batch_size 2 .* train\.processes 3"):
        load_params()


def test_a_helper_that_is_killed_ends_the_training_in_one_line(here: Path) -> None:
    in_processes(here, 2, steps=100_000)
    process = subprocess.Popen(STAGE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: bool(list(here.glob("data/.work/oil/train-*.safetensors"))))
    [helper] = processes_of("tasks.train_helper")
    helper.kill()
    _, told = process.communicate(timeout=60)
    assert process.returncode == 75, told
    assert "a helper process of the training was lost" in told.splitlines()[-1]
    assert "Traceback" not in told


def test_a_killed_training_leaves_no_helper(here: Path) -> None:
    in_processes(here, 2, steps=100_000)
    process = subprocess.Popen(STAGE, stderr=subprocess.DEVNULL)
    wait_until(lambda: bool(list(here.glob("data/.work/oil/train-*.safetensors"))))
    [helper] = processes_of("tasks.train_helper")
    process.kill()
    process.wait()
    psutil.wait_procs([helper], timeout=20)
    assert not helper.is_running() or helper.status() == psutil.STATUS_ZOMBIE


def processes_of(module: str) -> list[psutil.Process]:
    """The running processes below this one that have that module on their command line."""
    here = psutil.Process()
    below = [child for child in here.children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in below if module in child.cmdline()]
