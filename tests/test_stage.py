"""What every stage does around its work, in real processes."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from processes import gone, wait_until

from models.errors import TryAgain, UserError
from tasks.stage import locked, one_line


def run_python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


STAGE = """
    from models.errors import TryAgain, UserError
    from tasks.stage import guarded
    def work():
        {body}
    guarded("toy", work)
"""


@pytest.mark.parametrize(
    ("body", "code", "line"),
    [
        ("pass", 0, ""),
        ("raise UserError('no photos: add some')", 1, "toy: no photos: add some"),
        ("raise TryAgain('the server sleeps: wake it')", 75, "toy: the server sleeps: wake it"),
        ("open('/nowhere/x')", 1, "toy: No such file or directory (/nowhere/x): mend it and run again"),
        ("raise OSError(28, 'No space left on device', 'x')", 1, "free some disk space"),
        ("raise PermissionError(13, 'Permission denied', 'x')", 1, "check the folder's permissions"),
        ("raise KeyboardInterrupt", 130, "toy: stopped; run again to go on from here"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", 130, "toy: stopped"),
    ],
)
def test_exit_code_and_one_line(tmp_path: Path, body: str, code: int, line: str) -> None:
    done = run_python(STAGE.format(body=body), tmp_path)
    assert done.returncode == code
    assert line in done.stderr
    assert len(done.stderr.splitlines()) <= 1
    assert "Traceback" not in done.stderr


def test_a_bug_keeps_its_traceback(tmp_path: Path) -> None:
    done = run_python(STAGE.format(body="raise ValueError('a bug')"), tmp_path)
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_one_line_passes_bugs_on() -> None:
    with pytest.raises(ZeroDivisionError):
        one_line(ZeroDivisionError())


def test_try_again_is_a_user_error() -> None:
    assert one_line(TryAgain("x")) == one_line(UserError("x")) == "x"


def test_a_stage_dies_with_its_parent(tmp_path: Path) -> None:
    parent = """
        import subprocess, sys, time
        child = '''
        import os, time
        from tasks.stage import guarded
        def work():
            open("tmp", "w").write(str(os.getpid())); os.rename("tmp", "pid"); time.sleep(600)
        guarded("toy", work)
        '''
        import textwrap
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(child)]).wait()
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(parent)], cwd=tmp_path)
    try:
        wait_until((tmp_path / "pid").exists)
        child = int((tmp_path / "pid").read_text())
        assert not gone(child)
    finally:
        process.kill()
        process.wait()
    wait_until(lambda: gone(child))


def test_a_child_whose_parent_is_gone_already_does_not_start(tmp_path: Path) -> None:
    done = run_python("from tasks.stage import die_with_parent; die_with_parent(1); print('alive')", tmp_path)
    assert done.returncode != 0
    assert done.stdout == ""


def test_the_lock_keeps_another_process_out_and_dies_with_its_holder(tmp_path: Path) -> None:
    code = "from pathlib import Path; from tasks.stage import locked\n"
    code += "with locked(Path('lock')): print('in', flush=True)"
    with locked(tmp_path / "lock"):
        waiting = subprocess.Popen(
            [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert waiting.stderr is not None
        assert "waiting for another run" in waiting.stderr.readline()
        assert waiting.poll() is None
    out, _ = waiting.communicate(timeout=30)
    assert out == "in\n"
    hold = code.replace("print('in', flush=True)", "print('in', flush=True); import time; time.sleep(600)")
    holder = subprocess.Popen([sys.executable, "-c", hold], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "in\n"
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
    with locked(tmp_path / "lock"):
        pass
