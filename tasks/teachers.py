"""Teachers as registered models: `teacher.NAME`, a version per digest, the alias `production` for the one to teach by.

A version holds the teacher's block of params.yaml, so that a retrain can set the pin from it. Moving the alias, here or
in MLflow's own pages, asks for a retrain; the pin in git follows on the retrain's branch.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from models.errors import UserError
from models.teachers.digests import teacher_digest
from tasks.audit import LogRecord
from tasks.classification.network_params import ImageTeacher, TextTeacher
from tasks.mlflow_client import unless_there
from tasks.params import NAME
from tasks.registry import ALL_VERSIONS, PRODUCTION, TEACHER, Version, append, last_records, record, search_models
from tasks.teacher_params import Teacher

if TYPE_CHECKING:
    from tasks.mlflow_client import Client

Pin = dict[str, Any]  # a `teacher:` block of params.yaml
_SCHEMA: TypeAdapter[Any] = TypeAdapter(Teacher | ImageTeacher | TextTeacher)


def read_pin(raw: Any, where: str) -> Pin:
    """A teacher block from outside, checked as params.yaml is; a UserError that says where it came from."""
    try:
        return dict(_SCHEMA.validate_python(raw).model_dump())
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "top level"
        raise UserError(f"{where}: {key}: {first['msg']}: give a teacher block as in params.yaml") from None


def pin_of(made: Version) -> Pin:
    """The teacher block of a registered student."""
    where = f"student {made.student} version {made.version} in MLflow"
    return read_pin(json.loads(made.tags.get("teacher.pin", "null")), where)


def register_teacher(client: "Client", pin: Mapping[str, Any]) -> int:
    """The version of `teacher.NAME` that stands for this pin; registered if there is none of its digest."""
    name, digest = str(pin["name"]), teacher_digest(pin)
    if not NAME.fullmatch(name):
        raise UserError(f"teacher name {name!r}: use small letters, digits and -, beginning with a letter")
    unless_there(lambda: client.create_registered_model(TEACHER + name))
    for known in _versions(client, name):
        if known.tags.get("teacher.digest") == digest:
            return int(known.version)
    tags = {
        "teacher.name": name,
        "teacher.version": str(pin["version"]),
        "teacher.digest": digest,
        "pin": json.dumps(dict(pin), sort_keys=True),
    }
    made = client.create_model_version(TEACHER + name, f"understudy:/{digest}", tags=tags)
    return int(made.version)


def _versions(client: "Client", name: str) -> list[Any]:
    found = client.search_model_versions(f"name = '{TEACHER}{name}'", max_results=ALL_VERSIONS)
    return sorted(found, key=lambda one: int(one.version))


def production_pins(client: "Client") -> tuple[dict[str, Pin], list[str]]:
    """Each registered teacher's name and the pin its alias `production` stands for; and lines on what is none."""
    aliased = {
        model.name: int(model.aliases[PRODUCTION])
        for model in search_models(client, TEACHER)
        if PRODUCTION in model.aliases
    }
    if not aliased:
        return {}, []
    found = client.search_model_versions(f"name LIKE '{TEACHER}%'", max_results=ALL_VERSIONS)
    pins, wrong = {}, []
    for one in found:
        if aliased.get(one.name) == int(one.version):
            where = f"{one.name} version {one.version} in MLflow"
            try:
                pin = read_pin(json.loads(one.tags.get("pin", "null")), where)
            except (UserError, ValueError) as error:  # one that cannot be read must not stop all others
                wrong.append(str(error))
                continue
            if TEACHER + pin["name"] == one.name:
                pins[pin["name"]] = pin
            else:
                wrong.append(f"{where}: its pin names another teacher, {pin['name']}")
    return pins, wrong


def set_production(client: "Client", name: str, version: int, reason: str) -> bool:
    """Move a teacher's alias `production`, with a record in its log; False if it stands there already."""
    known = {int(one.version): one for one in _versions(client, name)}
    if version not in known:
        told = ", ".join(map(str, known)) or "none"
        raise UserError(f"teacher {name} has no version {version} in MLflow; there are: {told}")
    model = client.get_registered_model(TEACHER + name)
    before = int(model.aliases.get(PRODUCTION, 0))
    if before == version:
        return False
    digest = known[version].tags["teacher.digest"]
    moved = record("production", reason, version=version, previous=before, teacher=digest)
    append(client, TEACHER + name, moved)
    client.set_registered_model_alias(TEACHER + name, PRODUCTION, str(version))
    return True


def note_moves(client: "Client") -> list[LogRecord]:
    """Put into the logs what moved a teacher's alias without us (MLflow's pages do); returns the new records."""
    noted = []
    last = last_records(client, TEACHER)
    for model in search_models(client, TEACHER):
        there = int(model.aliases.get(PRODUCTION, 0))
        newest = last.get(model.name)
        known = int(newest.tags["version"]) if newest else 0
        if there != known:
            told = f"found at {there or 'nothing'}, moved by someone outside Understudy"
            noted.append(append(client, model.name, record("production", told, version=there, previous=known)))
    return noted
