"""A retrain killed at any moment, doubled, or given rotten data: it ends with the right champion, once."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from git_toy import git
from processes import gone, wait_until
from retrain_toy import bump, command, configured_server, first_champion, kinds, log, state, understudy

from tasks.audit import LogRecord
from tasks.mlflow_client import connected
from tasks.registry import STUDENT, version

pytestmark = [pytest.mark.server, pytest.mark.slow]  # several whole retrains
WORK = Path("data/.work")


@pytest.fixture(scope="module", autouse=True)
def _prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with configured_server(tmp_path_factory.mktemp("prefect")):
        yield


@pytest.fixture(scope="module")
def _champion(tmp_path_factory: pytest.TempPathFactory, repository: Path, _prefect: None) -> Path:
    return first_champion(tmp_path_factory.mktemp("champion"), repository)[0]


@pytest.fixture
def toy(_champion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a git toy whose champion was taught by version 1, and whose pin says 2."""
    shutil.copytree(_champion, tmp_path / "toy", symlinks=True)
    monkeypatch.chdir(tmp_path / "toy")
    bump(tmp_path / "toy", 2)
    return tmp_path / "toy"


def kill_when(sign: Callable[[], bool]) -> None:
    """Start a retrain and SIGKILL it as soon as there is that sign; returns when nothing of it is left."""
    process = subprocess.Popen(**command("retrain"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: sign() or process.poll() is not None, timeout_s=200)
    assert process.poll() is None, "the retrain ended before it could be killed"
    family = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    process.kill()
    process.wait()
    wait_until(lambda: all(gone(pid) for pid in family))


def space() -> Path | None:
    return next(WORK.glob("workspaces/oil-????????"), None)


def in_space(path: str) -> Callable[[], bool]:
    def there() -> bool:
        folder = space()
        return folder is not None and (folder / path).exists()

    return there


def in_papers(name: str) -> Callable[[], bool]:
    """Whether this try has written it: what an earlier one left is removed."""
    path = WORK / "retrain" / f"oil-{log()[-1].key}" / name
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return path.exists


def recorded(kind: str) -> Callable[[], bool]:
    before = kinds().count(kind)
    return lambda: kinds().count(kind) > before


# Where it is killed, in the order of the steps; each next try has to get further than this.
SIGNS: dict[str, Callable[[], Callable[[], bool]]] = {
    "begin": lambda: recorded("started"),
    "prepare": lambda: in_space("params.yaml"),
    "pairs": lambda: in_space("data/.work/oil/curate.lock"),
    "teach": lambda: in_space("data/.work/oil/quantise.lock"),
    "compare": lambda: in_papers("champion"),
    "judge": lambda: in_papers("decision.json"),
    "register": lambda: recorded("registered"),
    "promote": lambda: recorded("promoted"),
}


@pytest.mark.timeout(1200)
def test_killed_in_every_step_it_ends_with_the_right_champion(toy: Path) -> None:
    for step, sign in SIGNS.items():
        if step != "begin" and "promoted" in kinds()[3:]:
            break  # the last kill came a moment after the end of it all
        kill_when(sign())
    told = understudy("retrain")
    assert (state().champion, state().history) == (2, (1,))
    assert kinds().count("started") == 2 and kinds().count("registered") == 2 and kinds().count("promoted") == 2
    assert "retrain/oil/oil-painter-v2" in git("branch", "--list")
    with connected() as client:
        assert version(client, "oil", 2).tags["init"] == version(client, "oil", 1).tags["weights.sha256"]
    assert "retraining" in told or "up to date" in told
    assert "up to date" in understudy("retrain")


def test_five_at_once_make_one_retrain(toy: Path) -> None:
    five = [subprocess.Popen(**command("retrain"), stdout=subprocess.PIPE, text=True) for _ in range(5)]
    told = [process.communicate(timeout=250)[0] for process in five]
    assert [process.returncode for process in five] == [0] * 5, told
    assert sum("oil: promoted, version 2" in text for text in told) == 1
    assert state().champion == 2
    assert kinds() == ["started", "registered", "promoted"] * 2


def test_what_has_rotted_in_the_cache_is_made_again(toy: Path) -> None:
    objects = [path for path in Path(".dvc/cache/files/md5").rglob("*") if path.is_file()]
    (inputs,) = [path for path in objects if b'"origin": "folder:0.png"' in path.read_bytes()]
    inputs.chmod(0o644)
    inputs.write_text("rotten")
    understudy("retrain")  # DVC notices by itself, or a stage refuses it and the object is dropped
    assert state().champion == 2
    assert "DIFFERS" not in understudy("lineage", "oil")
    assert b"folder:0.png" in inputs.read_bytes()


def test_two_clones_never_promote_over_each_other(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Two machines: no lock is shared, only the registry; they pin different teachers.
    monkeypatch.setenv("UNDERSTUDY_MLFLOW", str(toy / "mlflow"))
    other = tmp_path / "other"
    shutil.copytree(toy, other, symlinks=True)
    bump(other, 3)
    here = subprocess.Popen(**command("retrain"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    there = subprocess.Popen(
        **command("retrain"), cwd=other, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    told = [process.communicate(timeout=280)[0] for process in (here, there)]
    assert [here.returncode, there.returncode] == [0, 0], told
    moves = [entry for entry in log() if entry.kind == "promoted"]
    assert counted(moves), told
    found = state()
    assert found.champion == [move.version for move in counted(moves)][-1]
    # Whoever came second was judged against the first, not against the champion both had begun with.
    assert [move.previous for move in counted(moves)] == [0, *[move.version for move in counted(moves)][:-1]]


def counted(moves: list[LogRecord]) -> list[LogRecord]:
    upon, found = 0, []
    for move in moves:
        if move.decided_on == upon:
            found.append(move)
            upon = move.seq
    return found


def test_the_log_is_a_registered_model_of_its_own(toy: Path) -> None:
    with connected() as client:
        names = {model.name for model in client.search_registered_models()}
    assert names == {f"{STUDENT}oil", f"log.{STUDENT}oil", "teacher.oil-painter"}
