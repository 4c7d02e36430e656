"""A teacher's upgrade from the pin to the champion: accepted, refused, rolled back, approved by a person."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from git_toy import git, state_of
from processes import wait_until
from retrain_toy import bump, command, configured_server, first_champion, kinds, log, pin, state, understudy
from servers import mlflow_server

from tasks.files import sha256_file
from tasks.manifest import verify_bundle
from tasks.mlflow_client import connected
from tasks.registry import find_run, version

pytestmark = pytest.mark.server


@pytest.fixture(scope="module", autouse=True)
def _prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with configured_server(tmp_path_factory.mktemp("prefect")):
        yield


@pytest.fixture(scope="module")
def _champion(tmp_path_factory: pytest.TempPathFactory, repository: Path, _prefect: None) -> Path:
    """A git toy whose first student, taught by version 1, is the champion."""
    toy, told = first_champion(tmp_path_factory.mktemp("champion"), repository)
    assert "oil: promoted, version 1: it has no champion yet; gate: every rule is met" in told
    return toy


@pytest.fixture
def toy(_champion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a copy of it."""
    shutil.copytree(_champion, tmp_path / "toy", symlinks=True)
    monkeypatch.chdir(tmp_path / "toy")
    return tmp_path / "toy"


def test_an_upgrade_is_promoted_and_can_be_rolled_back(toy: Path) -> None:
    assert "up to date" in understudy("retrain")  # nothing has changed
    base = bump(toy, 2)
    before = state_of(toy)
    told = understudy("retrain")
    assert "git pins oil-painter version 2" in told
    assert "levels" in told  # how far the new teacher is from the old one, before training
    after = state_of(toy)
    (branch,) = set(after["branch --list"].split()) - set(before["branch --list"].split())
    assert branch.startswith("retrain/oil/oil-painter-v2-")
    for told_of in (before, after):  # apart from the branch and what the registry and the cache hold: as it was
        del told_of["branch --list"]
        told_of["files"] = {path: at for path, at in told_of["files"].items() if "mlflow/" not in path}
        told_of["files"] = {path: at for path, at in told_of["files"].items() if ".dvc/cache" not in path}
    assert after == before

    found = state()
    assert (found.champion, found.challenger, found.history) == (2, 0, (1,))
    with connected() as client:
        made = version(client, "oil", 2)
        assert client.get_registered_model("teacher.oil-painter").aliases == {}  # nobody moved it: git led
        assert made.run_id == find_run(client, "oil", made.tags["bundle.sha256"])
    tags = made.tags
    assert (tags["teacher.version"], tags["gate"], tags["previous_champion"]) == ("2", "passed", "1")
    assert tags["gate.reason"] == "every rule is met"
    assert git("rev-parse", branch) == tags["git.commit"] and git("rev-parse", f"{branch}^") == base
    own = "models/start/champions/oil/student.json"
    assert set(git("diff", "--name-only", base, branch).splitlines()) == {"params.yaml", "dvc.lock", own}
    assert "it begins with the champion, version 1" in told
    with connected() as client:
        assert tags["init"] == version(client, "oil", 1).tags["weights.sha256"]
    assert json.loads(git("show", f"{branch}:{own}"))["weights_sha256"] == tags["init"]
    reasons = [entry.reason for entry in log() if entry.kind == "registered"]
    assert [reason.split("; ")[1] for reason in reasons] == ["it began from scratch", "it began with version 1"]
    lock = git("show", f"{branch}:dvc.lock")
    assert "generate@oil" in yaml.safe_load(lock)["stages"]

    assert understudy("fetch", "oil", "--to", "shipped").startswith("oil: version 2")
    assert sha256_file(Path("shipped/manifest.json")) == tags["bundle.sha256"]
    assert verify_bundle(Path("shipped")).digests.teacher.version == 2
    assert "DIFFERS" not in understudy("lineage", "oil")

    assert "champion again" in understudy("rollback", "oil", "--reason", "it flickers")
    assert (state().champion, state().reason) == (1, "it flickers")
    told = understudy("retrain")  # and the teacher that was rolled back from is not taught by again
    assert "was rolled back from" in told and "retraining" not in told
    assert "version 1" in understudy("status").partition("champion")[2].splitlines()[0]
    assert kinds() == [*["started", "registered", "promoted"] * 2, "rolled-back"]
    assert "nothing to roll back to" in understudy("rollback", "oil", code=1)


