"""Why a student's picture is what it is: from one input back to the training pairs, and a verdict in words.

Reads pairs/, raw/, student/, exported/ and detector/ of data/students/NAME, and one picture. Writes OUT (default:
data/trace/NAME/DIGEST of the picture): trace.json and index.html with the input, what the student and its phone's file
make of it, the training pairs nearest to it in what the student sees, what the teacher made of those (which teacher,
with what words and seed), how well the student knew each when its training ended and its phone's file does now, and
whether data, teacher, capacity or quantisation is at fault (tasks/trace_verdict.py).

Command: understudy trace IMAGE --student NAME [--out FOLDER] [--pairs 8]
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.effect import describe
from models.errors import UserError
from models.spread import spread
from tasks.features import centre_square, level_features
from tasks.files import check_sha256, read_json, read_jsonl, sha256_bytes
from tasks.neighbours import Neighbours
from tasks.outside import open_score
from tasks.pair_errors import DIGITS, errors_of
from tasks.params import load_params
from tasks.pictures import Unfit, decode_picture
from tasks.quality import TORCH, Model, of_torch, open_file, painted, scale, shown_file
from tasks.raw import read_manifest
from tasks.records import Input, Pair, read_detector, read_made, read_records
from tasks.shortfall import change_of
from tasks.stage import STUDENTS
from tasks.trace_memory import Memory, remember
from tasks.trace_page import Near, Traced, write
from tasks.trace_verdict import Sign, capacity, copied, quantisation, under_represented
from tasks.usual import MANNER_OF, in_words, manner

Pictures = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

TRACES = Path("data/trace")
INPUTS = Path("data/inputs/inputs.jsonl")
# Pairs whose likeness to the picture has a say: a share of all, within bounds.
NEAR_SHARE, NEAR_LEAST, NEAR_MOST = 0.02, 12, 64
SEARCHED = 8  # times as many as are shown, which are not to be crops of one input all
OF_ONE_INPUT = 2
LIMITS_SHOWN = 2  # of curation, for each pair
BELOW_WORST_DB = 3.0  # int8 on this picture against the worst validation picture


def look(name: str, picture: Pictures, count: int) -> Traced:
    """Trace one picture (S,S,3) uint8 of the student's size; `count` pairs are told of, all are looked at."""
    import torch

    from models.students import load_student
    from models.torch_setup import prepare_torch

    folder = STUDENTS / name
    pairs, record, exported = read_made(folder)
    prepare_torch(torch.get_num_threads())
    memory = remember(name, pairs, record)
    network = load_student(folder / "student")
    student = of_torch(network)
    shown = shown_file(exported["files"], "int8")
    file = next(one for one in exported["files"] if one["file"] == shown)
    phone = open_phone(folder, file)
    pictures = {"input": picture}
    pictures |= {"student": painted(student, picture[None], TORCH)[0], "int8": painted(phone, picture[None], shown)[0]}
    features = level_features(folder / "student", [picture])
    index = Neighbours(memory.features)
    near_count = int(np.clip(NEAR_SHARE * len(memory.inputs), NEAR_LEAST, NEAR_MOST))
    distances, rows = index.nearest(features, max(SEARCHED * count, near_count))
    near = rows[0, :near_count]
    scene, effect = describe(picture[None], pictures["student"][None])
    known = memory.inputs[spread(len(memory.inputs), MANNER_OF)]
    own = memory.usual.deviations(scene, effect)[0]
    everywhere = manner(memory.usual, known, painted(student, known, TORCH))
    kept = read_json(folder / "student" / "errors.json")
    then = known_errors(kept, network, memory, rows[0].tolist())
    sign, named = copied(memory.deviations, near, own, everywhere)
    signs = [
        float_and_phone(file, pictures, load_params().student(name).gate.min_int8_psnr_db),
        under_represented(float(distances[0, 0]), between_inputs(index, memory), *outside(folder, picture)),
        sign,
        fit(kept, memory, near, then),
    ]
    places = apart(memory, rows[0], count)
    told = tell(folder, memory, rows[0, places], distances[0, places], then, phone, set(named.tolist()))
    teacher = read_json(folder / "raw" / "teacher.json")
    return Traced(name=name, pictures=pictures, teacher=teacher, signs=signs, near=told, named=named, memory=memory)


