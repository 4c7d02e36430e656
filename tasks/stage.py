"""What every DVC stage does around its work: arguments, one line for an error, a lock, a run record.

`python -m tasks.STAGE [--student NAME]` ends with exit code 0 only if the stage's outputs are whole.
It writes data/.work/[NAME/]STAGE.run.json (seconds, peak memory): facts about this run, kept out of
DVC's outputs so that equal work gives equal bytes.
"""

import argparse
import ctypes
import fcntl
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from models.errors import TryAgain, UserError
from tasks.files import write_json, write_text
from tasks.kinds import stage_of
from tasks.params import NAME, Params, load_params
from tasks.student_params import Student

WORK = Path("data/.work")
STUDENTS = Path("data/students")
TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h


def work_folder(student: str | None) -> Path:
    """Where a stage keeps what is not an output: resume state, locks, run records."""
    return WORK / student if student else WORK


def die_with_parent(parent: int | None = None, by: signal.Signals = signal.SIGTERM) -> None:
    """Ask Linux to end this process when its parent dies; `parent` is the parent's pid if known.

    Killing `dvc repro` or `make` with SIGKILL would otherwise orphan the stage, which would go on
    writing beside the next run.
    """
    if not sys.platform.startswith("linux"):
        return
    parent = parent or os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(1, by)  # 1 = PR_SET_PDEATHSIG
    if os.getppid() != parent:
        raise SystemExit("the parent process ended before the stage began")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`; the kernel frees it when the process dies, however it dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another run that holds {path}", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def one_line(error: BaseException) -> str:
    """A sentence for an error the user can mend; raises the error again if it is a bug of ours."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        hints = {28: "free some disk space", 13: "check the folder's permissions", 30: "the disk is read-only"}
        hint = hints.get(error.errno or 0, "mend it")
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror}{where}: {hint} and run again; finished work is kept"
    raise error


def interrupt_on_terminate() -> None:
    """Let SIGTERM end this process as Ctrl-C does, so that what cleans up after one does after the other."""

    def interrupt(signum: int, frame: object) -> None:
        # A second SIGTERM (from the parent, then because the parent is gone) must not break the cleaning up.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def failure_note(name: str, student: str | None) -> Path:
    """Where a stage that failed leaves its one line, for whoever started it."""
    return work_folder(student) / f"{name}.failed"


def _note_failure(name: str, student: str | None, line: str) -> None:
    # The note is a courtesy: a full disk, often the very reason, must not hide the line itself.
    if student is None or NAME.fullmatch(student):
        with suppress(OSError):
            write_text(failure_note(name, student), line)


def _run(name: str, student: str | None, body: Callable[[], None]) -> None:
    started = time.perf_counter()
    folder = work_folder(student)
    failure_note(name, student).unlink(missing_ok=True)
    with locked(folder / f"{name}.lock"):
        body()
    peak_kib = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    record = {"stage": name, "seconds": round(time.perf_counter() - started, 2), "peak_mib": round(peak_kib / 1024)}
    write_json(folder / f"{name}.run.json", record)


def guarded(name: str, work: Callable[[], None], student: str | None = None) -> None:
    """Run `work`; an error the user can mend becomes one line and exit code 1 (75 where a second try can help).

    Ctrl-C and SIGTERM end with exit code 130.
    """
    die_with_parent()
    interrupt_on_terminate()
    try:
        work()
    except KeyboardInterrupt:
        print(f"{name}: stopped; run again to go on from here", file=sys.stderr)
        raise SystemExit(130) from None
    except (UserError, OSError) as error:
        line = one_line(error)
        _note_failure(name, student, line)
        print(f"{name}: {line}", file=sys.stderr)
        raise SystemExit(TRY_AGAIN if isinstance(error, TryAgain) else 1) from None


def main(name: str, body: Callable[[Params], None]) -> None:
    """Entry point of a stage that all students share."""
    argparse.ArgumentParser(prog=f"python -m tasks.{name}").parse_args()
    guarded(name, lambda: _run(name, None, lambda: body(load_params())))


def student_main(name: str, body: Callable[[Params, str, Student], None]) -> None:
    """Entry point of a stage that runs once per student."""
    parser = argparse.ArgumentParser(prog=f"python -m tasks.{name}")
    parser.add_argument("--student", required=True, help="a name under `students:` in params.yaml")
    student = parser.parse_args().student

    def work() -> None:
        params = load_params()
        block = params.block(student)
        if isinstance(block, Student):
            _run(name, student, lambda: body(params, student, block))
        else:
            other = stage_of(block.task, name)
            _run(name, student, lambda: other(params, student, block))

    guarded(name, work, student)
