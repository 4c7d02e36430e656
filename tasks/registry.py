"""Teachers and students as registered models in MLflow, and the log that says which student is champion.

`teacher.NAME` and `student.NAME` are the models; `log.student.NAME` and `log.teacher.NAME` are their audit logs
(tasks/audit.py), registered models too, whose versions are the records: MLflow numbers them, so they have one order
wherever they come from. Aliases (`champion`, `challenger`, `production`) and the tag `state` are copies of what
the log says, made again by `follow`. A student's version points at the run that holds its bundle.
"""

import getpass
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from models.errors import TryAgain, UserError
from tasks.audit import Kind, LogRecord, StudentState, counts, replay
from tasks.files import read_json, sha256_file
from tasks.manifest import MANIFEST, verify_bundle
from tasks.mlflow_client import TAG_LENGTH, experiment_id, or_none, unless_there

if TYPE_CHECKING:
    from tasks.mlflow_client import Client

STUDENT, TEACHER, LOG = "student.", "teacher.", "log."
CHAMPION, CHALLENGER, PRODUCTION = "champion", "challenger", "production"
MANY = 1000  # a page of registered models
ALL_VERSIONS = 100_000
LONGEST = 4000  # characters of a description or of a model's tag; a database may hold 5,000
NUMBERS = tuple(one.name for one in fields(LogRecord) if one.type is int)


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A registered student."""

    student: str
    version: int
    run_id: str  # of the pipeline run that made it and holds its bundle
    tags: Mapping[str, str]

    @classmethod
    def of(cls, found: Any) -> Self:
        """From MLflow's entity."""
        student = found.name.removeprefix(STUDENT)
        return cls(student=student, version=int(found.version), run_id=found.run_id or "", tags=dict(found.tags))


def record(kind: Kind, reason: str, **values: Any) -> LogRecord:
    """A record of now, by us."""
    by = os.environ.get("UNDERSTUDY_ACTOR") or getpass.getuser()
    return LogRecord(
        kind=kind, reason=reason[:LONGEST], at=datetime.now(UTC).isoformat(timespec="milliseconds"), by=by, **values
    )


def append(client: "Client", model: str, entry: LogRecord) -> LogRecord:
    """Put a record at the end of a model's log; returns it with its number."""
    log = LOG + model
    unless_there(lambda: client.create_registered_model(log, description=f"audit log of {model}; append only"))
    tags = {name: str(value) for name, value in entry.to_json().items() if name not in ("seq", "reason")}
    made = client.create_model_version(log, f"understudy:/{entry.kind}", tags=tags, description=entry.reason)
    return replace(entry, seq=int(made.version))


def read_log(client: "Client", model: str) -> list[LogRecord]:
    """All records of a model's log, oldest first; a UserError where one cannot be read."""
    found = client.search_model_versions(f"name = '{LOG}{model}'", max_results=ALL_VERSIONS)
    return sorted((_read(one) for one in found), key=lambda entry: entry.seq)


def _read(found: Any) -> LogRecord:
    values = {name: int(text) if name in NUMBERS else text for name, text in found.tags.items()}
    return LogRecord.from_json(values | {"seq": int(found.version), "reason": found.description or ""})


def read_state(client: "Client", student: str) -> StudentState:
    """A student's state, replayed from its log."""
    return replay(read_log(client, STUDENT + student))


def all_states(client: "Client") -> tuple[dict[str, StudentState], list[str]]:
    """Every student's state, and the students that `follow` has something to do for.

    Two queries for a thousand students: the state is read from its copy where that is as long as the log.
    """
    newest = last_records(client, STUDENT)
    ends = {model.removeprefix(STUDENT): int(one.version) if one else 0 for model, one in newest.items()}
    models = {model.name.removeprefix(STUDENT): model for model in search_models(client, STUDENT)}
    states, behind = {}, []
    for student, end in ends.items():
        model = models.get(student)
        copy = model.tags.get("state") if model else None
        state = StudentState.from_json(json.loads(copy)) if copy else StudentState()
        if state.seq != end:
            state = read_state(client, student)
            behind.append(student)
        elif model and _aliases(model) != _wanted_aliases(state):
            behind.append(student)
        states[student] = state
    return states, behind