def apart(memory: Memory, rows: Rows, count: int) -> Rows:
    """Places in `rows` of the first `count` pairs, but no more than OF_ONE_INPUT of one input."""
    seen: Counter[str] = Counter()
    places: list[int] = []
    for place, row in enumerate(rows.tolist()):
        seen[memory.verdicts[row].input] += 1
        if seen[memory.verdicts[row].input] <= OF_ONE_INPUT:
            places.append(place)
    return np.array(places[:count], np.int64)


def open_phone(folder: Path, record: Mapping[str, Any]) -> Model:
    """The phone's file as a function; UserError for one that is not what was exported."""
    path = folder / "exported" / record["file"]
    check_sha256(path, record["sha256"], "exported model")
    return open_file(path, record["runtime"])


def known_errors(kept: Mapping[str, Any], student: Any, memory: Memory, rows: Sequence[int]) -> dict[int, float]:
    """The float student's error on these rows, as its training left it where errors.json, `kept`, has it."""
    known = dict(zip(kept["rows"], kept["error"], strict=True))
    rest = [row for row in rows if row not in known]
    known |= dict(zip(rest, errors_of(student, memory.inputs, memory.targets, rest), strict=True))
    return {row: known[row] for row in rows}


def float_and_phone(record: Mapping[str, Any], pictures: Mapping[str, Pictures], least_psnr_db: float) -> Sign:
    """The sign of quantisation; `record` is the phone's file's in exported.json, the last what the gate asks for."""
    from models.metrics import psnr_db, to_tensor

    found = float(psnr_db(to_tensor(pictures["int8"][None]), to_tensor(pictures["student"][None])))
    least = max(least_psnr_db, record["parity"]["worst_psnr_db"] - BELOW_WORST_DB)
    return quantisation(found, round(least, 1), record["file"])


def outside(folder: Path, picture: Pictures) -> tuple[float | None, str]:
    """The score of the bundle's detector, or None and why there is none."""
    record = read_detector(folder / "detector")
    if record["without"]:
        return None, record["without"]
    return open_score(folder / "detector", record)(picture), ""


def between_inputs(index: Neighbours, memory: Memory) -> Values:
    """Of each training pair the distance to the nearest of another input, (N,); of one input alone all are infinite."""
    inputs = np.unique([one.input for one in memory.verdicts], return_inverse=True)[1]
    most = int(np.bincount(inputs).max())
    distances, rows = index.of_each_other(most)
    distances = np.where(inputs[rows] == inputs[:, None], np.inf, distances)
    nearest: Values = distances.min(axis=1).astype(np.float64)
    return nearest


def fit(kept: Mapping[str, Any], memory: Memory, near: Rows, then: Mapping[int, float]) -> Sign:
    """The sign of capacity, from how well the student knew the pairs near by and all as its training ended."""
    change = sum(change_of(memory.inputs, memory.targets, kept["rows"]))
    overall = 1 - sum(kept["error"]) / max(change, 1e-12)
    asked = sum(change_of(memory.inputs, memory.targets, near.tolist()))
    if asked == 0:
        return capacity(None, overall)
    return capacity(1 - sum(then[int(row)] for row in near) / asked, overall)


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
    limits = {rule: told["limit"] for rule, told in read_json(folder / "pairs" / "curation.json")["rules"].items()}
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
                change=round(change_of(memory.inputs, memory.targets, [row])[0], DIGITS),
                error_then=then[row],
                error_now=round(error_of(phone, memory, row), DIGITS),
                scores=one.scores,
                nearest_limits=nearest_limits(one.scores, limits),
                unusual=in_words(deviations[row]),
                named=row in named,
            )
        )
    return found


def nearest_limits(scores: Mapping[str, float], limits: Mapping[str, float | None]) -> str:
    """The rules of curation that came nearest to dropping a pair: "cast 2.2 of 13.0, structure 0.05 of 0.60"."""
    shares = {rule: value / limit for rule, value in scores.items() if (limit := limits.get(rule))}
    nearest = sorted(shares, key=lambda rule: -shares[rule])[:LIMITS_SHOWN]
    return ", ".join(f"{rule} {scores[rule]:.2g} of {limits[rule]:.2g}" for rule in nearest)


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
    load_params().student(name)  # a name that is wrong is told with those there are
    picture, sha256 = read_picture(image, read_json(STUDENTS / name / "pairs" / "pairs.json")["size"])
    found = look(name, picture, count)
    out = out or TRACES / name / sha256[:16]
    write(out, found, image.name, sha256)
    return out, found
