"""The chain of a registered student, teacher -> pairs -> student -> files, each link checked against what is on disk.

What the registry says is compared with the bundle in MLflow's artifact store, with the dvc.lock kept beside it and with
the objects in DVC's cache that the lock names.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from models.errors import UserError
from models.teachers.digests import teacher_digest
from models.teachers.pinned import places
from tasks.cache import check_outputs
from tasks.files import sha256_file
from tasks.git import commit_id
from tasks.manifest import MANIFEST, Manifest, read_manifest
from tasks.mlflow_client import connected
from tasks.pipeline import cache_folder
from tasks.registry import Version, fetch_bundle, read_state, version
from tasks.teachers import pin_of

Verdict = Literal["ok", "DIFFERS", "not here"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One link of the chain."""

    what: str
    verdict: Verdict
    told: str


def trace(name: str) -> list[Link]:
    """The links of `STUDENT` (its champion) or `STUDENT/NUMBER`."""
    student, _, number = name.partition("/")
    if number and not number.isdigit():
        raise UserError(f"{name!r}: give STUDENT or STUDENT/NUMBER, such as oil/3")
    with connected() as client, tempfile.TemporaryDirectory() as temporary:
        wanted = int(number) if number else read_state(client, student).champion
        if not wanted:
            raise UserError(f"{student} has no champion yet: understudy retrain {student}")
        found = version(client, student, wanted)
        folder = Path(temporary)
        links = [_teacher(found)]
        try:
            manifest = read_manifest(fetch_bundle(client, found, folder / "bundle") / MANIFEST)
        except UserError as error:
            return [*links, Link(what="bundle", verdict="DIFFERS", told=str(error))]
        links += _bundle(found, manifest)
        lock = client.download_artifacts(found.run_id, "retrain/dvc.lock", temporary)
        links += _cache(found, Path(lock))
    return [*links, _commit(found)]


def _teacher(found: Version) -> Link:
    pin, digest = pin_of(found), found.tags["teacher.digest"]
    title = f"{pin['name']} version {pin['version']} {digest}"
    if teacher_digest(pin) != digest:
        return Link(what="teacher", verdict="DIFFERS", told=f"{title}: by today's code it is {teacher_digest(pin)}")
    for place in places(pin):
        if not place.is_here:
            return Link(what="teacher", verdict="not here", told=f"{title}: nothing lies at {place.where}")
        try:
            place.check(pin["name"])
        except UserError:
            return Link(what="teacher", verdict="DIFFERS", told=f"{title}: {place.where}")
    read = ", ".join(place.where for place in places(pin))
    return Link(what="teacher", verdict="ok", told=f"{title}: {read}" if read else title)


def _bundle(found: Version, manifest: Manifest) -> Iterator[Link]:
    """The registry's digests against the manifest's; the files' own were checked when they were fetched."""
    digests = manifest.digests
    pairs = {
        "teacher": (found.tags["teacher.digest"], digests.teacher.digest),
        "pairs": (found.tags["pairs.digest"], digests.pairs),
        "student": (found.tags["weights.sha256"], digests.weights),
    }
    for what, (registered, shipped) in pairs.items():
        told = f"{registered} (bundle's manifest)"
        yield Link(what=what, verdict="ok" if registered == shipped else "DIFFERS", told=told)
    for entry in manifest.loaded:
        yield Link(what="file", verdict="ok", told=f"{entry.file} {entry.sha256}")
    yield Link(what="bundle", verdict="ok", told=found.tags["bundle.sha256"])


def _cache(found: Version, path: Path) -> Iterator[Link]:
    """dvc.lock as registered, and what it names in DVC's cache."""
    if sha256_file(path) != found.tags["dvc_lock.sha256"]:
        yield Link(what="dvc.lock", verdict="DIFFERS", told="the one kept in MLflow is not the registered one")
        return
    yield Link(what="dvc.lock", verdict="ok", told=found.tags["dvc_lock.sha256"])
    lock: dict[str, Any] = yaml.safe_load(path.read_text())
    own = {
        name: stage
        for name, stage in lock["stages"].items()
        if "@" not in name or name.partition("@")[2] == found.student
    }
    cache = cache_folder()
    for name, stage in own.items():
        what = name.partition("@")[0]
        wrong = check_outputs({"stages": {name: stage}}, cache)
        for line in wrong:
            yield Link(what=what, verdict="DIFFERS" if "is corrupt" in line else "not here", told=line)
        if not wrong:
            yield Link(what=what, verdict="ok", told=", ".join(out["path"] for out in stage.get("outs", ())))


def _commit(found: Version) -> Link:
    commit = found.tags["git.commit"]
    told = f"{commit} {found.tags.get('branch', '')}".strip()
    try:
        commit_id(commit)
    except UserError:
        return Link(what="commit", verdict="not here", told=told)
    return Link(what="commit", verdict="ok", told=told)
