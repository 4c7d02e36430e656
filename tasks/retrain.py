"""One retrain, step by step, in a workspace of its own; flows/retrain.py puts the steps in order.

begin -> (stages in the workspace) -> fetch the champion -> compare -> judge -> settle. Every step may be killed and
made again: the workspace is found by the job's key, DVC goes on where it was, and what is written to the registry
is looked for first. The log's order decides between two that promote at once (tasks/audit.py).
"""

import fcntl
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from models.errors import TryAgain, UserError
from tasks import workspace
from tasks.audit import StudentState
from tasks.bumps import Job
from tasks.cache import drop_corrupt
from tasks.evidence_kinds import read_evidence
from tasks.files import read_json, sha256_file, write_json, write_text
from tasks.gate import Decision, decide
from tasks.gate_table import gate_table
from tasks.manifest import MANIFEST, read_manifest
from tasks.mlflow_client import connected
from tasks.params import load_params
from tasks.pipeline import cache_folder
from tasks.registry import (
    fetch_bundle,
    find_run,
    follow,
    keep_bundle,
    keep_student,
    note,
    read_log,
    read_state,
    record,
    register_student,
    version,
    with_weights,
)
from tasks.stage import STUDENTS, WORK
from tasks.teachers import pin_of, register_teacher

if TYPE_CHECKING:
    from tasks.mlflow_client import Client

COMPARISON, DECISION, TABLE, TEACHER_DRIFT = "comparison.json", "decision.json", "gate.md", "teacher_drift.json"
TIMED = {"max_p90_ms", "max_p90_over_champion"}  # the rules that a busy machine fails
QUIET = 0.9  # share of the processor from which on latencies are believed


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A candidate's verdict, and the state of the registry it was reached upon."""

    decision: Decision
    upon: StudentState


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a retrain ended."""

    student: str
    kind: str  # promoted, awaiting, refused; or busy, where another process is at this student
    reason: str
    version: int = 0
    branch: str = ""


@contextmanager
def alone(student: str) -> Iterator[bool]:
    """Whether we are the one process on this machine that retrains the student; the kernel frees what the dead held."""
    path = WORK / "retrain" / f"{student}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def begin(job: Job, via: str) -> StudentState:
    """Put the start into the log, once however often the job is begun; returns the student's state."""
    with connected() as client:
        register_teacher(client, job.teacher)
        state = read_state(client, job.student)
        if job.key in state.begun:
            return follow(client, job.student)
        told = f"{job.why}; asked for by {via}"
        _, state = note(
            client,
            job.student,
            record("started", told, key=job.key, teacher=job.digest, via=via),
        )
        return state


def papers(job: Job) -> Path:
    """Where a job keeps what is no stage's output: evidence, decision, the champion's bundle."""
    folder = WORK / "retrain" / f"{job.student}-{job.key}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def fetch_champion(student: str, folder: Path) -> tuple[StudentState, Path | None]:
    """The state of the registry and, below `folder`, the champion's verified bundle if there is a champion."""
    with connected() as client:
        state = follow(client, student)
        if not state.champion:
            return state, None
        return state, fetch_bundle(client, version(client, student, state.champion), folder / "champion")


def old_teacher(job: Job) -> tuple[dict[str, Any], str] | None:
    """Pin and digest of the champion's teacher, where it is another than the job's."""
    with connected() as client:
        state = read_state(client, job.student)
        if not state.champion or state.teacher == job.digest:
            return None
        return pin_of(version(client, job.student, state.champion)), state.teacher


def measure_teacher_drift(space: Path, job: Job, folder: Path, samples: int) -> str:
    """How far the new teacher's pictures are from the old one's, in words; a child process, so that nothing stays."""
    old = old_teacher(job)
    if old is None:
        return ""
    pin, digest = old
    write_json(folder / "old_teacher.json", pin)
    out = (folder / TEACHER_DRIFT).absolute()
    arguments = ["--student", job.student, "--old", str((folder / "old_teacher.json").absolute()), "--out", str(out)]
    workspace.run(space, "tasks.teacher_drift", *arguments, "--samples", str(samples), "--old-digest", digest)
    return str(read_json(out)["told"])


