"""What all tests share: no home folder, server or service of the machine reaches a test, or is reached by it."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_once import made_once
from toy_pipeline import make_repository

REPOSITORY = Path(__file__).parent.parent
SHARED_DATA = REPOSITORY.parent / "shared" / "data"

# Before any of these libraries is imported, which is when they read their settings.
os.environ.update(
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    DVC_NO_ANALYTICS="1",
    MLFLOW_DISABLE_TELEMETRY="true",
    DO_NOT_TRACK="1",
    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false",
)
for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
    os.environ.pop(name, None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that start servers come first: they take longest, and two workers are to end together."""
    slow = {item.path for item in items if item.get_closest_marker("server") or item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def _own_homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
        patch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path_factory.mktemp("dvc")))
        yield


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of this repository."""
    return REPOSITORY


@pytest.fixture
def shared_data() -> Path:
    """Real photos, clips and teachers beside the repository; a test that needs them skips without."""
    if not SHARED_DATA.is_dir():
        pytest.skip("no ../shared/data beside the repository")
    return SHARED_DATA


@pytest.fixture
def free_port() -> int:
    """A TCP port on loopback that nothing listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a repository in miniature in which nothing has run (tests/toy_pipeline.py)."""
    folder = make_repository(tmp_path, REPOSITORY)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def _run_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    def make(root: Path) -> str:
        command = [sys.executable, "-m", "flows.cli", "run"]
        toy = make_repository(root, REPOSITORY)
        done = subprocess.run(command, cwd=toy, capture_output=True, text=True, timeout=200, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    root, told = made_once(tmp_path_factory, "finished", make)
    return root / "toy", told


@pytest.fixture
def finished_toy(_run_once: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str]:
    """The current folder: a toy repository after `understudy run`; and what that printed."""
    folder = tmp_path / "finished"
    shutil.copytree(_run_once[0], folder)
    monkeypatch.chdir(folder)
    return folder, _run_once[1]


@pytest.fixture
def own_digits(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, a test's own, with the shipped digits as they are once they have gone through the stages."""
    from digits import copy_digits

    copy_digits(tmp_path_factory, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path
