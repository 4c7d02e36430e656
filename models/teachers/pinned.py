"""What a teacher is read from, as its `teacher:` block of params.yaml pins it: files and folders, each by its sha256.

Cheap to ask: nothing is loaded, nothing heavy imported, and no file is read but to check it.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from models.errors import UserError
from models.teachers.folders import fetch, file_sha256, folder_sha256, loaded_files


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A file, or a model in a folder, here or on the hub."""

    key: str  # in the block, such as "path"
    where: str
    sha256: str
    revision: str = ""  # of a model on the hub

    @property
    def is_here(self) -> bool:
        """Whether it lies on this machine; what has a revision can be had from the hub else."""
        return Path(self.where).exists()

    def local(self) -> Path:
        """The file or folder on this machine; fetched from the hub if need be."""
        place = Path(self.where)
        return place if place.is_file() else fetch(self.where, self.revision)

    def files(self) -> list[Path]:
        """The files that are read, as they lie on this machine."""
        place = self.local()
        return [place] if place.is_file() else loaded_files(place)

    def found(self) -> tuple[Path, str]:
        """Where it lies on this machine, and the sha256 of its bytes."""
        place = self.local()
        return place, file_sha256(place) if place.is_file() else folder_sha256(place)

    def check(self, name: str) -> Path:
        """The file or folder if its bytes are the pinned ones; a UserError that says what to do if they are not."""
        place, sha256 = self.found()
        if sha256 != self.sha256:
            told = f"{self.where} has sha256 {sha256}, expected {self.sha256}"
            raise UserError(f"teacher {name}: {told}: restore it or change the pin")
        return place


def _onnx(settings: Mapping[str, Any]) -> list[Place]:
    return [Place(key="path", where=settings["path"], sha256=settings["sha256"])]


def _several(settings: Mapping[str, Any]) -> list[Place]:
    found = []
    for number, part in enumerate(settings["teachers"]):
        below = places(part["teacher"])
        found += [replace(place, key=f"teachers.{number}.teacher.{place.key}") for place in below]
        if mask := part.get("mask"):
            found.append(Place(key=f"teachers.{number}.mask.path", where=mask["path"], sha256=mask["sha256"]))
    return found


def _diffusers(settings: Mapping[str, Any]) -> list[Place]:
    return _models({"model": settings, "control.model": settings.get("control")})


def _stylegan2(settings: Mapping[str, Any]) -> list[Place]:
    edit, perceptual = settings["edit"], settings.get("perceptual")
    files = {"edit.path": edit if "path" in edit else None, "perceptual.path": perceptual}
    return _models({"model": settings, "edit.clip.model": edit.get("clip")}) + [
        Place(key=key, where=block["path"], sha256=block["sha256"]) for key, block in files.items() if block
    ]


def _models(blocks: Mapping[str, Mapping[str, Any] | None]) -> list[Place]:
    """A place for each block that names a model; None names none."""
    return [
        Place(key=key, where=block["model"], sha256=block["sha256"], revision=block.get("revision", ""))
        for key, block in blocks.items()
        if block
    ]


PLACES: dict[str, Callable[[Mapping[str, Any]], list[Place]]] = {
    "onnx": _onnx,
    "diffusers": _diffusers,
    "stylegan2": _stylegan2,
    "student": _onnx,  # a folder at `path`
    "network": _onnx,  # of classifiers
    "transformers": _onnx,
    "several": _several,
}


def lead_to(block: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    """The block that holds the key of a place, and its last word there; a number leads into a list."""
    *path, last = key.split(".")
    below: Any = block
    for part in path:
        below = below[int(part)] if isinstance(below, list) else below[part]
    return below, last


def without_places(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a block that does not say where its files lie, or a server is and what it costs.

    That is no part of what a teacher is.
    """
    told = copy.deepcopy(dict(settings))
    if "api" in told:
        told["model"] = told.pop("api")["model"]
    for place in places(settings):
        below, last = lead_to(told, place.key)
        del below[last]
    return told


def parts(settings: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The blocks of the teachers that paint: those of `several`, else the block itself."""
    return [part["teacher"] for part in settings["teachers"]] if settings["kind"] == "several" else [settings]


def places(settings: Mapping[str, Any]) -> list[Place]:
    """What the teacher of a block reads; nothing for one without weights."""
    return PLACES[settings["kind"]](settings) if settings["kind"] in PLACES else []