def compare(space: Path, student: str, champion: Path | None, folder: Path) -> None:
    """Measure candidate and champion on the same inputs, timed in turn; a child process in the workspace."""
    arguments = ["--student", student, "--out", str((folder / COMPARISON).absolute())]
    if champion:
        arguments += ["--champion", str(champion.absolute())]
    workspace.run(space, "tasks.compare", *arguments)


def judge(space: Path, student: str, folder: Path, *, upon: StudentState) -> Judged:
    """Decide by the rules in the workspace's params.yaml; writes decision.json and gate.md."""
    found = read_json(folder / COMPARISON)
    candidate = read_evidence(found["candidate"])
    champion = read_evidence(found["champion"]) if found["champion"] else None
    if bool(champion) != bool(upon.champion):
        raise TryAgain(f"the champion of {student} changed while its candidate was measured: run again")
    rules = load_params(space / "params.yaml").block(student).gate
    decision = decide(candidate, champion, rules)
    write_json(folder / DECISION, decision.to_json())
    write_text(folder / TABLE, gate_table(decision))
    return Judged(decision=decision, upon=upon)


def wait_for_quiet(judged: Judged, folder: Path) -> None:
    """TryAgain where a student failed by its latency only, and others had the processor while it was timed.

    A refusal is final until a person asks again: a busy night is not to be the reason.
    """
    failed = [result for result in judged.decision.results if not result.passed]
    slow = failed and all(result.name in TIMED and result.value is not None for result in failed)
    share = read_json(folder / COMPARISON)["undisturbed"]
    if slow and share < QUIET:
        told = f"{judged.decision.reason}, but other processes had {1 - share:.0%} of the processor's time meanwhile"
        raise TryAgain(f"{told}: it is timed again when the machine is quieter")


def settle(job: Job, space: Path, folder: Path, judged: Judged, via: str) -> Outcome:
    """Register the candidate and promote it, leave it waiting, or refuse it; the champion moves last."""
    decision = judged.decision
    branch = ""
    if decision.passed:
        branch = branch_of(job)
        commit = workspace.commit(space, branch=branch, message=_message(job, decision))
    else:
        commit = job.base
        workspace.drop_branch(branch_of(job))
    tags = _tags(job, space, judged) | {"git.commit": commit} | ({"branch": branch} if branch else {})
    with connected() as client:
        run_id = find_run(client, job.student, tags["bundle.sha256"])
        made_here = space / STUDENTS / job.student
        documents = [path for path in sorted(folder.iterdir()) if path.suffix in (".json", ".md", ".png")]
        keep_bundle(client, run_id, made_here / "bundle", [space / "params.yaml", space / "dvc.lock", *documents])
        keep_student(client, run_id, made_here / "student")
        made = register_student(client, job.student, key=job.key, run_id=run_id, tags=tags, reason=decision.reason)
        about: dict[str, Any] = {"key": job.key, "version": made.version, "teacher": job.digest, "via": via}
        about |= {"pinned": job.pinned, "production": job.production}
        log = read_log(client, f"student.{job.student}")
        if not any(entry.kind == "registered" and entry.version == made.version for entry in log):
            began = _began(client, job.student, tags["init"], judged.upon)
            note(client, job.student, record("registered", f"{job.why}; {began}; gate: {decision.reason}", **about))
        if not decision.passed:
            note(client, job.student, record("refused", decision.reason, **about))
            return Outcome(student=job.student, kind="refused", reason=decision.reason, version=made.version)
        if load_params(space / "params.yaml").block(job.student).approval:
            told = f"passed the gate, waits for a person: understudy promote {job.student}"
            note(client, job.student, record("awaiting", told, **about))
            return Outcome(student=job.student, kind="awaiting", reason=told, version=made.version, branch=branch)
        reason = f"{job.why}; gate: {decision.reason}"
        about |= {"previous": judged.upon.champion, "decided_on": judged.upon.moved}
        counted, _ = note(client, job.student, record("promoted", reason, **about))
        if not counted:
            raise TryAgain(f"another champion of {job.student} was promoted meanwhile: the candidate is judged again")
    return Outcome(student=job.student, kind="promoted", reason=reason, version=made.version, branch=branch)


