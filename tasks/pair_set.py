"""The curated pairs as files: memory-mapped arrays by split and side, and what the set is, by digest."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.files import sha256_file, sha256_json
from tasks.raw import Shard
from tasks.records import SPLITS, SplitName, Verdict

SIDES = ("inputs", "targets")


class Arrays:
    """folder/SPLIT.{inputs,targets}.npy (N,S,S,3) uint8, filled shard by shard."""

    def __init__(self, folder: Path, verdicts: list[Verdict], size: int) -> None:
        self._kept = {verdict.pair: verdict.index for verdict in verdicts if not verdict.rule}
        self._arrays: dict[tuple[SplitName, str], npt.NDArray[np.uint8]] = {}
        for split in SPLITS:
            shape = (sum(verdict.split == split and not verdict.rule for verdict in verdicts), size, size, 3)
            for side in SIDES:
                path = folder / f"{split}.{side}.npy"
                self._arrays[split, side] = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)

    def take(self, shard: Shard) -> None:
        """Copy the shard's kept pairs to their places."""
        for row, pair in enumerate(shard.pairs):
            if pair.id in self._kept:
                self._arrays[pair.split, "inputs"][self._kept[pair.id]] = shard.inputs[row]
                self._arrays[pair.split, "targets"][self._kept[pair.id]] = shard.targets[row]

    def close(self) -> None:
        """Write what is still in memory."""
        for array in self._arrays.values():
            array.flush()  # type: ignore[attr-defined]  # a memmap, which open_memmap's type does not say
        self._arrays.clear()


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
