"""The curated pairs as files: arrays by split and side, and what the set is, by digest."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from tasks.arrays import ArrayFile
from tasks.files import sha256_file, sha256_json
from tasks.raw import Shard
from tasks.records import SPLITS, Verdict

SIDES = ("inputs", "targets")


class Arrays:
    """folder/SPLIT.{inputs,targets}.npy (N,S,S,3) uint8, filled shard by shard."""

    def __init__(self, folder: Path, verdicts: list[Verdict], size: int) -> None:
        self._kept = {verdict.pair: verdict.index for verdict in verdicts if not verdict.rule}
        counts = Counter(verdict.split for verdict in verdicts if not verdict.rule)
        self._files = {
            (split, side): ArrayFile(folder / f"{split}.{side}.npy", (size, size, 3), np.uint8, counts[split])
            for split in SPLITS
            for side in SIDES
        }

    def take(self, shard: Shard) -> None:
        """Copy the shard's kept pairs to their places."""
        for row, pair in enumerate(shard.pairs):
            if pair.id in self._kept:
                self._files[pair.split, "inputs"].put(self._kept[pair.id], shard.inputs[row])
                self._files[pair.split, "targets"].put(self._kept[pair.id], shard.targets[row])

    def close(self) -> None:
        """Write what is still in memory."""
        for file in self._files.values():
            file.close()
        self._files.clear()


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
