"""What is due: which students are to be taught again, by which teacher, and why; told for every student in words.

Git is the truth: a student's teacher is the one params.yaml pins at the commit `retrain.base`. A registered teacher's
alias `production` may move first; such a bump is followed at once, and its pin is committed on the retrain's branch.
Whoever asks (a schedule, an event, a webhook, CI, a person) only makes us look here; what they say decides
nothing. So asking twice, late or in another order changes nothing, and what got lost is found at the next look.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from models.errors import UserError
from models.teachers.digests import teacher_digest
from tasks.audit import StudentState
from tasks.files import sha256_json
from tasks.git import commit_id, git
from tasks.params import Params
from tasks.pin import params_at
from tasks.records import Record
from tasks.starts import RECORDS

if TYPE_CHECKING:
    from tasks.mlflow_client import Client

DECIDES = ("tasks", "models", "dvc.yaml")  # in git: what a student's bytes depend on besides params.yaml
NOT_SETTINGS = {"students", "classifiers", "datasets", "profiles", "retrain", "drift"}
MAX_FAILURES = 3  # of one retrain; then it waits for a person
KEY_LENGTH = 16
Pin = Mapping[str, Any]  # a `teacher:` block of params.yaml


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(Record):
    """One retrain. Equal jobs have equal keys, whoever asks for them and however often."""

    student: str
    key: str  # of student, teacher's digest and code's digest; for a drift also of the recent inputs
    base: str  # the commit it starts from
    teacher: dict[str, Any]  # the block for params.yaml
    digest: str  # of that teacher
    pinned: str  # digest of the teacher that git pins
    production: str  # digest of the teacher that its alias `production` stands at, or ""
    why: str
    inputs: str = ""  # a folder of recent inputs to be taught too, after a drift

    @property
    def title(self) -> str:
        """The teacher in words."""
        return f"{self.teacher['name']} version {self.teacher['version']}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What there is to say about one student."""

    student: str
    told: str
    job: Job | None = None  # where a retrain is due


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A commit and what it says."""

    commit: str
    code: str  # digest of the code that makes students
    params: Params

    @classmethod
    def now(cls, ref: str) -> "Base":
        """The commit that counts; a remote's branch (origin/main) is fetched first, if the remote answers."""
        remote, _, branch = ref.partition("/")
        if branch and remote in git("remote").splitlines():
            try:
                git("fetch", "--quiet", remote, branch)
            except UserError as error:
                print(f"{ref} is as it was fetched last: {error}", file=sys.stderr)
        return cls.at(ref)

    @classmethod
    def at(cls, ref: str) -> "Base":
        """Read a commit."""
        commit = commit_id(ref)
        listed = git("ls-tree", "-r", commit, *DECIDES).splitlines()
        # What retrains' branches bring is no code: else to merge one would open others again.
        tree = [line for line in listed if f"\t{RECORDS.as_posix()}/" not in line]
        params = params_at(commit)
        shared = params.model_dump(exclude=NOT_SETTINGS)
        return cls(commit=commit, code=sha256_json([tree, shared]), params=params)

    def settings(self, student: str) -> str:
        """Digest of everything but the teacher that decides this student."""
        other = {"teacher", "approval"}
        if self.params.retrain.start == "champion":
            other |= {"init"}  # which the merge of a retrain's branch changes
        block = self.params.block(student).model_dump(exclude=other)
        dataset = self.params.dataset_of(student)
        return sha256_json([self.code, block, *([dataset.model_dump()] if dataset else [])])


def job_for(
    base: Base, student: str, teacher: Pin, why: str, *, production: Pin | None = None, inputs: str = "", of: str = ""
) -> Job:
    """The job that teaches `student` by `teacher`; `of` is the digest of recent inputs, if those are the cause."""
    digest = teacher_digest(teacher)
    cause = [student, digest, base.settings(student), *([of] if of else [])]
    return Job(
        student=student,
        key=sha256_json(cause)[:KEY_LENGTH],
        base=base.commit,
        teacher=dict(teacher),
        digest=digest,
        pinned=teacher_digest(base.params.block(student).teacher.model_dump()),
        production=teacher_digest(production) if production else "",
        why=why,
        inputs=inputs,
    )


