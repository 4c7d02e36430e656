"""SIGKILL of `understudy run` in the middle of each stage, with the real stages: the next run goes on from there."""

import subprocess
from pathlib import Path

import psutil
import pytest
from processes import gone, wait_until
from servers import prefect_server
from whole_pipeline import command, copy_repository, shipped, understudy, whole

from tasks.pipeline import SHARED, STAGES

pytestmark = pytest.mark.server


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


@pytest.mark.timeout(1200)
def test_killed_in_every_stage_it_ends_with_the_same_bytes(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_repository(tmp_path / "repository")
    # One Prefect server for all twelve runs: its start costs as much as the rest of what a run begins with.
    with prefect_server(tmp_path / "prefect") as url:
        monkeypatch.setenv("PREFECT_API_URL", url)
        for stage in STAGES:
            kill_in(stage, folder)
        understudy(folder, "run")
    monkeypatch.delenv("PREFECT_API_URL")
    assert len(shipped(folder)) == 5
    assert shipped(folder) == shipped(whole(tmp_path_factory)[0])  # asked for last: another process may make it
