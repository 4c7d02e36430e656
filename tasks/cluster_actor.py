"""What runs on the nodes of a Ray cluster: an actor that loads the teacher once and answers shard after shard.

Reads and writes nothing of the repository: a node has no file system in common with the driver
(tasks/cluster_driver.py), which sends the crops and writes what comes back. Only plain data crosses the network: JSON,
bytes and arrays.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from models.errors import TryAgain, UserError
from models.teachers import Teacher, load_teacher
from models.teachers.pinned import lead_to
from tasks.pictures import Pixels
from tasks.records import Pair
from tasks.shards import Job, answer, one_thread

PACKAGES = ("numpy", "scipy", "scikit-image", "pillow", "onnxruntime", "torch", "diffusers")  # what decides a bit


class ShardMaker:
    """The actor. Its answers are dictionaries; one with `refused` holds the line of a UserError."""

    teacher: Teacher

    def hello(self) -> dict[str, str]:
        """The versions of the libraries on this node; that it answers says that the actor has found a place."""
        return installed()

    def load(self, settings: str, files: Mapping[str, Sequence[tuple[str, Sequence[Any]]]]) -> dict[str, Any]:
        """Load the teacher; `files` are those of each of its places, in the object store (tasks/cluster_driver.py).

        They lie on this node's disk while they are loaded, and are checked against their sha256 as anywhere.
        """
        block = json.loads(settings)
        try:
            with tempfile.TemporaryDirectory(prefix="understudy-teacher-") as folder, one_thread():
                for number, (key, parts) in enumerate(files.items()):
                    put_in(block, key, _unpacked(parts, Path(folder) / str(number)))
                self.teacher = load_teacher(block)
        except UserError as error:
            return refusal(error)
        except ImportError as error:
            return {"refused": f"a node of the cluster lacks a library ({error}): install it there", "again": False}
        return {}

    def make(self, job: str, inputs: Pixels | None) -> dict[str, Any]:
        """The teacher's answers to the crops of a shard, as the fields of `Answers`."""
        try:
            return asdict(answer(unpack_job(job), inputs, self.teacher))
        except UserError as error:
            return refusal(error)


def installed() -> dict[str, str]:
    """Package -> version, without what says for which device it was built; of those that are installed here."""
    found = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package).partition("+")[0]
    return found


def refusal(error: UserError) -> dict[str, Any]:
    """A UserError as it travels: Ray would wrap the exception itself in a traceback."""
    return {"refused": str(error), "again": isinstance(error, TryAgain)}


def pack_job(job: Job) -> str:
    """What an actor needs to know of a job besides its crops, as JSON."""
    kept = {key: job.teacher[key] for key in ("name", "version")}
    plain = {"name": job.name, "origins": dict(job.origins), "size": job.size, "batch_size": job.batch_size}
    return json.dumps({**plain, "teacher": kept, "pairs": [pair.to_json() for pair in job.pairs]})


def unpack_job(text: str) -> Job:
    """The job again, with no folders: there is nothing to read or write here."""
    plain = json.loads(text)
    pairs = tuple(Pair.from_json({**pair, "crop": tuple(pair["crop"])}) for pair in plain.pop("pairs"))
    return Job(**plain, pairs=pairs, folder=Path(), images=Path())


def put_in(block: dict[str, Any], key: str, value: str) -> None:
    """Set the key of one of the places of a teacher's block."""
    below, last = lead_to(block, key)
    below[last] = value


def _unpacked(parts: Sequence[tuple[str, Sequence[Any]]], place: Path) -> str:
    """Write files from the object store, a piece at a time; a single one without a name is the place itself."""
    import ray

    for name, pieces in parts:
        path = place / name if name else place
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for piece in pieces:
                file.write(ray.get(piece))
    return str(place)
