"""Why a student's picture is what it is: from one input back to the training pairs, and a verdict in words.

Reads pairs/, raw/, student/ and exported/ of data/students/NAME, and one picture. Writes OUT (default:
data/trace/NAME/DIGEST of the picture): trace.json and index.html with the input, what the student and its phone's file
make of it, the training pairs nearest to it in what the student sees, what the teacher made of those (which teacher,
with what words and seed), how well the student knew each when its training ended and its phone's file does now, and
whether data, teacher, capacity or quantisation is at fault (tasks/trace_verdict.py).

Command: understudy trace IMAGE --student NAME [--out FOLDER] [--pairs 8]
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.effect import describe
from models.errors import UserError
from tasks.charts import png
from tasks.features import centre_square, level_features
from tasks.files import (
    check_sha256,
    read_json,
    read_jsonl,
    replacing_folder,
    sha256_bytes,
    write_bytes,
    write_json,
    write_text,
)
from tasks.neighbours import Neighbours
from tasks.pair_errors import DIGITS, errors_of
from tasks.params import load_params
from tasks.pictures import Unfit, decode_picture
from tasks.quality import Model, of_torch, open_file, scale, shown_file, to_bytes
from tasks.raw import read_manifest
from tasks.records import Input, Pair, Record, read_made, read_records
from tasks.stage import STUDENTS
from tasks.trace_memory import Memory, remember
from tasks.trace_verdict import Sign, capacity, copied, quantisation, to_json, under_represented, verdict
from tasks.usual import in_words

Pictures = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

TRACES = Path("data/trace")
INPUTS = Path("data/inputs/inputs.jsonl")
TEMPLATE = Path(__file__).with_name("trace.html")
# Pairs whose likeness to the picture has a say: a share of all, within bounds.
NEAR_SHARE, NEAR_LEAST, NEAR_MOST = 0.02, 12, 64
BELOW_WORST_DB = 3.0  # int8 on this picture against the worst validation picture


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
    unusual: str  # what the teacher did to it that it rarely does, in words
    named: bool  # the student has it from this pair, among others


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """All that was found."""

    name: str
    image: str  # file name
    sha256: str  # of the file
    pictures: Mapping[str, Pictures]  # input, student, int8: (S,S,3)
    teacher: Mapping[str, Any]  # raw/teacher.json
    signs: list[Sign]
    near: list[Near]
    named: Rows  # all rows that the student has it from
    memory: Memory


def look(name: str, picture: Pictures, count: int) -> tuple[dict[str, Pictures], list[Sign], list[Near], Rows, Memory]:
    """Trace one picture (S,S,3) uint8 of the student's size; `count` pairs are told of, all are looked at."""
    import torch

    from models.students import load_student
    from models.torch_setup import prepare_torch

    folder = STUDENTS / name
    pairs, record, exported = read_made(folder)
    prepare_torch(torch.get_num_threads())
    memory = remember(name, pairs, record)
    student = load_student(folder / "student")
    phone = open_phone(folder, exported)
    pictures = made_of(student, phone, picture)
    features = level_features(folder / "student", [picture])
    index = Neighbours(memory.features)
    near_count = int(np.clip(NEAR_SHARE * len(memory.inputs), NEAR_LEAST, NEAR_MOST))
    distances, rows = index.nearest(features, max(count, near_count))
    near = rows[0, :near_count]
    scene, effect = describe(picture[None], pictures["student"][None])
    own = memory.usual.deviations(scene, effect)[0]
    then = known_errors(folder, student, memory, rows[0].tolist())
    sign, named = copied(memory.deviations, near, own)
    signs = [
        *float_and_phone(exported, pictures, name),
        under_represented(float(distances[0, 0]), between_inputs(index, memory)),
        sign,
        fit(folder, memory, near, then),
    ]
    told = tell(folder, memory, rows[0, :count], distances[0], then, phone, set(named.tolist()))
    return pictures, signs, told, named, memory


