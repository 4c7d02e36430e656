"""What `understudy trace` writes and prints: trace.json and the page, from trace.html (Jinja2 with autoescape on)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks import templates
from tasks.charts import png
from tasks.files import replacing_folder, write_bytes, write_json, write_text
from tasks.records import Record
from tasks.trace_memory import Memory
from tasks.trace_verdict import Sign, to_json, verdict

Pictures = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]

TEMPLATE = Path(__file__).with_name("trace.html")


@dataclass(frozen=True, slots=True, kw_only=True)
class Near(Record):
    """A training pair near the picture, for page and trace.json."""

    row: int
    pair: str  # Pair.id
    input: str  # Input.digest
    origin: str
    distance: float
    seed: int
    strength: float | None
    change: float  # mean squared error of leaving the input as it is
    error_then: float  # of the student as its training ended
    error_now: float  # of the phone's file
    scores: dict[str, float]  # of curation, by rule
    nearest_limits: str  # the rules that came nearest to dropping it, in words
    unusual: str  # what the teacher did to it that it rarely does, in words
    named: bool  # unusual in the way of the student's picture, which has it from such


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """All that was found."""

    name: str
    pictures: Mapping[str, Pictures]  # input, student, int8: (S,S,3)
    teacher: Mapping[str, Any]  # raw/teacher.json
    signs: list[Sign]
    near: list[Near]
    named: Rows  # all rows that are unusual in its way, where the student has it from them
    memory: Memory


def write(out: Path, found: Traced, file: str, sha256: str) -> None:
    """Write trace.json, index.html and its pictures; `file` is the picture's name, `sha256` its bytes'."""
    with replacing_folder(out) as folder:
        for label, picture in found.pictures.items():
            write_bytes(folder / "images" / f"{label}.png", png(picture))
        for one in found.near:
            write_bytes(folder / "images" / f"pair-{one.row}-input.png", png(np.asarray(found.memory.inputs[one.row])))
            write_bytes(
                folder / "images" / f"pair-{one.row}-teacher.png", png(np.asarray(found.memory.targets[one.row]))
            )
        told: dict[str, Any] = {"student": found.name, "image": {"file": file, "sha256": sha256}}
        told |= to_json(found.signs) | {"teacher": dict(found.teacher)}
        told |= {"near": [one.to_json() for one in found.near]}
        told |= {"named": [found.memory.verdicts[row].pair for row in found.named.tolist()]}
        write_json(folder / "trace.json", told)
        write_text(folder / "index.html", render(told))


def render(told: Mapping[str, Any]) -> str:
    """index.html of what trace.json holds."""
    prompt = told["teacher"].get("call", {}).get("prompt", "")
    return templates.render(TEMPLATE, told=told, prompt=prompt)


def in_lines(found: Traced) -> list[str]:
    """The verdict and its reasons for a terminal."""
    lines = [f"{found.name}: {verdict(found.signs)}"]
    lines += [f"  {'!' if sign.found else ' '} {sign.kind}: {sign.told}" for sign in found.signs]
    return lines
