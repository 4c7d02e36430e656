"""A dataset as classifiers' stages read it: inputs, labels and classes of data/datasets/NAME, checked by sha256."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.errors import UserError
from tasks.dataset import DATASETS, SCHEMA
from tasks.files import check_sha256, read_json, read_jsonl
from tasks.records import SPLITS, SplitName

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """One split: pictures (N,S,S,3) uint8, memory-mapped, or texts; labels (N,), -1 where there is none."""

    inputs: Any
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleSet:
    """All splits of a dataset."""

    name: str
    kind: str  # "images" or "texts"
    classes: list[str]
    size: int | None  # of pictures, in pixels
    digest: str
    splits: dict[SplitName, Examples]


def open_examples(name: str, splits: Sequence[SplitName] = SPLITS, folder: Path = DATASETS) -> ExampleSet:
    """Open a dataset; UserError where it is missing, of another version, or its bytes are not those it says."""
    record = read_json(folder / name / "dataset.json")
    if record.get("schema") != SCHEMA:
        raise UserError(f"{folder}/{name} is of another version: run dvc repro dataset@{name}")
    found: dict[SplitName, Examples] = {}
    for split in splits:
        files = [file for file in record["files"] if file.startswith(f"{split}.")]
        for file in files:
            check_sha256(folder / name / file, record["files"][file], f"datasets.{name}")
        labels = np.load(folder / name / f"{split}.labels.npy", allow_pickle=False)
        if record["kind"] == "images":
            inputs: Any = np.load(folder / name / f"{split}.inputs.npy", mmap_mode="r", allow_pickle=False)
        else:
            inputs = [line["text"] for line in read_jsonl(folder / name / f"{split}.texts.jsonl")]
        found[split] = Examples(inputs=inputs, labels=labels)
    return ExampleSet(
        name=name,
        kind=record["kind"],
        classes=record["classes"],
        size=record["size"],
        digest=record["digest"],
        splits=found,
    )
