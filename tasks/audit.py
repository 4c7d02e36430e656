"""The audit log: what happened to a registered model, record by record, and the state that follows from it.

The log is the truth and MLflow's aliases follow it, since they have neither a history nor a compare-and-set. A move of
the champion names the record of the move it was decided upon (`decided_on`); if another move came between, the
record stays in the log, but is void. So two promotions at once cannot overwrite each other: the order of the
records, which the registry numbers, decides. Pure: no I/O here, tasks/registry.py keeps the records.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from tasks.records import Record

Kind = Literal[
    "started",  # a retrain of `key` has begun
    "registered",  # its student is version `version`, the challenger from now on
    "awaiting",  # it passed the gate and waits for a person's yes
    "promoted",  # it became the champion
    "refused",  # it did not pass the gate
    "rejected",  # a person said no
    "failed",  # its retrain ended with an error that running again alone does not mend
    "reopened",  # a person asked for the retrain again
    "rolled-back",  # the champion before became champion again
    "restored",  # an alias that had been moved by hand, or not at all, was put where the log says
    "production",  # of a teacher: the version meant to be taught by
]
MOVES = ("promoted", "rolled-back")
# Of outcomes, failures and champions the state keeps the last: its copy is a tag, of 5,000 characters.
KEPT = 20
OUTCOMES = ("awaiting", "promoted", "refused", "rejected")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRecord(Record):
    """One record of a log; `seq` is given by the registry when it is appended."""

    kind: Kind
    at: str  # UTC, ISO 8601
    by: str  # who or what did it
    reason: str  # a sentence
    seq: int = 0
    key: str = ""  # of the retrain it belongs to
    version: int = 0  # of the registered model
    previous: int = 0  # the champion's version before a move
    decided_on: int = 0  # of a move: `moved` of the state it was decided upon
    teacher: str = ""  # digest of the version's teacher
    pinned: str = ""  # digest of the teacher that git pinned when this was asked for
    production: str = ""  # digest of the teacher that the alias `production` stood at then, if anywhere
    via: str = ""  # what started it: schedule, event, webhook, ci, drift or a person


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentState(Record):
    """What a student's log comes to."""

    seq: int = 0  # of the last record
    moved: int = 0  # of the last move of the champion that counts
    champion: int = 0  # version; 0: there is none
    challenger: int = 0
    teacher: str = ""  # digest of the champion's
    pinned: str = ""  # digest of git's pin that the champion followed: if git pins another, that is a bump
    production: str = ""  # the same of the alias `production`
    since: str = ""  # when the champion became champion
    reason: str = ""  # of the last outcome or move
    history: tuple[int, ...] = ()  # champions before this one, the latest last
    outcomes: dict[str, str] = field(default_factory=dict)  # retrain's key -> its last outcome
    begun: dict[str, str] = field(default_factory=dict)  # keys without an outcome -> when begun
    failures: dict[str, int] = field(default_factory=dict)  # retrain's key -> how often it failed

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """As read from JSON, which has no tuples."""
        return super(StudentState, cls).from_json(value | {"history": tuple(value["history"])})


def counts(record: LogRecord, state: StudentState) -> bool:
    """Whether a record takes effect: a move only if it was decided upon the champion there is."""
    return record.kind not in MOVES or record.decided_on == state.moved


def after(state: StudentState, record: LogRecord) -> StudentState:
    """The state after one more record."""
    state = replace(state, seq=record.seq)
    if not counts(record, state):
        # Its retrain has no outcome: it has to be judged again, against the champion there is now.
        return state
    if record.kind == "started":
        return replace(state, begun=_last(state.begun | {record.key: record.at}))
    if record.kind == "registered":
        return replace(state, challenger=record.version)
    if record.kind in MOVES:
        state = _moved(state, record)
    if record.kind == "failed":
        failures = state.failures | {record.key: state.failures.get(record.key, 0) + 1}
        state = replace(state, failures=_last(failures))
    if record.kind == "reopened":
        state = _reopened(state, record)
    if record.kind in OUTCOMES and record.key:
        begun = {key: at for key, at in state.begun.items() if key != record.key}
        state = replace(state, outcomes=_last(state.outcomes | {record.key: record.kind}), begun=begun)
    if record.kind != "restored":
        state = replace(state, reason=record.reason[:500])
    return state


def _last(found: dict[str, Any]) -> dict[str, Any]:
    return dict(list(found.items())[-KEPT:])


def _moved(state: StudentState, record: LogRecord) -> StudentState:
    back = record.kind == "rolled-back"
    history = state.history[:-1] if back else (*state.history, *([state.champion] if state.champion else []))
    challenger = 0 if state.challenger == record.version else state.challenger
    return replace(
        state,
        moved=record.seq,
        champion=record.version,
        challenger=challenger,
        teacher=record.teacher,
        pinned=record.pinned,
        production=record.production,
        since=record.at,
        history=history[-KEPT:],
        # What was promoted before is no longer in place: should it be asked for again, it is to be made again.
        outcomes={key: outcome for key, outcome in state.outcomes.items() if back or outcome != "promoted"},
    )


def _reopened(state: StudentState, record: LogRecord) -> StudentState:
    return replace(
        state,
        outcomes={key: outcome for key, outcome in state.outcomes.items() if key != record.key},
        failures={key: count for key, count in state.failures.items() if key != record.key},
        # What git pins and the registry promotes counts as new again, also what was rolled back from.
        pinned="",
        production="",
    )


def replay(records: Iterable[LogRecord]) -> StudentState:
    """The state that a log, in the order of its numbers, comes to."""
    state = StudentState()
    for record in sorted(records, key=lambda one: one.seq):
        state = after(state, record)
    return state
