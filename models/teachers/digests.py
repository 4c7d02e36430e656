"""What identifies a teacher, told from its `teacher:` block alone: nothing is loaded, nothing heavy imported.

A retrain asks for it for every student each time it looks for new teachers, a thousand at once.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

# Raise a kind's number when its output changes: pairs made by other code must not be taken for these.
CODE_VERSIONS = {
    "painter": 1,
    "onnx": 1,
    "diffusers": 1,
    "genai": 1,
    "stylegan2": 1,
    "student": 1,
    "several": 1,
    "network": 1,
    "transformers": 1,
    "chat": 1,
}


def _painter(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: settings[key] for key in ("style", "name", "version")}


def _onnx(settings: Mapping[str, Any]) -> dict[str, Any]:
    # The bytes decide all of the output; what the file is called or where it lies does not.
    return {"sha256": settings["sha256"]}


def _diffusers(settings: Mapping[str, Any]) -> dict[str, Any]:
    # As above; of a model on the hub the revision is only how to find the bytes.
    identity = {key: settings[key] for key in ("sha256", "call", "scheduler", "size", "dtype")}
    control = settings.get("control")
    return identity | {"control": {key: control[key] for key in ("sha256", "shows")} if control else None}


def _stylegan2(settings: Mapping[str, Any]) -> dict[str, Any]:
    # Where the files lie says nothing; a direction or a CLIP is told by its sha256, as the generator is.
    edit = {key: value for key, value in settings["edit"].items() if key not in ("path", "clip")}
    clip, perceptual = settings["edit"].get("clip"), settings.get("perceptual")
    return {
        **{key: settings[key] for key in ("sha256", "strength", "truncation", "inversion")},
        "edit": edit | ({"clip": clip["sha256"]} if clip else {}),
        "perceptual": perceptual["sha256"] if perceptual else None,
    }


def _genai(settings: Mapping[str, Any]) -> dict[str, Any]:
    # What may be spent changes no picture.
    return {key: settings[key] for key in ("model", "call", "size")}


def _network(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: settings[key] for key in ("sha256", "architecture")}


def _folder(settings: Mapping[str, Any]) -> dict[str, Any]:
    # How long a text may be says what becomes of a longer one; pictures have no such keys.
    limits = {key: settings[key] for key in ("max_tokens", "truncate") if settings.get(key) is not None}
    return {"sha256": settings["sha256"], **limits}


def _chat(settings: Mapping[str, Any]) -> dict[str, Any]:
    from models.teachers.chat_classifier import identity

    api = settings["api"]
    return identity(f"{api['name']} v{api['version']}", api["model"], settings["classes"], settings["labels"])


def _several(settings: Mapping[str, Any]) -> dict[str, Any]:
    # What each of them is, and how their answers or pictures are put together.
    if "mean_of" in settings:
        parts = [[teacher_digest(part["teacher"]), part["weight"]] for part in settings["teachers"]]
        return {"mean_of": settings["mean_of"], "teachers": parts}
    return {"by": settings["by"], "teachers": [_part(part) for part in settings["teachers"]]}


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    mask = part.get("mask")
    told = {"teacher": teacher_digest(part["teacher"]), "mask": mask["sha256"] if mask else None}
    return told | {key: part.get(key) for key in ("weight", "region")}


IDENTITY: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "painter": _painter,
    "onnx": _onnx,
    "diffusers": _diffusers,
    "genai": _genai,
    "stylegan2": _stylegan2,
    "student": _folder,
    "several": _several,
    "network": _network,
    "transformers": _folder,
    "chat": _chat,
}


def teacher_digest(settings: Mapping[str, Any]) -> str:
    """Hex sha256 of everything that decides the output of the teacher a `teacher:` block of params.yaml describes."""
    kind = settings["kind"]
    return identity_digest(kind, IDENTITY[kind](settings))


def identity_digest(kind: str, identity: Mapping[str, Any]) -> str:
    """The same, of what a kind says that decides its output."""
    identity = {"kind": kind, "code": CODE_VERSIONS[kind], **identity}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
