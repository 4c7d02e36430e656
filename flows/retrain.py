"""The flow that follows a teacher: looks at what is due, and retrains it; a better student is promoted, no other.

Every way in starts this one flow: the schedule (prefect.yaml), the event `teacher.promoted`, the webhook that emits it,
CI after a merge, a person. None of them says what to do, they only make it look (tasks/bumps.py). The work is done in a
git worktree (tasks/workspace.py); the steps are in tasks/retrain.py, each a Prefect task here.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from models.errors import TryAgain, UserError
from tasks import retrain as steps
from tasks import workspace
from tasks.bumps import Base, Finding, Job, job_for, look, student_finding
from tasks.mlflow_client import connected
from tasks.params import load_params
from tasks.pipeline import STAGES
from tasks.registry import follow, read_state, version
from tasks.retrain import Judged, Outcome
from tasks.starts import Start, champion_start
from tasks.teachers import note_moves, pin_of

# Between two tries where a server did not answer: a restart of MLflow or its database is waited for.
WAITS_S = [2.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0]
ROUNDS = 3  # judged again, or a newer teacher came, while a retrain was under way; then the schedule goes on


def _can_pass(_task: Any, _run: Any, state: Any) -> bool:
    """Retry only what a second try can mend, and say so."""
    error = state.result(raise_on_failure=False)
    if isinstance(error, TryAgain):
        print(f"waiting to try again: {error}", flush=True)
    return isinstance(error, TryAgain)


# DVC and the registry own what is cached, not Prefect.
PATIENT: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "retries": len(WAITS_S),
    "retry_delay_seconds": WAITS_S,
    "retry_condition_fn": _can_pass,
}


@task(**PATIENT)
def look_around() -> list[Finding]:
    """What is due, and aliases put right where a process died before it could."""
    base = Base.now(load_params().retrain.base)
    with connected() as client:
        note_moves(client)
        seen = look(client, base)
        for name in seen.behind:
            follow(client, name)
    return seen.findings


@task(**PATIENT)
def look_again(job: Job) -> Job | None:
    """The student's job as it is due now, under its lock; None if it has been done meanwhile."""
    with connected() as client:
        return student_finding(client, Base.now(load_params().retrain.base), job.student).job


@task(**PATIENT)
def begin(job: Job, via: str) -> None:
    """The start, in the log."""
    steps.begin(job, via)


@task(**PATIENT)
def find_start(job: Job) -> Start:
    """What training begins with."""
    start = champion_start(job.student, job.base)
    print(f"{job.student}: {start.told}", flush=True)
    return start


@task(cache_policy=NO_CACHE)
def prepare(job: Job, start: Start) -> Path:
    """The workspace."""
    return workspace.prepare(
        student=job.student,
        key=job.key,
        base=job.base,
        teacher=job.teacher,
        profile=None,
        inputs=Path(job.inputs) if job.inputs else None,
        start=start.record,
    )


@task(**PATIENT)
def pairs(space: Path, job: Job) -> None:
    """The new teacher's pairs; how far it is from the old one is shown before training is paid for."""
    stages(space, job, "curate")
    told = steps.measure_teacher_drift(space, job, steps.papers(job), load_params().retrain.teacher_samples)
    if told:
        create_markdown_artifact(f"# {job.student}: {job.title}\n\n{told}", key=f"teacher-drift-{job.student}")


@task(**PATIENT)
def teach(space: Path, job: Job) -> None:
    """The rest of the stages: the candidate and its bundle."""
    stages(space, job, STAGES[-1])


def stages(space: Path, job: Job, until: str) -> None:
    """Bring the workspace up to date; what failed on a rotten cache object is tried again without it."""
    try:
        workspace.understudy(space, "run", job.student, "--until", until)
    except TryAgain:
        raise
    except UserError:
        steps.heal(space)
        raise


@task(cache_policy=NO_CACHE)
def judge(space: Path, job: Job) -> Judged:
    """Candidate against champion; `settle`, which calls it, is tried again as a whole."""
    folder = steps.papers(job)
    state, champion = steps.fetch_champion(job.student, folder)
    steps.compare(space, job.student, champion, folder)
    judged = steps.judge(space, job.student, folder, upon=state)
    steps.wait_for_quiet(judged, folder)
    create_markdown_artifact((folder / steps.TABLE).read_text(), key=f"gate-{job.student}")
    return judged


@task(**PATIENT)
def settle(job: Job, space: Path, via: str) -> Outcome:
    """Judge and, upon the same champion, register and promote or refuse."""
    return steps.settle(job, space, steps.papers(job), judge(space, job), via)


@flow(name="retrain", flow_run_name="retrain-{via}")
def retrain(teacher: str = "", student: str = "", via: str = "schedule") -> list[Outcome]:
    """Retrain what is due: of one teacher's students, of one student, or of all; one after the other."""
    findings = look_around()
    for finding in findings:
        print(f"{finding.student or 'registry'}: {finding.told}", flush=True)
    due = [finding.job for finding in findings if finding.job]
    wanted = [job for job in due if teacher in ("", job.teacher["name"]) and student in ("", job.student)]
    outcomes, failures = [], []
    for job in wanted:
        try:
            outcomes += retrain_one(job, via)
        except (UserError, OSError) as error:  # the other students are not to wait for this one
            failures.append(f"{job.student}: {error}")
    if failures:
        raise UserError("; ".join(failures))
    return outcomes


def retrain_one(job: Job, via: str) -> list[Outcome]:
    """Retrain a student until nothing is due for it, unless another process is at it already."""
    outcomes = []
    with steps.alone(job.student) as we_are:
        if not we_are:
            told = "another process is retraining it; this one has nothing to add"
            print(f"{job.student}: {told}", flush=True)
            return [Outcome(student=job.student, kind="busy", reason=told)]
        # A drift's job is not found by looking; it is done once.
        now = job if job.inputs else look_again(job)
        for _ in range(ROUNDS):
            if now is None:
                break
            outcomes.append(_through(now, via))
            now = None if job.inputs else look_again(job)
    return outcomes


def _through(job: Job, via: str) -> Outcome:
    """All steps of one job."""
    print(f"{job.student}: retraining by {job.title}: {job.why}", flush=True)
    begin(job, via)
    try:
        space = prepare(job, find_start(job))
        pairs(space, job)
        teach(space, job)
        outcome = settle(job, space, via)
    except TryAgain:
        raise
    except (UserError, OSError) as error:
        steps.fail(job, error, via)
        raise
    workspace.remove(space)
    print(f"{job.student}: {outcome.kind}, version {outcome.version}: {outcome.reason}", flush=True)
    return outcome


def retrain_for_drift(name: str, folder: Path, digest: str) -> list[Outcome]:
    """Retrain a student by its champion's teacher on its inputs and the recent ones, once per set of recent inputs."""
    base = Base.now(load_params().retrain.base)
    with connected() as client:
        state = read_state(client, name)
        teacher = base.params.block(name).teacher.model_dump()
        if state.champion:
            teacher = pin_of(version(client, name, state.champion))
    job = job_for(base, name, teacher, f"its inputs have drifted ({folder})", inputs=str(folder), of=digest)
    if state.champion:  # the same teacher again follows no bump: one that is due stays due
        job = replace(job, pinned=state.pinned, production=state.production)
    if job.key in state.outcomes:
        print(f"{name}: retrained on these inputs before: {state.outcomes[job.key]}", flush=True)
        return []
    return retrain_one(job, "drift")
