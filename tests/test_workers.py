"""Work spread over processes."""

import os
import signal
import time
from pathlib import Path

import pytest

from models.errors import UserError
from tasks.workers import spread_out


def square(number: int) -> int:
    return number * number


def note_and_stop(path: Path) -> None:
    """As a training does that is asked to stop: what it has is kept, then KeyboardInterrupt."""
    path.touch()
    raise KeyboardInterrupt


def end(path: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_each_job_comes_back_with_its_result() -> None:
    assert dict(spread_out(square, [1, 2, 3], 2, "workers")) == {1: 1, 2: 4, 3: 9}


def test_a_worker_that_was_stopped_begins_no_other_job(tmp_path: Path) -> None:
    jobs = [tmp_path / str(number) for number in range(6)]
    began = time.monotonic()
    with pytest.raises(UserError, match="ended from outside"):
        list(spread_out(note_and_stop, jobs, 1, "workers"))
    assert [path.exists() for path in jobs] == [True] + [False] * 5
    assert time.monotonic() - began < 60


def test_a_worker_that_was_killed_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lower curate.workers and run again"):
        list(spread_out(end, [tmp_path], 1, "curate.workers"))
