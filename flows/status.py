"""`understudy status`: what git pins, what the registry says, what is pending, and what lies here, per student."""

import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from flows.headline import try_headline
from models.errors import UserError
from tasks.audit import StudentState
from tasks.bumps import Base, Finding, look
from tasks.mlflow_client import connected, is_configured, or_none
from tasks.params import AnyStudent, Params, load_params
from tasks.pipeline import stale_stages, targets_of
from tasks.registry import STUDENT, Version, version
from tasks.stage import STUDENTS


def report(only: str) -> Iterator[str]:
    """The lines of one student, or of all."""
    params = load_params()
    names = [only] if only else list(params.every)
    registry, problem = _registry(params)
    if problem:
        yield f"registry: {problem}"
    for name in names:
        block = params.block(name)
        yield f"{name}:"
        for what, told in (*_pinned(params, name, block), *registry.get(name, ()), *_here(params, name)):
            yield f"  {what:<11}{told}"


def _pinned(params: Params, name: str, block: AnyStudent) -> Iterator[tuple[str, str]]:
    teacher = block.teacher
    told = f"{teacher.name} version {teacher.version} ({teacher.kind})"
    with suppress(UserError):  # no git repository, or nothing committed
        base = Base.at(params.retrain.base)
        committed = base.params.every.get(name)
        told += f", pinned at {params.retrain.base}"
        if committed is None or committed.teacher != teacher:
            was = f"{committed.teacher.name} version {committed.teacher.version}" if committed else "none"
            told = f"{was} at {params.retrain.base}; here, not committed: {teacher.name} version {teacher.version}"
    yield "teacher", told


def _registry(params: Params) -> tuple[dict[str, list[tuple[str, str]]], str]:
    """Rows from the registry by student, and why there are none if there are none."""
    if not is_configured():
        return {}, ""
    try:
        base = Base.at(params.retrain.base)
        with connected() as client:
            seen = look(client, base)
            rows = {}
            for finding in seen.findings:
                if finding.student in seen.states or finding.job:
                    state = seen.states.get(finding.student, StudentState())
                    rows[finding.student] = list(_rows(client, finding, state))
            return rows, "; ".join(finding.told for finding in seen.findings if not finding.student)
    except UserError as error:
        return {}, str(error)


def _rows(client: Any, finding: Finding, state: StudentState) -> Iterator[tuple[str, str]]:
    if state.champion:
        made = version(client, finding.student, state.champion)
        yield "champion", f"version {made.version}, {_age(state.since)}; taught by {_taught(made)}"
        yield "gate", f"{made.tags.get('gate', '?')}: {made.tags.get('gate.reason', '')}"
    else:
        yield "champion", "none"
    if state.challenger and state.challenger != state.champion:
        made = version(client, finding.student, state.challenger)
        told = f"version {made.version}, taught by {_taught(made)}; "
        yield "challenger", f"{told}gate {made.tags.get('gate', '?')}: {made.tags.get('gate.reason', '')}"
    yield "drift", _drift(client, finding.student)
    begun = "; ".join(f"a retrain ({key:.8}) began {_age(at)} and has not ended" for key, at in state.begun.items())
    yield "pending", "; ".join(part for part in (finding.told, begun) if part)


def _taught(made: Version) -> str:
    return f"{made.tags.get('teacher.name')} version {made.tags.get('teacher.version')}"


def _drift(client: Any, student: str) -> str:
    model = or_none(lambda: client.get_registered_model(STUDENT + student))
    found = json.loads(model.tags.get("drift", "null")) if model else None
    return f"{found['told']} ({_age(found['at'])})" if found else "not measured"


def _age(at: str) -> str:
    seconds = (datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds()
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _here(params: Params, name: str) -> Iterator[tuple[str, str]]:
    """The checkout: stages, and the bundle's figures."""
    stale = stale_stages(name, params)
    yield "up to date", ", ".join(stage for stage in targets_of(name, params) if stage not in stale) or "nothing"
    if stale:
        yield "stale", f"{', '.join(stale)} (run: understudy run {name})"
    if (STUDENTS / name / "bundle" / "manifest.json").exists():
        yield from try_headline(name)