def open_phone(folder: Path, exported: Mapping[str, Any]) -> Model:
    """The phone's file as a function; UserError for one that is not what was exported."""
    name = shown_file(exported["files"], "int8")
    record = next(one for one in exported["files"] if one["file"] == name)
    check_sha256(folder / "exported" / name, record["sha256"], "exported model")
    return open_file(folder / "exported" / name, record["runtime"])


def made_of(student: Any, phone: Model, picture: Pictures) -> dict[str, Pictures]:
    """The picture, and what the float student and the phone's file make of it, (S,S,3) uint8 each."""
    import torch

    with torch.inference_mode():
        made = to_bytes(of_torch(student)(picture[None]))[0]
    return {"input": picture, "student": made, "int8": to_bytes(phone(picture[None]))[0]}


def known_errors(folder: Path, student: Any, memory: Memory, rows: Sequence[int]) -> dict[int, float]:
    """The float student's error on these rows, as its training left it where that was kept."""
    kept = read_json(folder / "student" / "errors.json")
    known = dict(zip(kept["rows"], kept["error"], strict=True))
    rest = [row for row in rows if row not in known]
    known |= dict(zip(rest, errors_of(student, memory.inputs, memory.targets, rest), strict=True))
    return {row: known[row] for row in rows}


def float_and_phone(exported: Mapping[str, Any], pictures: Mapping[str, Pictures], name: str) -> list[Sign]:
    """The sign of quantisation."""
    from models.metrics import psnr_db, to_tensor

    phone = shown_file(exported["files"], "int8")
    worst = next(one["parity"]["worst_psnr_db"] for one in exported["files"] if one["file"] == phone)
    found = float(psnr_db(to_tensor(scale(pictures["int8"])[None]), to_tensor(scale(pictures["student"])[None])))
    least = max(load_params().student(name).gate.min_int8_psnr_db, worst - BELOW_WORST_DB)
    return [quantisation(found, round(least, 1), phone)]


def between_inputs(index: Neighbours, memory: Memory) -> Values:
    """Of each training pair the distance to the nearest of another input, (N,); of one input alone all are infinite."""
    inputs = np.unique([one.input for one in memory.verdicts], return_inverse=True)[1]
    most = int(np.bincount(inputs).max())
    distances, rows = index.of_each_other(most)
    distances = np.where(inputs[rows] == inputs[:, None], np.inf, distances)
    nearest: Values = distances.min(axis=1).astype(np.float64)
    return nearest


def fit(folder: Path, memory: Memory, near: Rows, then: Mapping[int, float]) -> Sign:
    """The sign of capacity, from how well the student knew the pairs near by and all as its training ended."""
    kept = read_json(folder / "student" / "errors.json")
    change = changes(memory, kept["rows"])
    overall = 1 - sum(kept["error"]) / max(float(change.sum()), 1e-12)
    asked = changes(memory, near.tolist())
    if asked.sum() == 0:
        return capacity(None, overall)
    return capacity(1 - sum(then[int(row)] for row in near) / float(asked.sum()), overall)


def changes(memory: Memory, rows: Sequence[int]) -> Values:
    """Mean squared error of leaving each input as it is, values in [0,1]."""
    differences = ((memory.inputs[row].astype(np.float32) - memory.targets[row]) / 255 for row in rows)
    return np.array([float(np.square(one).mean()) for one in differences])


