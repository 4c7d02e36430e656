"""The curated pairs as files: arrays by split and side, and what the set is, by digest.

Written and streamed with plain reads and writes: of a memory map, whatever was touched counts as the process's memory.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from models.errors import UserError
from tasks.files import sha256_file, sha256_json
from tasks.raw import Shard
from tasks.records import SPLITS, SplitName, Verdict

SIDES = ("inputs", "targets")


BLOCK = 1024  # pictures read at a time


class Arrays:
    """folder/SPLIT.{inputs,targets}.npy (N,S,S,3) uint8, filled shard by shard."""

    def __init__(self, folder: Path, verdicts: list[Verdict], size: int) -> None:
        self._kept = {verdict.pair: verdict.index for verdict in verdicts if not verdict.rule}
        self._files: dict[tuple[SplitName, str], BinaryIO] = {}
        self._begin: dict[tuple[SplitName, str], int] = {}  # of the first picture
        self._bytes = size * size * 3  # of a picture
        for split in SPLITS:
            shape = (sum(verdict.split == split and not verdict.rule for verdict in verdicts), size, size, 3)
            for side in SIDES:
                file = self._files[split, side] = (folder / f"{split}.{side}.npy").open("wb")
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                self._begin[split, side] = file.tell()
                file.truncate(file.tell() + shape[0] * self._bytes)

    def take(self, shard: Shard) -> None:
        """Copy the shard's kept pairs to their places."""
        for row, pair in enumerate(shard.pairs):
            if pair.id not in self._kept:
                continue
            for side, pictures in (("inputs", shard.inputs), ("targets", shard.targets)):
                file = self._files[pair.split, side]
                file.seek(self._begin[pair.split, side] + self._kept[pair.id] * self._bytes)
                file.write(np.ascontiguousarray(pictures[row]).tobytes())

    def close(self) -> None:
        """Write what is still in memory."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
            file.close()
        self._files.clear()


def stream(path: Path) -> Iterator[npt.NDArray[np.uint8]]:
    """The pictures (S,S,3) of an array file, BLOCK in memory at a time; UserError where it is no whole array."""
    with path.open("rb") as file:
        try:
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        except ValueError as error:
            raise UserError(f"{path} is no array ({error}): run dvc repro curate") from None
        for start in range(0, shape[0], BLOCK):
            wanted = (min(BLOCK, shape[0] - start), *shape[1:])
            block = np.fromfile(file, dtype, math.prod(wanted))
            if block.size < math.prod(wanted):
                raise UserError(f"{path} ends too early: run dvc repro curate")
            yield from block.reshape(wanted)


def describe(folder: Path, verdicts: list[Verdict], teacher: dict[str, Any], size: int) -> dict[str, Any]:
    """pairs.json: what the set is, by digest of its pairs, its arrays and its teacher."""
    names = sorted(path.name for path in folder.glob("*.npy"))
    files = {name: sha256_file(folder / name) for name in [*names, "kept.jsonl"]}
    kept = [verdict for verdict in verdicts if not verdict.rule]
    arrays = {name: files[name] for name in names}
    return {
        "digest": sha256_json({"pairs": [one.pair for one in kept], "arrays": arrays, "teacher": teacher["digest"]}),
        "teacher": teacher["digest"],
        "teacher_name": teacher["name"],
        "teacher_version": teacher["version"],
        "size": size,
        "counts": {split: sum(one.split == split for one in kept) for split in SPLITS},
        "files": files,
    }
