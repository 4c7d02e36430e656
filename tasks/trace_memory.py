"""What a student was taught, laid out so that the pairs behind a picture can be found: one row a training pair.

Of each pair what the student sees of the input (its encoder, pooled), what kind of picture it is and what the
teacher did to it (models/effect.py), and how unusual that is (tasks/usual.py). Kept in data/.work/NAME/trace under the
digests of pairs and weights: the first trace of a student takes some milliseconds a pair, the next ones none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.effect import describe
from tasks.features import level_features
from tasks.files import check_sha256, sha256_json, write_bytes
from tasks.progress import progress
from tasks.quality import read_pairs
from tasks.records import Verdict, read_records, rows_of
from tasks.stage import STUDENTS, work_folder
from tasks.usual import Usual, find_usual

Values = npt.NDArray[np.float64]
Pictures = npt.NDArray[np.uint8]
BATCH = 64
VERSION = 2  # of what is kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The training pairs of one student, row by row of pairs/train.*.npy."""

    verdicts: list[Verdict]
    inputs: Pictures  # (N,S,S,3), memory-mapped
    targets: Pictures
    features: Values  # (N,C): what the student sees
    scene: Values  # (N,6)
    effect: Values  # (N,8)
    usual: Usual

    @property
    def deviations(self) -> Values:
        """How unusual each pair's effect is, (N,8)."""
        return self.usual.deviations(self.scene, self.effect)


def remember(name: str, pairs: Mapping[str, Any], student: Mapping[str, Any]) -> Memory:
    """The memory of data/students/NAME; `pairs` and `student` are its pairs.json and student.json.

    Raises UserError for damaged arrays, and where there are too few pairs to say what is usual.
    """
    folder = STUDENTS / name
    for file, sha256 in pairs["files"].items():
        if file.startswith("train.") or file == "kept.jsonl":
            check_sha256(folder / "pairs" / file, sha256, "pairs")
    inputs, targets = read_pairs(folder / "pairs", "train")
    kept_file = folder / "pairs" / "kept.jsonl"
    verdicts = rows_of(read_records(kept_file, Verdict), "train", len(inputs), kept_file)
    kept = _kept(name, sha256_json([VERSION, pairs["digest"], student["weights_sha256"]]), folder, inputs, targets)
    usual = find_usual(kept["scene"], kept["effect"], [one.input for one in verdicts])
    return Memory(verdicts=verdicts, inputs=inputs, targets=targets, usual=usual, **kept)


def _kept(name: str, digest: str, folder: Path, inputs: Pictures, targets: Pictures) -> dict[str, Values]:
    """Features, scene and effect of every pair, from the file of an earlier trace if there is one."""
    from safetensors import SafetensorError
    from safetensors.numpy import load, save

    mine = work_folder(name) / "trace" / f"{digest[:16]}.safetensors"
    try:
        return dict(load(mine.read_bytes()))
    except (OSError, SafetensorError):
        pass  # never made, or cut off
    parts: dict[str, list[Values]] = {"scene": [], "effect": []}
    with progress("trace", len(inputs), "pairs") as advance:
        for start in range(0, len(inputs), BATCH):
            given, made = inputs[start : start + BATCH], targets[start : start + BATCH]
            for key, values in zip(parts, describe(given, made), strict=True):
                parts[key].append(values)
            advance(len(given))
    kept = {key: np.concatenate(values) for key, values in parts.items()}
    kept["features"] = level_features(folder / "student", inputs)
    for stale in mine.parent.glob("*.safetensors"):
        stale.unlink(missing_ok=True)
    write_bytes(mine, save(kept))
    return kept
