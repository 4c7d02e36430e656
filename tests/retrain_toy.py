"""The toy under git, followed by `understudy retrain`; each command is a process, as a worker would start it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from git_toy import commit_toy, git
from servers import prefect_server
from toy_pipeline import STUDENT, make_repository

from tasks.audit import LogRecord, StudentState, replay
from tasks.mlflow_client import connected
from tasks.params_text import with_values
from tasks.registry import CHALLENGER, CHAMPION, all_states, read_log

ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def pin(version: int) -> dict[str, Any]:
    """From version 10 on the toy's teacher is noise."""
    return {"kind": "painter", "name": "oil-painter", "version": version, "style": "oil"}


def make_git_toy(root: Path, repository: Path) -> Path:
    toy = make_repository(root, repository)
    commit_toy(toy)
    return toy


@contextmanager
def configured_server(home: Path) -> Iterator[None]:
    """A Prefect server that every command started meanwhile reports to."""
    with prefect_server(home) as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_API_URL", url)
        yield


def first_champion(root: Path, repository: Path) -> tuple[Path, str]:
    """A git toy whose first student, taught by version 1, is the champion; and what the retrain printed."""
    toy = make_git_toy(root, repository)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(toy)
        return toy, understudy("retrain")


def bump(toy: Path, version: int) -> str:
    """Commit a pin of another teacher version; returns the commit."""
    params = toy / "params.yaml"
    params.write_text(with_values(params.read_text(), STUDENT, {"teacher": pin(version)}))
    git("commit", "--quiet", "-am", f"teacher {version}", cwd=toy)
    return git("rev-parse", "HEAD", cwd=toy)


def command(*words: str, **environment: str) -> dict[str, Any]:
    """How to start `understudy` in the current folder."""
    return {"args": [sys.executable, "-m", "flows.cli", *words], "env": os.environ | ONE_THREAD | environment}


def understudy(*words: str, code: int = 0, **environment: str) -> str:
    """Its whole output; the exit code has to be `code`."""
    done = subprocess.run(
        **command(*words, **environment), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=250
    )
    assert done.returncode == code, done.stdout[-4000:]
    assert "Traceback" not in done.stdout, done.stdout[-4000:]
    return done.stdout


def log() -> list[LogRecord]:
    with connected() as client:
        return read_log(client, f"student.{STUDENT}")


def state() -> StudentState:
    """As the log says; and the aliases stand where it says."""
    found = replay(log())
    with connected() as client:
        aliases = client.get_registered_model(f"student.{STUDENT}").aliases
        assert all_states(client) == ({STUDENT: found}, [])
    wanted = {CHAMPION: found.champion, CHALLENGER: found.challenger}
    assert {name: int(at) for name, at in aliases.items()} == {name: at for name, at in wanted.items() if at}
    return found


def kinds() -> list[str]:
    return [entry.kind for entry in log()]
