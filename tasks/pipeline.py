"""The only module that calls DVC: brings one stage of one student up to date, and says which are not.

Every stage runs below a process of its own session, `python -m tasks.pipeline PARENT REPORT TARGET`, which
does what `dvc repro --single-item TARGET` does. So a time-out or Ctrl-C can signal the whole group, and a
SIGKILL of the parent ends the stage too (killing `dvc repro` itself orphans it: field notes).
"""

import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from models.errors import TryAgain, UserError
from tasks.params import Params, load_params
from tasks.stage import TRY_AGAIN, die_with_parent, failure_note, work_folder

SHARED = ("ingest",)
# Of students of pictures, and of classifiers, which have what they need of them.
STAGES = (
    *SHARED,
    "exportability",  # needs nothing but params.yaml, and comes before a teacher is paid for
    "generate",
    "curate",
    "train",
    "quantise",
    "detector",
    "benchmark",
    "variants",
    "video",
    "evaluate",
    "bundle",
    "lineage",
)
DATASET = "dataset"  # shared by all classifiers of it
LABEL_STAGES = (DATASET, "generate", "curate", "train", "quantise", "benchmark", "evaluate", "bundle", "lineage")
LABELS = "-labels"  # ends the names of their stages in dvc.yaml, whose code and parameters are others
LOCK_TRIES = 5
GRACE_S = 10.0  # between INT, TERM and KILL

