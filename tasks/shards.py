"""Shards of pairs: the unit that a worker makes, a kill can cost and a resume trusts.

A shard is raw/shard-NNNNN.safetensors with `inputs` and `targets` (n,S,S,3) uint8, and raw/shard-NNNNN.jsonl
with the Pair records in the same order. done/shard-NNNNN.json is written last and says that both are whole:
the shard's line for manifest.jsonl, and the seconds the teacher took.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.errors import UserError
from models.teachers import Refusing, Sampler, Teacher
from tasks.files import read_json, sha256_bytes, sha256_file, write_bytes, write_json
from tasks.occluders import occlude
from tasks.pictures import Pixels, crop_and_resize, expose, read_input, turn_hue
from tasks.records import Pair, write_records

Values = npt.NDArray[np.float32]
TOLERANCE = 1 / 512  # half a step of uint8


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """All that a worker needs to make one shard."""

    name: str  # shard-00000
    pairs: tuple[Pair, ...]  # as planned: what the teacher gave is filled in when the shard is made
    origins: Mapping[str, str]  # Input.digest -> Input.origin, to name an input in an error
    folder: Path  # holds raw/ and done/
    images: Path  # holds DIGEST.png
    size: int
    batch_size: int
    teacher: Mapping[str, Any]  # its settings

    @property
    def tensors(self) -> Path:
        """Where the pixels go."""
        return self.folder / "raw" / f"{self.name}.safetensors"

    @property
    def records(self) -> Path:
        """Where the Pair records go."""
        return self.folder / "raw" / f"{self.name}.jsonl"

    @property
    def done(self) -> Path:
        """Written once the two others are whole."""
        return self.folder / "done" / f"{self.name}.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What the teacher made of a shard's inputs, in their order."""

    targets: Pixels  # (n,S,S,3)
    drawn: Pixels | None  # (n,S,S,3): the inputs too, where the teacher drew these
    finite: list[bool]
    clipped: list[float]
    strengths: list[float | None]  # where the teacher says them
    disagreements: list[float | None]  # of its two answers, where it was asked twice
    refusals: list[str]  # why the teacher will not make a picture; "" where it did, or does not say
    seconds: float  # the teacher took


def make_shard(job: Job, teacher: Teacher) -> None:
    """Ask the teacher for every pair of the shard and write it, whole or not at all."""
    inputs = cut(job)
    write_shard(job, inputs, answer(job, inputs, teacher))


def cut(job: Job) -> Pixels | None:
    """(n,S,S,3): the crops, scaled; each image is decoded once for its neighbouring pairs.

    None where the teacher is to draw the inputs too; a shard's pairs are all of one kind.
    """
    if not job.pairs[0].input:
        return None
    crops, digest = [], ""
    for pair in job.pairs:
        if pair.input != digest:
            digest, pixels = pair.input, read_input(job.images, pair.input)
        crops.append(staged(pixels, pair, job.size))
    return np.stack(crops)


def staged(pixels: Pixels, pair: Pair, size: int) -> Pixels:
    """(size,size,3): the pair's crop of its input, changed as its record says; what teacher and student see."""
    crop = turn_hue(crop_and_resize(pixels, pair.crop, size), pair.hue)
    return expose(occlude(crop, pair.occluder, pair.seed), pair.stops, pair.gamma)


def answer(job: Job, inputs: Pixels | None, teacher: Teacher) -> Answers:
    """The teacher's answers to the inputs (n,S,S,3), on one thread; reads and writes no file of the shard.

    Raises a UserError that names the input it fails on.
    """
    steps = [slice(at, at + job.batch_size) for at in range(0, len(job.pairs), job.batch_size)]
    started = time.perf_counter()
    with one_thread():
        shown, values = _joined([_ask(teacher, _some(inputs, step), job.pairs[step], job) for step in steps])
        disagreements = [_disagreement(job, shown, values, row, teacher) for row in range(len(job.pairs))]
    seconds = time.perf_counter() - started
    finite = np.isfinite(values)
    known = np.where(finite, values, 0)
    outside = (known < -TOLERANCE) | (known > 1 + TOLERANCE)
    whole = [bool(each.all()) for each in finite]
    return Answers(
        # In C order: safetensors writes a transposed array's memory as it lies, which would scramble the picture.
        targets=np.rint(np.clip(known, 0, 1) * 255).astype(np.uint8, order="C"),
        drawn=shown if inputs is None else None,
        finite=whole,
        clipped=[float(each.mean()) for each in outside],
        disagreements=disagreements,
        strengths=[teacher.strength(pair.seed) if isinstance(teacher, Sampler) else None for pair in job.pairs],
        refusals=[
            teacher.refusal(shown[row], pair.seed) if isinstance(teacher, Refusing) and not whole[row] else ""
            for row, pair in enumerate(job.pairs)
        ],
        seconds=seconds,
    )