def find(base: Base, student: str, production: Pin | None, state: StudentState) -> Finding:
    """What is due for one student; pure."""
    pin = base.params.block(student).teacher.model_dump()
    wanted, why = _wanted(pin, production, state)
    if wanted is None:
        return Finding(student=student, told=why)
    job = job_for(base, student, wanted, why, production=production)
    hindrance = _hindrance(job, state)
    return Finding(student=student, told=hindrance or f"retrain due: {why}", job=None if hindrance else job)


def _wanted(pin: Pin, production: Pin | None, state: StudentState) -> tuple[Pin | None, str]:
    """Which teacher the student should be taught by now, or None; and why.

    A bump is a pin, or an alias, that is another than the one the champion followed. If both moved, git is the truth.
    """
    pinned = teacher_digest(pin)
    alias = teacher_digest(production) if production else ""
    title = f"{pin['name']} version {pin['version']}"
    if not state.champion:
        return pin, "it has no champion yet"
    if pinned not in (state.pinned, state.teacher):
        return pin, f"git pins {title}"
    if production and alias not in (state.production, state.teacher):
        return production, f"production of {production['name']} moved to version {production['version']}"
    if pinned == state.teacher:
        if production and alias != state.teacher:
            return None, f"up to date; production stands at version {production['version']}"
        return None, "up to date"
    if alias == state.teacher:
        return None, f"the champion's teacher is ahead of git, which pins {title}: merge the retrain's branch"
    return None, f"git pins {title}, which was rolled back from; understudy retrain NAME --again takes it up again"


def _hindrance(job: Job, state: StudentState) -> str:
    """Why a retrain is not to be started, or nothing."""
    again = f"understudy retrain {job.student} --again"
    outcome = state.outcomes.get(job.key)
    if outcome == "awaiting":
        return f"taught by {job.title}, passed the gate and waits: understudy promote {job.student}, or reject"
    if outcome in ("refused", "rejected"):
        return f"the student of {job.title} was {outcome}: {state.reason} ({again})"
    if outcome == "promoted":
        return "up to date"
    if state.failures.get(job.key, 0) >= MAX_FAILURES:
        return f"the retrain for {job.title} failed {MAX_FAILURES} times: {state.reason} (mend it, then {again})"
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a look at everything found."""

    findings: list[Finding]  # in the order of params.yaml, after lines about what could not be read
    states: dict[str, StudentState]
    behind: list[str]  # students whose aliases are not where the log says


def look(client: "Client", base: Base) -> Seen:
    """Every student's finding; four queries, however many students there are."""
    from tasks.registry import all_states
    from tasks.teachers import production_pins

    states, behind = all_states(client)
    production, wrong = production_pins(client)
    findings = [Finding(student="", told=line) for line in wrong]
    for student, block in base.params.every.items():
        findings.append(find(base, student, production.get(block.teacher.name), states.get(student, StudentState())))
    return Seen(findings=findings, states=states, behind=behind)


def student_finding(client: "Client", base: Base, student: str) -> Finding:
    """One student's finding, from its log itself."""
    from tasks.registry import read_state
    from tasks.teachers import production_pins

    production, _ = production_pins(client)
    name = base.params.block(student).teacher.name
    return find(base, student, production.get(name), read_state(client, student))


def reopen(student: str) -> str:
    """Take up again what was refused, rejected, rolled back from or failed; returns a line."""
    from tasks.mlflow_client import connected
    from tasks.params import load_params
    from tasks.registry import note, read_state, record
    from tasks.teachers import production_pins

    base = Base.now(load_params().retrain.base)
    with connected() as client:
        production, _ = production_pins(client)
        pin = base.params.block(student).teacher.model_dump()
        alias = production.get(pin["name"])
        state = read_state(client, student)
        afresh = replace(state, pinned="", production="")
        wanted, _ = _wanted(pin, alias, afresh)
        if wanted is None:
            return f"{student}: nothing to take up again"
        job = job_for(base, student, wanted, "", production=alias)
        note(client, student, record("reopened", "asked for again", key=job.key, teacher=job.digest, via="person"))
    return f"{student}: the retrain by {job.title} is open again"
