"""Classifiers taught apart from the train stage, for comparisons: of one student's pairs, by a block that was changed.

As tasks/trained_apart.py does of pictures. Beside the student, tested.jsonl says at every validation how it does on the
test examples, so that a table can tell the last step from the one that validation examples found best.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.classification.params import Classifier
from tasks.classification.taught import find_taken, open_pairs
from tasks.classification.train import check_on, publish_classifier, teach, work_of
from tasks.files import read_jsonl, sha256_json, write_json, write_jsonl
from tasks.params import Params
from tasks.stage import STUDENTS, work_folder

if TYPE_CHECKING:
    import torch
    from torch import nn

TESTED = "tested.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Apart:
    """One student to be made."""

    params: Params
    name: str  # whose pairs
    label: str  # of the recipe
    block: Classifier  # has the seed
    examples: int | None = None  # of training that it sees; None: all


def train_apart(job: Apart) -> Path:
    """The folder with student/, tested.jsonl and seconds.json; made if it is not there yet."""
    from models.classification.teachers import load_teacher

    params, block = job.params, job.block
    pairs = open_pairs(STUDENTS / job.name, block.dataset)
    teacher = cache(lambda: load_teacher(block.teacher.model_dump()))
    taken = find_taken(block, pairs, teacher)
    work = work_of(params, block, pairs, taken) | ({"examples": job.examples} if job.examples else {})
    folder = work_folder(job.name) / "apart" / sha256_json(work)[:16]
    if (folder / "student").is_dir():
        return folder
    on_val, on_test = (check_on(pairs, split, taken) for split in ("val", "test"))

    def check(model: "nn.Module", device: "torch.device") -> dict[str, float]:
        tested = {key.replace("val_", "test_"): value for key, value in on_test(model, device).items()}
        return on_val(model, device) | tested

    started = time.monotonic()
    checkpoint = folder / "checkpoint.safetensors"
    taught = teach(params, block, pairs, taken, teacher, checkpoint, check, job.examples)
    write_json(folder / "seconds.json", round(time.monotonic() - started, 1))  # of the last go, if it was killed
    write_jsonl(folder / TESTED, [line for line in taught.curve if "val_agreement" in line])
    publish_classifier(folder / "student", taught, block, pairs, taken)
    checkpoint.unlink(missing_ok=True)
    return folder


def last_and_best(folder: Path) -> dict[str, Any]:
    """Test figures at the last step, and at the one where most validation examples were right, the first of them."""
    lines: list[Mapping[str, Any]] = read_jsonl(folder / TESTED)
    figure = "accuracy" if all("val_accuracy" in line for line in lines) else "agreement"
    best = max(lines, key=lambda line: line[f"val_{figure}"])
    found = {key.removeprefix("test_"): value for key, value in lines[-1].items() if key.startswith("test_")}
    return found | {"figure": figure, "best": best[f"test_{figure}"], "best_step": best["step"]}