def _disagreement(job: Job, shown: Pixels, values: Values, row: int, teacher: Teacher) -> float | None:
    """Root mean square difference of the teacher's answer of a row and one with another seed, if it is asked again.

    None where either is no picture: that is another matter than two pictures.
    """
    pair = job.pairs[row]
    if pair.again is None:
        return None
    _, other = _ask(teacher, shown[row : row + 1], [replace(pair, seed=pair.again)], job)
    first, second = values[row], other[0]
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return None
    return round(float(np.square(np.clip(first, 0, 1) - np.clip(second, 0, 1)).mean() ** 0.5), 6)


def write_shard(job: Job, inputs: Pixels | None, answers: Answers) -> None:
    """Write a shard and then the word that it is whole."""
    from safetensors.numpy import save

    shown = answers.drawn if inputs is None else inputs
    assert shown is not None
    data = save({"inputs": shown, "targets": answers.targets})
    write_bytes(job.tensors, data)
    write_records(job.records, _told(job.pairs, answers))
    line = {
        "shard": job.name,
        "sha256": sha256_bytes(data),
        "records_sha256": sha256_file(job.records),
        "pairs": len(job.pairs),
    }
    write_json(job.done, {"line": line, "teacher_seconds": answers.seconds})


def _told(pairs: Sequence[Pair], answers: Answers) -> list[Pair]:
    """The pairs as planned, with what the teacher said of each."""
    said = zip(answers.finite, answers.clipped, answers.strengths, answers.refusals, answers.disagreements, strict=True)
    return [
        replace(pair, finite=finite, clipped=clipped, strength=strength, refused=refused, disagreement=disagreement)
        for pair, (finite, clipped, strength, refused, disagreement) in zip(pairs, said, strict=True)
    ]


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep BLAS to one thread: more would add sums in another order and change bits."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(1):
        yield


def is_whole(job: Job) -> bool:
    """Whether the shard is there with the bytes it was written with."""
    try:
        line = read_json(job.done)["line"]
        found = [sha256_file(job.tensors), sha256_file(job.records)]
        return found == [line["sha256"], line["records_sha256"]] and line["pairs"] == len(job.pairs)
    except (UserError, OSError, KeyError, TypeError):
        return False


def _ask(teacher: Teacher, crops: Pixels | None, pairs: Sequence[Pair], job: Job) -> tuple[Pixels, Values]:
    """The inputs of one batch and the teacher's answers, which draws both where there are no crops.

    A UserError names the input the teacher fails on.
    """
    try:
        inputs, values = _asked(teacher, crops, [pair.seed for pair in pairs], job.size)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - a teacher may raise anything
        if len(pairs) > 1:  # ask again one by one, to find which
            ones = [slice(i, i + 1) for i in range(len(pairs))]
            return _joined([_ask(teacher, _some(crops, one), pairs[one], job) for one in ones])
        what = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise UserError(f"{_who(job)} fails on {_which(job, pairs[0])}: {what}; mend or exclude it") from None
    if values.shape != inputs.shape:
        raise UserError(f"{_who(job)} gives {values.shape} for {_which(job, pairs[0])} of {inputs.shape}: fix it")
    return inputs, values.astype(np.float32, copy=False)


def _asked(teacher: Teacher, crops: Pixels | None, seeds: Sequence[int], size: int) -> tuple[Pixels, Values]:
    if crops is not None:
        return crops, np.asarray(teacher(crops, seeds))
    assert isinstance(teacher, Sampler), "params.yaml asks only these for samples"
    return teacher.sample(size, seeds)


def _some(crops: Pixels | None, rows: slice) -> Pixels | None:
    return None if crops is None else crops[rows]


def _joined(batches: Sequence[tuple[Pixels, Values]]) -> tuple[Pixels, Values]:
    return np.concatenate([inputs for inputs, _ in batches]), np.concatenate([values for _, values in batches])


def _who(job: Job) -> str:
    return f"teacher {job.teacher['name']} v{job.teacher['version']}"


def _which(job: Job, pair: Pair) -> str:
    if not pair.input:
        return f"the pair it draws from seed {pair.seed}"
    return f"input {pair.input[:12]} ({job.origins[pair.input]}) crop {list(pair.crop)}"