def tell(
    folder: Path,
    memory: Memory,
    rows: Rows,
    distances: npt.NDArray[Any],
    then: Mapping[int, float],
    phone: Model,
    named: set[int],
) -> list[Near]:
    """What is told of these pairs."""
    chosen = {memory.verdicts[row].pair for row in rows.tolist()}
    records = {
        pair["id"]: Pair.from_json(pair)
        for line in read_manifest(folder / "raw")
        for pair in read_jsonl(folder / "raw" / f"{line['shard']}.jsonl")
        if pair["id"] in chosen
    }
    origins = {one.digest: one.origin for one in read_records(INPUTS, Input)}
    deviations = memory.deviations
    found = []
    for place, row in enumerate(rows.tolist()):
        one = memory.verdicts[row]
        if one.pair not in records:
            raise UserError(f"{folder}/raw has no pair {one.pair}, which pairs/kept.jsonl lists: run dvc repro")
        found.append(
            Near(
                row=row,
                pair=one.pair,
                input=one.input,
                origin=origins.get(one.input, "drawn by the teacher" if not one.input else one.input),
                distance=round(float(distances[place]), 3),
                seed=one.seed,
                strength=records[one.pair].strength,
                change=round(float(changes(memory, [row])[0]), DIGITS),
                error_then=then[row],
                error_now=round(error_of(phone, memory, row), DIGITS),
                unusual=in_words(deviations[row]),
                named=row in named,
            )
        )
    return found


def error_of(phone: Model, memory: Memory, row: int) -> float:
    """Mean squared error of the phone's file on one row."""
    made = np.clip(phone(np.asarray(memory.inputs[row : row + 1])), 0, 1)
    return float(np.square(made - scale(memory.targets[row : row + 1])).mean())


def read_picture(path: Path, size: int) -> tuple[Pictures, str]:
    """The middle of a picture file at the student's size, and the file's sha256; UserError where it is none."""
    try:
        data = path.read_bytes()
        pixels = decode_picture(data)
    except Unfit as unfit:
        raise UserError(f"{path} cannot be traced ({unfit}): give a photo") from None
    return centre_square(pixels, size), sha256_bytes(data)


def trace(image: Path, name: str, out: Path | None, count: int) -> tuple[Path, Traced]:
    """Trace one picture file and write the page; returns its folder and what was found."""
    block = load_params().student(name)
    picture, sha256 = read_picture(image, block.pairs.size)
    pictures, signs, near, named, memory = look(name, picture, count)
    found = Traced(
        name=name,
        image=image.name,
        sha256=sha256,
        pictures=pictures,
        teacher=read_json(STUDENTS / name / "raw" / "teacher.json"),
        signs=signs,
        near=near,
        named=named,
        memory=memory,
    )
    out = out or TRACES / name / sha256[:16]
    write(out, found)
    return out, found


def write(out: Path, found: Traced) -> None:
    """Write trace.json, index.html and its pictures."""
    with replacing_folder(out) as folder:
        for label, picture in found.pictures.items():
            write_bytes(folder / "images" / f"{label}.png", png(picture))
        for one in found.near:
            write_bytes(folder / "images" / f"pair-{one.row}-input.png", png(np.asarray(found.memory.inputs[one.row])))
            write_bytes(
                folder / "images" / f"pair-{one.row}-teacher.png", png(np.asarray(found.memory.targets[one.row]))
            )
        told: dict[str, Any] = {"student": found.name, "image": {"file": found.image, "sha256": found.sha256}}
        told |= to_json(found.signs) | {"teacher": dict(found.teacher)}
        told |= {"near": [one.to_json() for one in found.near]}
        told |= {"named": [found.memory.verdicts[row].pair for row in found.named.tolist()]}
        write_json(folder / "trace.json", told)
        write_text(folder / "index.html", render(told))


def render(told: Mapping[str, Any]) -> str:
    """index.html of what trace.json holds."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    prompt = told["teacher"].get("call", {}).get("prompt", "")
    return environment.from_string(TEMPLATE.read_text()).render(told=told, prompt=prompt)


def in_lines(found: Traced) -> list[str]:
    """The verdict and its reasons for a terminal."""
    lines = [f"{found.image}: {verdict(found.signs)}"]
    lines += [f"  {'!' if sign.found else ' '} {sign.kind}: {sign.told}" for sign in found.signs]
    return lines