@pytest.mark.slow  # two retrains
def test_after_a_merge_the_next_begins_with_the_next_champion(toy: Path) -> None:
    bump(toy, 2)
    understudy("retrain")
    git("merge", "--quiet", *git("branch", "--list", "--format=%(refname:short)", "retrain/oil/*-v2-*").split())
    assert "up to date" in understudy("retrain")
    # The merged branch is reproduced by whoever reaches the registry.
    for folder in ("data/.work/starts", ".dvc/cache"):
        shutil.rmtree(folder)
    understudy("run", "oil", "--until", "train")
    assert [path.stem for path in Path("data/.work/starts").iterdir()] == [begun(2)]
    assert json.loads(Path("data/students/oil/student/student.json").read_text())["init"] == begun(2)
    bump(toy, 3)
    assert "it begins with the champion, version 2" in understudy("retrain")
    with connected() as client:
        assert begun(3) == version(client, "oil", 2).tags["weights.sha256"]
    assert state().champion == 3


def begun(number: int) -> str:
    """The sha256 of the weights a version began with."""
    with connected() as client:
        return version(client, "oil", number).tags["init"]


@pytest.mark.parametrize(
    ("teacher", "wrong", "told"),
    [
        (10, "", "explained effect"),  # noise: nobody can learn it
        pytest.param(2, "nan evaluate", "explained effect was not measured", marks=pytest.mark.slow),  # the same path
    ],
)
def test_a_worse_student_is_refused(toy: Path, teacher: int, wrong: str, told: str) -> None:
    Path("pin.yaml").write_text(yaml.safe_dump(pin(teacher)))
    understudy("teacher", "add", "pin.yaml")
    understudy("teacher", "promote", "oil-painter", "2")
    said = understudy("retrain", TOY_MODE=wrong)
    assert "production of oil-painter moved" in said
    found = state()
    assert (found.champion, found.challenger) == (1, 2)
    assert told in found.reason
    assert kinds()[-1] == "refused"
    assert "retrain/oil/oil-painter-v2" not in git("branch", "--list")
    assert not list(Path("data/.work/workspaces").glob("oil-*/"))
    again = understudy("retrain", TOY_MODE=wrong)
    assert "was refused" in again and kinds().count("refused") == 1
    assert "did not pass the gate" in understudy("promote", "oil", code=1)
    assert told in understudy("status", "oil")


@pytest.mark.slow  # waits for a server's restart
def test_a_person_has_the_last_word_and_mlflow_may_be_down_for_a_while(
    toy: Path, tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["students"]["oil"]["approval"] = True
    Path("params.yaml").write_text(yaml.safe_dump(params))
    bump(toy, 2)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port}")
    process = subprocess.Popen(**command("retrain"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout
    wait_until(lambda: "waiting to try again: MLflow" in process.stdout.readline(), timeout_s=60)
    with mlflow_server(tmp_path / "server", port=free_port):
        told, _ = process.communicate(timeout=200)
        assert process.returncode == 0, told[-3000:]
        assert "oil: awaiting, version 1" in told
        assert (state().champion, state().challenger) == (0, 1)
        assert "waits" in understudy("retrain")
        assert "version 1 is the champion" in understudy("promote", "oil", "--reason", "looks right")
        assert (state().champion, state().challenger) == (1, 0)
        assert log()[-1].reason == "looks right"
