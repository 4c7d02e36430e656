"""DVC stages in processes of their own: outcomes, failures, time-outs, kills."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
from processes import gone, wait_until

from models.errors import UserError
from tasks import pipeline
from tasks.pipeline import StageFailed, fresh_stages, run_stage, stale_stages


def test_ran_unchanged_restored(toy: Path) -> None:
    assert stale_stages("oil") == list(pipeline.STAGES)
    assert run_stage("ingest", "oil", timeout_s=60).outcome == "ran"
    assert run_stage("generate", "oil", timeout_s=60).outcome == "ran"
    assert run_stage("ingest", "oil", timeout_s=60).outcome == "unchanged"
    assert "ingest" not in stale_stages("oil")
    (toy / "seed").write_text("2")
    assert stale_stages("oil")[0] == "ingest"
    assert run_stage("ingest", "oil", timeout_s=60).outcome == "ran"
    (toy / "seed").write_text("1")
    assert run_stage("ingest", "oil", timeout_s=60).outcome == "restored"


def test_the_stages_before_the_first_that_changed_are_fresh(toy: Path) -> None:
    assert fresh_stages("oil") == ()
    for stage in pipeline.STAGES[:3]:
        run_stage(stage, "oil", timeout_s=60)
    assert fresh_stages("oil") == pipeline.STAGES[:3]
    shutil.rmtree("data/students/oil/raw")
    assert fresh_stages("oil") == pipeline.STAGES[:2]  # an output is missing
    (toy / "dvc.yaml").write_text("stages: [")
    assert fresh_stages("oil") == ()


@pytest.mark.parametrize(
    ("mode", "reason", "shown"),
    [
        ("fail ingest", "the toy is broken: mend it", True),
        ("break ingest", "it failed with the error above", True),
        ("kill ingest", "memory ran out", False),
    ],
)
def test_the_stages_own_line_is_the_reason(
    toy: Path, capfd: pytest.CaptureFixture[str], mode: str, reason: str, shown: bool
) -> None:
    (toy / "mode").write_text(mode)
    with pytest.raises(StageFailed, match=reason) as caught:
        run_stage("ingest", "oil", timeout_s=60)
    assert caught.value.shown == shown
    assert caught.value.stage == "ingest"
    printed = capfd.readouterr()
    assert "dvc" not in (printed.out + printed.err).lower().replace(str(toy), "").replace("/dvc", "")
    assert ("the toy is broken" in printed.err) == (mode == "fail ingest")
    assert "ingest" in stale_stages("oil")


def test_a_broken_dvc_yaml_is_one_line(toy: Path) -> None:
    (toy / "dvc.yaml").write_text("stages: [")
    with pytest.raises(UserError, match=r"^DVC: .*dvc\.yaml") as caught:
        stale_stages("oil")
    assert "\n" not in str(caught.value)
    with pytest.raises(StageFailed, match=r"dvc\.yaml"):
        run_stage("ingest", "oil", timeout_s=60)


def test_a_time_out_ends_the_whole_group(toy: Path) -> None:
    (toy / "mode").write_text("hang ingest")
    with pytest.raises(StageFailed, match="its time-out"):
        run_stage("ingest", "oil", timeout_s=4)
    assert gone(int((toy / "hanging").read_text()))
    (toy / "mode").unlink()
    assert run_stage("ingest", "oil", timeout_s=60).outcome == "ran"


def hanging_run(toy: Path, tmp_path: Path) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """A process in the middle of run_stage, and the processes below it."""
    (toy / "mode").write_text("hang ingest")
    code = textwrap.dedent("""
        from tasks.pipeline import run_stage
        try:
            run_stage("ingest", "oil", timeout_s=600)
        except KeyboardInterrupt:
            print("interrupted")
    """)
    run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until((toy / "hanging").exists)
    below = psutil.Process(run.pid).children(recursive=True)
    assert int((toy / "hanging").read_text()) in [process.pid for process in below]
    return run, below


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_kill_leaves_no_process_behind_and_the_next_run_works(
    toy: Path, tmp_path: Path, number: signal.Signals
) -> None:
    run, below = hanging_run(toy, tmp_path)
    run.send_signal(number)
    out, _ = run.communicate(timeout=60)
    for process in below:
        wait_until(lambda process=process: gone(process.pid))  # type: ignore[misc]
    assert ("interrupted" in out) == (number == signal.SIGINT)
    (toy / "mode").unlink()
    assert run_stage("ingest", "oil", timeout_s=60).outcome == "ran"


def test_a_kill_of_dvc_itself_ends_the_stage(toy: Path, tmp_path: Path) -> None:
    run, below = hanging_run(toy, tmp_path)
    os.kill(below[0].pid, signal.SIGKILL)
    run.communicate(timeout=60)
    for process in below:
        wait_until(lambda process=process: gone(process.pid))  # type: ignore[misc]


def test_a_lock_that_is_held_is_waited_for_and_then_told(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "LOCK_TRIES", 1)
    code = "import sys, zc.lockfile; l = zc.lockfile.LockFile('.dvc/tmp/lock'); print('in', flush=True); input()"
    (toy / ".dvc" / "tmp").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "in\n"
        with pytest.raises(StageFailed, match="another run is at work"):
            run_stage("ingest", "oil", timeout_s=60)
        holder.communicate("\n")
    assert run_stage("ingest", "oil", timeout_s=60).outcome == "ran"


def test_a_lock_file_cut_off_by_a_kill_is_no_obstacle(toy: Path) -> None:
    (toy / ".dvc" / "tmp").mkdir()
    (toy / ".dvc" / "tmp" / "rwlock").write_text('{"write": {')
    assert run_stage("ingest", "oil", timeout_s=60).outcome == "ran"
