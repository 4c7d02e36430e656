"""What a person decides about a student's versions: promote or reject the one that waits, roll back, fetch, trace.

Every decision is a record in the audit log (tasks/audit.py) first and a moved alias second.
"""

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import TryAgain, UserError
from models.teachers.digests import teacher_digest
from tasks.audit import StudentState, after, counts
from tasks.mlflow_client import connected
from tasks.params import load_params
from tasks.pin import params_at
from tasks.registry import STUDENT, Version, fetch_bundle, note, read_log, read_state, record, version
from tasks.teachers import production_pins

if TYPE_CHECKING:
    from tasks.mlflow_client import Client


def promote(student: str, number: int | None, reason: str) -> str:
    """Make the challenger that waits (or another version that passed the gate) the champion; returns a line.

    Refused where the version did not pass, or passed against another champion than there is now.
    """
    with connected() as client:
        state = read_state(client, student)
        found = version(client, student, _challenger(student, state, number))
        if found.version == state.champion:
            return f"{student}: version {found.version} is the champion already"
        if found.tags.get("gate") != "passed":
            why = found.tags.get("gate.reason", "no verdict")
            raise UserError(
                f"{student} version {found.version} did not pass the gate ({why}): if the rules are wrong, change them "
                "in params.yaml, commit, and retrain"
            )
        if found.tags.get("decided_on") != str(state.moved):
            raise UserError(
                f"{student} version {found.version} was judged against another champion than version {state.champion}: "
                f"judge it again with understudy retrain {student} --again"
            )
        told = reason or "approved by a person"
        counted, _ = note(
            client,
            student,
            record("promoted", told, decided_on=state.moved, previous=state.champion, **_about(found)),
        )
        if not counted:
            raise TryAgain(f"another champion of {student} was promoted at the same moment: look at understudy status")
    return f"{student}: version {found.version} is the champion, was {state.champion or 'none'}"


def reject(student: str, number: int | None, reason: str) -> str:
    """Say no to a challenger; its teacher is not taught by again with this code unless someone asks."""
    with connected() as client:
        state = read_state(client, student)
        found = version(client, student, _challenger(student, state, number))
        if found.version == state.champion:
            raise UserError(f"{student} version {found.version} is the champion: understudy rollback {student}")
        note(client, student, record("rejected", reason or "rejected by a person", **_about(found)))
    return f"{student}: version {found.version} is rejected, the champion stays version {state.champion or 'none'}"


def rollback(student: str, reason: str) -> str:
    """Make the champion before this one champion again, after its bundle was fetched and verified."""
    with connected() as client:
        state = read_state(client, student)
        if not state.history:
            raise UserError(f"{student} has no champion before {state.champion or 'none'}: nothing to roll back to")
        found = version(client, student, state.history[-1])
        with tempfile.TemporaryDirectory() as temporary:
            fetch_bundle(client, found, Path(temporary) / "bundle")
        told = reason or f"rolled back from version {state.champion} by a person"
        about = _about(found) | {"key": "", **_now(client, student)}
        entry = record("rolled-back", told, decided_on=state.moved, previous=state.champion, **about)
        counted, after = note(client, student, entry)
        if not counted:
            raise TryAgain(f"the champion of {student} moved at the same moment: look at understudy status")
    return f"{student}: version {after.champion} is the champion again, was {state.champion}"


def fetch(student: str, number: int | None, folder: Path) -> str:
    """Put a version's bundle, the champion's unless told otherwise, verified, into `folder`."""
    if folder.exists():
        raise UserError(f"{folder} exists: name a folder that does not")
    with connected() as client:
        state = read_state(client, student)
        if not (number or state.champion):
            raise UserError(f"{student} has no champion yet: understudy retrain {student}")
        found = version(client, student, number or state.champion)
        fetch_bundle(client, found, folder)
    return f"{student}: version {found.version}, taught by {found.tags['teacher.name']} version " + (
        f"{found.tags['teacher.version']}: {folder}"
    )


def tell_log(student: str) -> Iterator[str]:
    """A line for each record of a student's audit log, oldest first."""
    with connected() as client:
        log = read_log(client, STUDENT + student)
    state = StudentState()
    for entry in log:
        void = "" if counts(entry, state) else " (void: another move came first)"
        state = after(state, entry)
        which = f" version {entry.version}" if entry.version else ""
        yield f"{entry.seq:>4}  {entry.at}  {entry.by:<12} {entry.kind}{which}{void}: {entry.reason}"


def _challenger(student: str, state: StudentState, number: int | None) -> int:
    if not (number or state.challenger):
        raise UserError(f"{student} has no challenger: name a version (understudy status)")
    return number or state.challenger


def _about(found: Version) -> dict[str, object]:
    names = {"key": "key", "teacher": "teacher.digest", "pinned": "pinned", "production": "production"}
    tags = {name: found.tags.get(tag, "") for name, tag in names.items()}
    return {"version": found.version, "via": "a person", **tags}


def _now(client: "Client", student: str) -> dict[str, str]:
    """What git pins and the registry promotes: a rollback leaves all of that behind, until one of them moves."""
    params = load_params()
    with suppress(UserError):  # no commit to read
        params = params_at(params.retrain.base)
    if student not in params.every:
        return {"pinned": "", "production": ""}
    pin = params.every[student].teacher.model_dump()
    alias = production_pins(client)[0].get(pin["name"])
    return {"pinned": teacher_digest(pin), "production": teacher_digest(alias) if alias else ""}
