"""Shards of pairs: the unit that a worker makes, a kill can cost and a resume trusts.

A shard is raw/shard-NNNNN.safetensors with `inputs` and `targets` (n,S,S,3) uint8, and raw/shard-NNNNN.jsonl
with the Pair records in the same order. done/shard-NNNNN.json is written last and says that both are whole:
the shard's line for manifest.jsonl, and the seconds the teacher took.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.errors import UserError
from models.teachers import Teacher
from tasks.files import read_json, sha256_bytes, sha256_file, write_bytes, write_json
from tasks.pictures import Pixels, crop_and_resize, read_input, turn_hue
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


def make_shard(job: Job, teacher: Teacher) -> None:
    """Ask the teacher for every pair of the shard and write it, whole or not at all."""
    from safetensors.numpy import save

    inputs = _crops(job)
    started = time.perf_counter()
    steps = range(0, len(job.pairs), job.batch_size)
    values = [_ask(teacher, inputs[at : at + job.batch_size], job.pairs[at : at + job.batch_size], job) for at in steps]
    seconds = time.perf_counter() - started
    pairs, targets = _quantised(job.pairs, np.concatenate(values))
    data = save({"inputs": inputs, "targets": targets})
    write_bytes(job.tensors, data)
    write_records(job.records, pairs)
    line = {
        "shard": job.name,
        "sha256": sha256_bytes(data),
        "records_sha256": sha256_file(job.records),
        "pairs": len(pairs),
    }
    write_json(job.done, {"line": line, "teacher_seconds": seconds})


def is_whole(job: Job) -> bool:
    """Whether the shard is there with the bytes it was written with."""
    try:
        line = read_json(job.done)["line"]
        found = [sha256_file(job.tensors), sha256_file(job.records)]
        return found == [line["sha256"], line["records_sha256"]] and line["pairs"] == len(job.pairs)
    except (UserError, OSError, KeyError, TypeError):
        return False


def _crops(job: Job) -> Pixels:
    """(n,S,S,3): the crops, scaled; each image is decoded once for its neighbouring pairs."""
    crops, digest = [], ""
    for pair in job.pairs:
        if pair.input != digest:
            digest, pixels = pair.input, read_input(job.images, pair.input)
        crops.append(turn_hue(crop_and_resize(pixels, pair.crop, job.size), pair.hue))
    return np.stack(crops)


def _ask(teacher: Teacher, inputs: Pixels, pairs: Sequence[Pair], job: Job) -> Values:
    """The teacher's answer for one batch; a UserError that names the input it fails on."""
    try:
        values = np.asarray(teacher(inputs, [pair.seed for pair in pairs]))
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - a teacher may raise anything
        if len(pairs) > 1:  # ask again one by one, to find which
            return np.concatenate([_ask(teacher, inputs[i : i + 1], [pair], job) for i, pair in enumerate(pairs)])
        what = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise UserError(f"{_who(job)} fails on {_which(job, pairs[0])}: {what}; mend or exclude it") from None
    if values.shape != inputs.shape:
        raise UserError(f"{_who(job)} gives {values.shape} for {_which(job, pairs[0])} of {inputs.shape}: fix it")
    return values.astype(np.float32, copy=False)


def _who(job: Job) -> str:
    return f"teacher {job.teacher['name']} v{job.teacher['version']}"


def _which(job: Job, pair: Pair) -> str:
    return f"input {pair.input[:12]} ({job.origins[pair.input]}) crop {list(pair.crop)}"


def _quantised(pairs: Sequence[Pair], values: Values) -> tuple[list[Pair], Pixels]:
    """The records with what the teacher gave, and its values as uint8 (what is not finite becomes 0)."""
    finite = np.isfinite(values)
    known = np.where(finite, values, 0)
    outside = (known < -TOLERANCE) | (known > 1 + TOLERANCE)
    records = [
        replace(pair, finite=bool(finite[i].all()), clipped=float(outside[i].mean())) for i, pair in enumerate(pairs)
    ]
    # In C order: safetensors writes a transposed array's memory as it lies, which would scramble the picture.
    return records, np.rint(np.clip(known, 0, 1) * 255).astype(np.uint8, order="C")