Outcome = Literal["ran", "restored", "unchanged"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRun:
    """What it took to bring a stage up to date."""

    stage: str
    outcome: Outcome  # its command ran, DVC's cache had the outputs, or nothing had changed
    seconds: float


class StageFailed(UserError):
    """A stage did not end well; `shown` if its own line is on the terminal already."""

    def __init__(self, stage: str, reason: str, *, shown: bool, code: int = 1) -> None:
        super().__init__(f"{stage}: {reason}")
        self.stage = stage
        self.reason = reason
        self.shown = shown
        self.code = code


def targets_of(student: str, params: Params | None = None) -> dict[str, str]:
    """What DVC calls each stage that makes a student, in order: `ingest`, `train@oil`.

    Of a classifier `dataset@cifar10`, `train-labels@digits`. `params` is params.yaml where it has been read already:
    with a thousand students that takes a second.
    """
    classifier = (params or load_params()).classifiers.get(student)
    if classifier is None:
        return {stage: stage if stage in SHARED else f"{stage}@{student}" for stage in STAGES}
    own = {stage: f"{stage}{LABELS}@{student}" for stage in LABEL_STAGES}
    return own | {DATASET: f"{DATASET}@{classifier.dataset}"}


def up_to(stage: str, student: str, params: Params | None = None) -> tuple[str, ...]:
    """A student's stages up to and including this one, in order; UserError where it has no such stage."""
    stages = tuple(targets_of(student, params))
    if stage not in stages:
        raise UserError(f"{student} has no stage {stage!r}; it has: {', '.join(stages)}")
    return stages[: stages.index(stage) + 1]


def place(name: str) -> tuple[str, str | None]:
    """Of a target of DVC's, the name under which its stage leaves records, and the student in whose folder they lie."""
    stage, _, of = name.partition("@")
    if stage == DATASET:
        return f"{DATASET}-{of}", None
    return stage.removesuffix(LABELS), of or None


def stale_stages(student: str, params: Params | None = None) -> list[str]:
    """The stages of one student that DVC would run now, in order; asks DVC in this process (about a second).

    A stage below a stale one counts as fresh here if its own inputs have not changed yet.
    """
    targets = targets_of(student, params)
    answer = _ask_dvc(lambda repo: repo.status(targets=[*targets.values()][-1:], with_deps=True))
    if answer["outcome"] == "locked":
        raise TryAgain(answer["reason"])
    if answer["outcome"] == "failed":
        raise UserError(answer["reason"])
    return [stage for stage, target in targets.items() if target in answer["result"]]


def fresh_stages(student: str, params: Params | None = None) -> tuple[str, ...]:
    """The first stages that are as they should be, up to the first that is not: nothing that runs now changes them.

    None where DVC cannot say; a stage's own process then waits for its lock, or tells what is wrong.
    """
    params = params or load_params()
    stages = up_to(STAGES[-1], student, params)
    try:
        stale = stale_stages(student, params)
    except UserError:
        return ()
    return stages[: stages.index(stale[0])] if stale else stages


def cache_folder() -> Path:
    """Where DVC keeps its cache (`dvc cache dir`), absolute."""
    answer = _ask_dvc(lambda repo: repo.cache.local_cache_dir)
    if answer["outcome"] != "done":
        raise UserError(answer["reason"])
    return Path(answer["result"]).absolute()


def run_stage(stage: str, student: str, *, timeout_s: float) -> StageRun:
    """Bring one stage up to date, given that those before it are; waits a bounded time for DVC's lock.

    Raises StageFailed, with the stage's own line as the reason, when it fails or takes longer than `timeout_s`.
    """
    started = time.perf_counter()
    target = targets_of(student)[stage]
    recorded, owner = place(target)
    failure_note(recorded, owner).unlink(missing_ok=True)
    for attempt in range(LOCK_TRIES):
        answer = _attempt(target, timeout_s)
        if answer["outcome"] != "locked":
            break
        time.sleep(random.uniform(0.5, 1.5) * 2**attempt)  # DVC has waited 3 s already; jitter parts two waiters
    outcome = answer["outcome"]
    if outcome in ("locked", "failed"):
        raise StageFailed(stage, answer["reason"], shown=False)
    if outcome == "stage failed":
        reason, shown = _own_line(recorded, owner, answer["code"])
        raise StageFailed(stage, reason, shown=shown, code=answer["code"])
    return StageRun(stage=stage, outcome=outcome, seconds=time.perf_counter() - started)


def _own_line(stage: str, student: str | None, code: int) -> tuple[str, bool]:
    """Why a stage's command failed, and whether the terminal shows it already."""
    if code in (TRY_AGAIN, 1):
        with suppress(OSError):
            return failure_note(stage, student).read_text(), True
        return "it failed with the error above", True
    if code < 0 or code > 128:  # a shell that stays between says 128 + the signal's number
        number = signal.Signals(abs(code) & 127).name
        hint = ", most likely because memory ran out" if number == "SIGKILL" else ""
        return f"its process was ended by {number}{hint}: run again to go on from there", False
    return f"its command ended with exit code {code}", False


def _attempt(target: str, timeout_s: float) -> dict[str, Any]:
    """One try in a session of its own; returns what the child reports."""
    read_end, write_end = os.pipe()
    command = [sys.executable, "-m", "tasks.pipeline", str(os.getpid()), str(write_end), target]
    with os.fdopen(read_end) as report:
        process = subprocess.Popen(
            command, env=_environment(), stdin=subprocess.DEVNULL, start_new_session=True, pass_fds=[write_end]
        )
        os.close(write_end)
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            stop_group(process)
            minutes = f"{timeout_s / 60:.0f} min" if timeout_s >= 120 else f"{timeout_s:g} s"
            reason = f"stopped after {minutes}, its time-out in flows/distil.py; run again to go on from there"
            return {"outcome": "failed", "reason": reason}
        except BaseException:  # Ctrl-C, or an exception of whoever runs us: leave nothing behind
            stop_group(process)
            raise
        answer = report.read()
    if not answer:
        return {"outcome": "failed", "reason": f"DVC ended with exit code {code}; try `dvc repro {target}`"}
    return json.loads(answer)  # type: ignore[no-any-return]


def _environment() -> dict[str, str]:
    """Ours, with our interpreter as `python`, and a shell that gives way to its command instead of staying between.

    bash does; dash stays, so a stage below it would not notice that DVC was killed.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, "SHELL": shutil.which("bash") or "/bin/sh", "DVC_NO_ANALYTICS": "1"}


def stop_group(process: subprocess.Popen[Any]) -> None:
    """Signal the whole group of a session's leader INT, then TERM, then KILL, until nothing of it is left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        until = time.monotonic() + GRACE_S
        while time.monotonic() < until:
            process.poll()  # reaps the leader, which would count as alive
            if not _group_lives(process.pid):
                return
            time.sleep(0.05)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _ask_dvc(question: Callable[[Any], Any], *, again: bool = True) -> dict[str, Any]:
    """Put a question to DVC's repository in this process; its errors become an outcome and one line."""
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo
    from dvc.rwlock import RWLockFileCorruptedError

    logging.getLogger("dvc").setLevel(logging.CRITICAL)
    try:
        with Repo() as repo:
            return {"outcome": "done", "result": question(repo)}
    except DvcException as error:
        causes = _causes(error)
        if again and any(isinstance(cause, RWLockFileCorruptedError) for cause in causes):
            # A process died while it wrote the file. It is only read under a lock, so no other is writing now.
            Path(".dvc/tmp/rwlock").unlink(missing_ok=True)
            return _ask_dvc(question, again=False)
        if any(isinstance(cause, LockError) for cause in causes):
            reason = "another run is at work on the same data: wait until it has ended, then run again"
            return {"outcome": "locked", "reason": reason}
        reason = ": ".join(dict.fromkeys(" ".join(str(cause).split()) for cause in causes))
        return {"outcome": "failed", "reason": f"DVC: {reason}", "error": error}


def _causes(error: BaseException | None) -> list[BaseException]:
    chain = []
    while error is not None:
        chain.append(error)
        error = error.__cause__
    return chain


def _reproduce(name: str) -> dict[str, Any]:
    """What the child does: `dvc repro --single-item NAME`, with the outcome instead of DVC's log."""
    from dvc.stage.exceptions import StageCmdFailedError

    recorded, owner = place(name)
    record = work_folder(owner) / f"{recorded}.run.json"
    before = record.stat().st_mtime_ns if record.exists() else 0
    answer = _ask_dvc(lambda repo: len(repo.reproduce(targets=[name], single_item=True)))
    if answer["outcome"] == "done":
        after = record.stat().st_mtime_ns if record.exists() else 0
        outcome: Outcome = "unchanged" if not answer["result"] else "ran" if after != before else "restored"
        return {"outcome": outcome}
    for cause in _causes(answer.pop("error", None)):
        if isinstance(cause, StageCmdFailedError):
            return {"outcome": "stage failed", "code": int(str(cause).rpartition(" ")[2])}
    return answer


def _end_group_on_terminate() -> None:
    """On SIGTERM (our parent stops us, or has died) end the stage; if it will not, kill the whole group."""

    def end(signum: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGTERM)
        # DVC ignores SIGINT while a stage's command runs, and ends when that does.
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            raise SystemExit(128 + signum)
        signal.signal(signal.SIGALRM, lambda *_: os.killpg(0, signal.SIGKILL))
        signal.alarm(int(GRACE_S))

    signal.signal(signal.SIGTERM, end)


def main() -> None:
    """The child of `run_stage`: arguments are the parent's pid, a file descriptor to report on, a target."""
    parent, report, name = sys.argv[1:]
    _end_group_on_terminate()
    die_with_parent(int(parent))
    try:
        answer = _reproduce(name)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    os.write(int(report), json.dumps(answer).encode())
    raise SystemExit(0 if answer["outcome"] in ("ran", "restored", "unchanged") else 1)


if __name__ == "__main__":
    main()