def heal(space: Path) -> None:
    """Drop what has rotted in DVC's cache, as that may be why a stage failed; TryAgain if there was anything.

    The outputs made of it go too: DVC believes those that it checked out to be what it meant to check out.
    """
    if not (space / "dvc.lock").exists():
        return
    lock = yaml.safe_load((space / "dvc.lock").read_text())
    rotten = drop_corrupt(lock, cache_folder())
    outs = [Path(out["path"]) for stage in lock["stages"].values() for out in stage.get("outs", ())]
    for out in outs:
        if any(Path(name).is_relative_to(out) for name in rotten):
            shutil.rmtree(space / out) if (space / out).is_dir() else (space / out).unlink(missing_ok=True)
    if rotten:
        raise TryAgain(f"corrupt in DVC's cache and dropped, to be made again: {', '.join(rotten[:3])}")


def branch_of(job: Job) -> str:
    """The branch a retrain that passed the gate leaves."""
    return f"retrain/{job.student}/{job.teacher['name']}-v{job.teacher['version']}-{job.key[:8]}"


def _message(job: Job, decision: Decision) -> str:
    return f"{job.student}: taught by {job.title}\n\n{job.why}. Gate: {decision.reason}.\nRetrain {job.key}."


def _began(client: "Client", student: str, init: str, upon: StudentState) -> str:
    """What a candidate's training began with, in words."""
    if init in ("scratch", "teacher"):
        return "it began from scratch" if init == "scratch" else "it began with its teacher's weights"
    known = [one.version for one in with_weights(client, init) if one.student == student]
    if not known:
        return f"it began with the weights {init:.12}"
    return f"it began with version {upon.champion if upon.champion in known else known[0]}"


def _tags(job: Job, space: Path, judged: Judged) -> dict[str, str]:
    """What a registered student says of itself (mlflow/tags.yaml)."""
    manifest = space / STUDENTS / job.student / "bundle" / MANIFEST
    digests = read_manifest(manifest).digests
    if digests.teacher.digest != job.digest:
        raise UserError(
            f"the workspace of {job.student} holds a student of another teacher ({digests.teacher.digest:.12}, "
            f"wanted {job.digest:.12}): remove {space} and run again"
        )
    decision = judged.decision
    return {
        "teacher.name": digests.teacher.name,
        "teacher.version": str(digests.teacher.version),
        "teacher.digest": digests.teacher.digest,
        "teacher.pin": json.dumps(job.teacher, sort_keys=True),
        "pairs.digest": digests.pairs,
        "weights.sha256": digests.weights,
        "init": read_json(space / STUDENTS / job.student / "student" / "student.json")["init"],
        "bundle.sha256": sha256_file(manifest),
        "pinned": job.pinned,
        "production": job.production,
        "dvc_lock.sha256": sha256_file(space / "dvc.lock"),
        "gate": "passed" if decision.passed else "failed",
        "gate.quality": "passed" if decision.quality else "failed",
        "gate.target": "passed" if decision.target else "failed",
        "gate.reason": decision.reason,
        "previous_champion": str(judged.upon.champion or "none"),
        "decided_on": str(judged.upon.moved),
    }


def fail(job: Job, error: Exception, via: str) -> None:
    """Put a failure into the log, so that a retrain that cannot succeed is not begun every quarter of an hour."""
    try:
        with connected() as client:
            note(client, job.student, record("failed", str(error), key=job.key, teacher=job.digest, via=via))
    except UserError as second:
        print(f"the failure is not in the log: {second}", file=sys.stderr)