def last_records(client: "Client", prefix: str) -> dict[str, Any]:
    """The newest version of the log of every model whose name begins with `prefix`, by model; one query for all."""
    logs = search_models(client, LOG + prefix)
    return {
        log.name.removeprefix(LOG): max(log.latest_versions or (), key=lambda one: int(one.version), default=None)
        for log in logs
    }


def _aliases(model: Any) -> dict[str, int]:
    return {alias: int(at) for alias, at in model.aliases.items() if alias in (CHAMPION, CHALLENGER)}


def _wanted_aliases(state: StudentState) -> dict[str, int]:
    both = {CHAMPION: state.champion, CHALLENGER: state.challenger}
    return {alias: at for alias, at in both.items() if at}


def search_models(client: "Client", prefix: str) -> Sequence[Any]:
    """All registered models whose name begins with `prefix`, page by page."""
    found: list[Any] = []
    token = None
    while True:
        page = client.search_registered_models(f"name LIKE '{prefix}%'", max_results=MANY, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def follow(client: "Client", student: str) -> StudentState:
    """Put aliases and the copy of the state where the log says they are; returns that state."""
    state = read_state(client, student)
    model = or_none(lambda: client.get_registered_model(STUDENT + student))
    if model is None:
        return state
    there, wanted = _aliases(model), _wanted_aliases(state)
    for alias in (CHAMPION, CHALLENGER):
        if alias in wanted and there.get(alias) != wanted[alias]:
            client.set_registered_model_alias(STUDENT + student, alias, str(wanted[alias]))
        elif alias in there and alias not in wanted:
            client.delete_registered_model_alias(STUDENT + student, alias)
    copied = json.loads(model.tags.get("state", "{}")).get("seq")
    if there != wanted and copied == state.seq:  # not merely behind the log: someone moved them
        told = f"aliases stood at {there or 'nothing'}, the log says {wanted or 'nothing'}"
        append(client, STUDENT + student, record("restored", told))
        state = read_state(client, student)
    client.set_registered_model_tag(STUDENT + student, "state", json.dumps(state.to_json(), sort_keys=True))
    return state


def note(client: "Client", student: str, entry: LogRecord) -> tuple[bool, StudentState]:
    """Append a record and let the aliases follow; returns whether it counts, and the state."""
    entry = append(client, STUDENT + student, entry)
    before = replay(one for one in read_log(client, STUDENT + student) if one.seq < entry.seq)
    return counts(entry, before), follow(client, student)


def register_student(
    client: "Client", student: str, *, key: str, run_id: str, tags: Mapping[str, str], reason: str
) -> Version:
    """The version of a retrain's student; the one there is if an earlier try has registered it."""
    unless_there(lambda: client.create_registered_model(STUDENT + student))
    for known in versions(client, student):
        if known.tags.get("key") == key and known.tags.get("bundle.sha256") == tags["bundle.sha256"]:
            return known
    short = {name: value[:TAG_LENGTH] for name, value in {**tags, "key": key}.items()}
    made = client.create_model_version(
        STUDENT + student, f"runs:/{run_id}/bundle", run_id=run_id, tags=short, description=reason[:LONGEST]
    )
    return Version.of(made)


def versions(client: "Client", student: str) -> list[Version]:
    """All versions of a student, oldest first."""
    found = client.search_model_versions(f"name = '{STUDENT}{student}'", max_results=ALL_VERSIONS)
    return sorted((Version.of(one) for one in found), key=lambda one: one.version)


def version(client: "Client", student: str, number: int) -> Version:
    """One version of a student; a UserError with the ones there are."""
    known = {one.version: one for one in versions(client, student)}
    if number not in known:
        raise UserError(f"student {student} has no version {number}; there are: {', '.join(map(str, known)) or 'none'}")
    return known[number]


def find_run(client: "Client", student: str, bundle_sha256: str) -> str:
    """The latest pipeline run that made this bundle."""
    wanted = f"tags.bundle.sha256 = '{bundle_sha256}' and attributes.status = 'FINISHED'"
    runs = client.search_runs([experiment_id(client, student)], wanted, order_by=["attributes.start_time DESC"])
    for run in runs:
        if "mlflow.parentRunId" not in run.data.tags:
            return str(run.info.run_id)
    raise TryAgain(f"MLflow has no run that made the bundle {bundle_sha256:.12} of {student}: run again to log it")


def keep_bundle(client: "Client", run_id: str, bundle: Path, documents: Sequence[Path]) -> None:
    """Keep a verified bundle, and what was decided about it, with the run that made it."""
    verify_bundle(bundle)
    client.log_artifacts(run_id, str(bundle), "bundle")
    for path in documents:
        client.log_artifact(run_id, str(path), "retrain")


def fetch_bundle(client: "Client", found: Version, folder: Path) -> Path:
    """Download a version's bundle to `folder`, verified file by file against the digest the registry holds."""
    with tempfile.TemporaryDirectory(dir=_made(folder.parent)) as temporary:
        got = _download(client, found, "bundle", temporary)
        verify_bundle(got)
        if sha256_file(got / MANIFEST) != found.tags.get("bundle.sha256"):
            raise UserError(
                f"the bundle of {found.student} version {found.version} in MLflow is not the registered one: "
                f"roll back (understudy rollback {found.student}) or restore the artifact store"
            )
        shutil.rmtree(folder, ignore_errors=True)
        got.rename(folder)
    return folder


def keep_student(client: "Client", run_id: str, folder: Path) -> None:
    """Keep a student's record, float weights and tokeniser, from which others may begin, with the run that made it."""
    tokenizer = ["tokenizer.json"] if (folder / "tokenizer.json").is_file() else []  # of texts
    for name in ("student.json", "weights.safetensors", *tokenizer):
        client.log_artifact(run_id, str(folder / name), "student")


def with_weights(client: "Client", sha256: str) -> list[Version]:
    """The versions of any student that have these float weights, the latest first."""
    found = client.search_model_versions(f"tags.`weights.sha256` = '{sha256}'", max_results=ALL_VERSIONS)
    made = [Version.of(one) for one in found if one.name.startswith(STUDENT)]
    return sorted(made, key=lambda one: one.version, reverse=True)


def fetch_student(client: "Client", found: Version, folder: Path) -> Path | None:
    """Download a version's student.json and weights below `folder`, verified; None if it was registered without."""
    if not (found.run_id and client.list_artifacts(found.run_id, "student")):
        return None
    got = _download(client, found, "student", str(_made(folder)))
    weights, wanted = got / "weights.safetensors", found.tags["weights.sha256"]
    told = read_json(got / "student.json")["weights_sha256"]
    if told != wanted or not weights.is_file() or sha256_file(weights) != wanted:
        raise UserError(
            f"the weights of {found.student} version {found.version} in MLflow are not the registered ones: "
            "restore the artifact store, or begin with others (retrain.start, init)"
        )
    return got


def _download(client: "Client", found: Version, what: str, folder: str) -> Path:
    try:
        return Path(client.download_artifacts(found.run_id, what, folder))
    except OSError as error:
        told = f"the {what} of {found.student} version {found.version} cannot be fetched: {error}"
        raise TryAgain(f"{told}: see whether the artifact store answers") from None


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def note_drift(client: "Client", student: str, result: Mapping[str, Any]) -> None:
    """Keep the last drift figures with the student, for `understudy status`."""
    unless_there(lambda: client.create_registered_model(STUDENT + student))
    short = {"told": str(result["told"])[:1000], "drifted": result["drifted"], "at": record("started", "").at}
    client.set_registered_model_tag(STUDENT + student, "drift", json.dumps(short, sort_keys=True))
