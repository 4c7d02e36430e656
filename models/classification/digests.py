"""What identifies a classifier's teacher, and which files it is read from, told from its `teacher:` block alone."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from models.teachers import pinned
from models.teachers.pinned import Place

# Raise a kind's number when its answers change: answers of other code must not be taken for these.
CODE_VERSIONS = {"network": 1, "student": 1, "transformers": 1, "several": 1}
# What decides the answers besides the bytes that are read.
DECIDING = {"network": ("architecture",), "student": (), "transformers": ()}


def teacher_digest(settings: Mapping[str, Any]) -> str:
    """Hex sha256 of everything that decides the answers of the teacher a block describes; where files lie does not."""
    kind = settings["kind"]
    if kind == "chat":
        from models.teachers.chat_classifier import classifier_digest

        return classifier_digest(settings)
    identity: dict[str, Any] = {"kind": kind, "code": CODE_VERSIONS[kind]}
    if kind == "several":
        parts = [[teacher_digest(part["teacher"]), part["weight"]] for part in settings["teachers"]]
        identity |= {"mean_of": settings["mean_of"], "teachers": parts}
    else:
        identity |= {key: settings[key] for key in ("sha256", *DECIDING[kind])}
        # How long a text may be says what becomes of a longer one; pictures have no such keys.
        identity |= {key: settings[key] for key in ("max_tokens", "truncate") if settings.get(key) is not None}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def places(settings: Mapping[str, Any]) -> list[Place]:
    """The files and folders that a teacher is read from, each with its pin."""
    if settings["kind"] == "several":
        return [place for part in settings["teachers"] for place in places(part["teacher"])]
    if settings["kind"] == "chat":
        return []
    return [Place(key="path", where=settings["path"], sha256=settings["sha256"])]


def without_places(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A block that does not say where files lie or a server is and what it costs, which is no part of the teacher."""
    if settings["kind"] != "chat":
        return pinned.without_places(settings)
    told = dict(settings)
    told["model"] = told.pop("api")["model"]
    return told
