"""curate, of classifiers: which of the teacher's answers are taught, and why the others are not.

Reads data/datasets/NAME and raw/ of one student. Writes data/students/NAME/pairs: SPLIT.rows.npy (M,) the rows that
are kept, links to the answers (SPLIT.logits.npy, SPLIT.pooled.npy), kept.jsonl and rejected.jsonl (LabelVerdict),
yield.json, pairs.json (what the set is, by digest). Held-out examples are all kept, as what a student is measured on is
not chosen by its teacher; but for those that it would not answer.

The command is that of tasks/curate.py.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.errors import UserError
from tasks.classification.examples import ExampleSet, open_examples
from tasks.classification.generate import REFUSED, Refusal
from tasks.classification.params import Classifier
from tasks.files import check_sha256, read_json, replacing_folder, sha256_file, sha256_json, write_json
from tasks.params import Params
from tasks.records import SPLITS, Record, SplitName, read_records, write_records
from tasks.stage import STUDENTS

CONFLICT, UNANSWERED = "conflict", "refused"
RULES = (CONFLICT, UNANSWERED)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelVerdict(Record):
    """Curation of one example's answers: empty `rule` keeps them."""

    split: SplitName
    row: int  # of the dataset's split
    rule: str
    reason: str  # in words


def curate(params: Params, name: str, block: Classifier) -> None:
    """Write data/students/NAME/pairs; UserError where the answers are of another teacher, dataset or views."""
    raw = STUDENTS / name / "raw"
    examples = open_examples(block.dataset)
    answers = read_answers(raw, examples)
    verdicts = judge(raw, examples, block.pairs.max_conflict)
    counts = count_yield(verdicts)
    for split in SPLITS:
        if not counts[split]["kept"]:
            raise UserError(
                f"curate {name}: no {split} example is left: raise pairs.max_conflict, or look at the teacher"
            )
    with replacing_folder(STUDENTS / name / "pairs") as folder:
        for file in answers["files"]:
            bring(raw / file, folder / file)
        for split in SPLITS:
            kept = [one.row for one in verdicts if one.split == split and not one.rule]
            np.save(folder / f"{split}.rows.npy", np.array(kept, np.int64))
        write_records(folder / "kept.jsonl", [one for one in verdicts if not one.rule])
        write_records(folder / "rejected.jsonl", [one for one in verdicts if one.rule])
        write_json(folder / "yield.json", counts)
        write_json(folder / "pairs.json", describe(folder, name, examples, answers, counts))
    told = ", ".join(f"{counts[split]['kept']} of {counts[split]['pairs']} {split}" for split in SPLITS)
    print(f"curate {name}: {told} examples are kept")


def read_answers(raw: Path, examples: ExampleSet) -> dict[str, Any]:
    """answers.json, after every file it lists was found to be what it says, of this dataset."""
    answers: dict[str, Any] = read_json(raw / "answers.json")
    if answers["dataset"] != examples.digest:
        raise UserError(f"{raw} holds answers to another dataset than {examples.name} is by now: run dvc repro")
    for file, digest in answers["files"].items():
        check_sha256(raw / file, digest, "answers (run dvc repro generate)")
    return answers


def judge(raw: Path, examples: ExampleSet, max_conflict: float) -> list[LabelVerdict]:
    """A verdict for every example, by split and row."""
    verdicts = []
    told = read_records(raw / REFUSED, Refusal) if (raw / REFUSED).exists() else []
    refused = {(one.split, one.row): one.reason for one in told}
    for split in SPLITS:
        labels = examples.splits[split].labels
        sure, own = certainty(np.load(raw / f"{split}.logits.npy", mmap_mode="r", allow_pickle=False))
        for row, label in enumerate(labels.tolist()):
            rule, reason = "", refused.get((split, row), "")
            if (split, row) in refused:
                rule = UNANSWERED
            elif split == "train" and label >= 0 and own[row] != label and sure[row] >= max_conflict:
                rule = CONFLICT
                said, wanted = (examples.classes[one] for one in (int(own[row]), label))
                reason = f"the teacher is sure of {said!r} ({sure[row]:.2f}), the label says {wanted!r}"
            verdicts.append(LabelVerdict(split=split, row=row, rule=rule, reason=reason))
    return verdicts


def certainty(logits: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """(N,V,C) -> (N,) and (N,): the largest of the mean probabilities over the views, and its class."""
    found = np.zeros((len(logits), logits.shape[2]))
    for view in range(logits.shape[1]):
        values = np.asarray(logits[:, view], np.float64)
        powers = np.exp(values - values.max(axis=1, keepdims=True))
        found += powers / powers.sum(axis=1, keepdims=True)
    found /= logits.shape[1]
    return found.max(axis=1), found.argmax(axis=1).astype(np.int64)


def count_yield(verdicts: list[LabelVerdict]) -> dict[str, dict[str, int]]:
    """Per split: how many examples there are, how many are kept, how many each rule took."""
    return {
        split: {
            "pairs": sum(one.split == split for one in verdicts),
            "kept": sum(one.split == split and not one.rule for one in verdicts),
            **{rule: sum(one.split == split and one.rule == rule for one in verdicts) for rule in RULES},
        }
        for split in SPLITS
    }


def bring(source: Path, target: Path) -> None:
    """The same bytes under another name, without taking their room twice where the file system allows it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def describe(
    folder: Path, name: str, examples: ExampleSet, answers: dict[str, Any], counts: dict[str, dict[str, int]]
) -> dict[str, Any]:
    """pairs.json."""
    teacher = read_json(STUDENTS / name / "raw" / "teacher.json")
    files = answers["files"] | {f"{split}.rows.npy": sha256_file(folder / f"{split}.rows.npy") for split in SPLITS}
    return {
        "digest": sha256_json({"answers": answers["digest"], "files": files}),
        "teacher": teacher["digest"],
        "teacher_name": teacher["name"],
        "teacher_version": teacher["version"],
        "dataset": examples.name,
        "dataset_digest": examples.digest,
        "classes": examples.classes,
        "size": examples.size,
        "pairs": answers["pairs"],
        "counts": {split: counts[split]["kept"] for split in SPLITS},
        "files": files,
    }
