"""What evaluate measures of a classifier: every contestant's logits on the test examples against labels and teacher.

Contestants are the torch student, each exported file, the teacher itself, and a baseline without any learning: the
commonest class of the training examples, always said. The teacher's logits are those that were kept with the pairs, so
nothing here asks the teacher. Called by evaluate, and by compare for the champion's file.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from models.classification.metrics import (
    UNLABELLED,
    Answers,
    Labels,
    Logits,
    Mask,
    answers,
    calibration,
    confusion,
    figures,
    mimicry,
    share,
    worst_class,
)
from models.errors import UserError
from tasks.classification.intervals import difference_interval, mcnemar, mean_interval, share_interval
from tasks.progress import progress
from tasks.quality import TORCH, float_twins
from tasks.target import judged_file

TEACHER, MAJORITY = "teacher", "majority"
BATCH = 64  # examples at a time
DIGITS = 6  # of the figures written: finer differences come from the machine, not from the student
WORST = 12  # examples that are told one by one

Inputs = npt.NDArray[np.uint8] | Sequence[str]  # (N,S,S,3), or N texts
Model = Callable[[Any], Logits]  # some of the inputs -> (B,C)
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a classifier is measured on, checked: N test examples of C classes."""

    classes: Sequence[str]
    inputs: Inputs
    labels: Labels  # (N,), UNLABELLED where nobody knows
    teacher: Logits  # (N,C), of the inputs as they are
    taught: Labels  # of the training examples; the teacher's classes where they have none
    pairs: Json  # pairs.json: digest, teacher
    files: Sequence[Json]  # exported.json's lines
    benchmark: Json  # benchmark.json


def taught_labels(labels: Labels, teacher: Logits) -> Labels:
    """Labels of training examples (M,), the teacher's classes of (M,C) where there is none."""
    return np.where(labels == UNLABELLED, teacher.argmax(axis=1), labels).astype(np.int64)


def commonest(taught: Labels, classes: int) -> Model:
    """The commonest class, always said, as sure as it is common: logarithms of the classes' shares, none of them 0."""
    shares = (np.bincount(taught, minlength=classes) + 1) / (len(taught) + classes)
    row = np.log(shares).astype(np.float32)
    return lambda inputs: np.tile(row, (len(inputs), 1))


def measure_all(models: Mapping[str, Model], work: Work) -> dict[str, Answers]:
    """What every model says of the test examples; the teacher and the commonest class are added to them."""
    classes = len(work.classes)
    found = {name: ask(name, model, work.inputs, classes) for name, model in models.items()}
    found[TEACHER] = checked(TEACHER, work.teacher, (len(work.inputs), classes))
    found[MAJORITY] = commonest(work.taught, classes)(work.inputs)
    return {name: answers(logits, work.teacher, work.labels) for name, logits in found.items()}


def ask(name: str, model: Model, inputs: Inputs, classes: int) -> Logits:
    """A model's logits (N,C), BATCH examples at a time."""
    parts = []
    with progress(f"evaluate {name}", len(inputs), "examples") as advance:
        for start in range(0, len(inputs), BATCH):
            some = inputs[start : start + BATCH]
            parts.append(checked(name, model(some), (len(some), classes)))
            advance(len(some))
    return np.concatenate(parts)


def checked(name: str, logits: Logits, shape: tuple[int, int]) -> Logits:
    """The logits; a UserError when they are none."""
    if logits.shape != shape:
        raise UserError(
            f"{name} gives {logits.shape} where {shape} logits are due: its classes are others; run dvc repro"
        )
    if not np.isfinite(logits).all():
        again = "look at the teacher, and generate" if name == TEACHER else "quantise or train"
        raise UserError(f"{name} gives logits that are not finite: {again} again")
    return logits


def summarise(found: Mapping[str, Answers], work: Work, evidence: Json) -> dict[str, Any]:
    """quality.json: every contestant's figures, then, of the file a phone runs, all that says how it came by them."""
    told = {name: rounded(figures(one, len(work.classes))) for name, one in found.items()}
    phone = judged_file(work.files)["file"]
    mine = found[phone]
    return {
        "kind": "labels",
        "classes": list(work.classes),
        "test_samples": len(work.inputs),
        "labelled": int(mine.labelled.sum()),
        "student": told[TORCH],
        "files": {one["file"]: told[one["file"]] for one in work.files},
        "teacher": told[TEACHER],
        "baselines": {MAJORITY: told[MAJORITY]},
        "commonest": work.classes[int(np.bincount(work.taught, minlength=len(work.classes)).argmax())],
        "phone": phone,
        "intervals": intervals(mine),
        "int8": int8_rows(found, work.files),
        "mimicry": asdict(mimicry(mine)),
        "calibration": {name: [asdict(one) for one in calibration(found[name])] for name in (phone, TEACHER)},
        **by_class(mine, work.classes),
        "worst": worst_examples(mine, found[TEACHER]),
        "evidence": dict(evidence),
    }


def rounded(values: Mapping[str, float | None]) -> dict[str, float | None]:
    """The same figures to DIGITS decimals."""
    return {name: None if value is None else round(value, DIGITS) for name, value in values.items()}


def intervals(found: Answers) -> dict[str, Any]:
    """The 95 % intervals of a contestant's figures, but for the calibration error, and the worst class's beside it.

    A resample's calibration error is larger than the sample's own, so that a bootstrap would lie beside the figure.
    """
    labelled, errors = found.labelled, found.labelled & ~found.teacher_right
    right = found.labelled & found.teacher_right
    shares: dict[str, tuple[Mask, Mask]] = {
        "accuracy": (found.right, labelled),
        "teacher_accuracy": (found.teacher_right, labelled),
        "agreement": (found.agrees, np.ones_like(labelled)),
        "copied_errors": (found.agrees, errors),
        "corrected_errors": (found.right, errors),
        "broken": (~found.right, right),
    }
    told = {name: share_interval(int((hit & of).sum()), int(of.sum())) for name, (hit, of) in shares.items()}
    told["divergence"] = mean_interval(found.divergence)
    told["accuracy_gap"] = difference_interval(found.teacher_right[labelled], found.right[labelled])
    return {name: interval.to_json() for name, interval in told.items() if interval}


def int8_rows(found: Mapping[str, Answers], files: Sequence[Json]) -> list[dict[str, Any]]:
    """What each file that is not float costs beside the float file of its runtime, on the same examples.

    `drop` is of accuracy, with its paired interval and McNemar's p; `flipped` is the share of the examples on which the
    two say another class.
    """
    return [
        {"file": name, "float": twin, "flipped": round(float((found[name].said != found[twin].said).mean()), DIGITS)}
        | drop(found[twin], found[name])
        for name, twin in float_twins(files).items()
    ]


def drop(before: Answers, after: Answers) -> dict[str, Any]:
    """Accuracy lost, its interval and p; None without labels."""
    labelled = before.labelled
    mine, other = before.right[labelled], after.right[labelled]
    interval = difference_interval(mine, other)
    if interval is None:
        return {"drop": None, "interval": None, "p": None}
    lost = round(float(mine.mean() - other.mean()), DIGITS)
    return {"drop": lost, "interval": interval.to_json(), "p": round(mcnemar(mine, other), DIGITS)}


def by_class(found: Answers, classes: Sequence[str]) -> dict[str, Any]:
    """Every class, the worst of them, and the confusion; against the teacher's classes where there are no labels."""
    against = "labels" if found.labelled.any() else TEACHER
    judged = found if against == "labels" else replace(found, labels=found.teacher)
    counts = confusion(judged, len(classes))
    teacher = confusion(replace(judged, said=judged.teacher), len(classes))
    rows = []
    for place, name in enumerate(classes):
        size, right = int(counts[place].sum()), int(counts[place, place])
        interval = share_interval(right, size)
        rows.append(
            {
                "name": name,
                "count": size,
                "right": right,
                "accuracy": rounded({"": share(right, size)})[""],
                "interval": interval and interval.to_json(),
                "teacher_accuracy": rounded({"": share(int(teacher[place, place]), size)})[""],
                "said": int(counts[:, place].sum()),
            }
        )
    worst = worst_class(counts)
    return {
        "against": against,
        "per_class": rows,
        "worst_class": classes[worst[0]] if worst else None,
        "confusion": counts.tolist(),
    }


def worst_examples(found: Answers, teacher: Answers) -> list[dict[str, Any]]:
    """The WORST examples of which the contestant is surest and wrong; without labels, at odds with its teacher."""
    wanted = np.where(found.labelled, found.labels, found.teacher)
    if found.labelled.any():
        wrong = found.labelled & ~found.right
    else:
        wrong = found.said != wanted
    rows = np.flatnonzero(wrong)
    ranked = sorted(rows.tolist(), key=lambda row: (-found.confidence[row], row))[:WORST]
    return [
        {
            "row": row,
            "label": int(found.labels[row]),
            "teacher": int(found.teacher[row]),
            "said": int(found.said[row]),
            "confidence": round(float(found.confidence[row]), DIGITS),
            "teacher_confidence": round(float(teacher.confidence[row]), DIGITS),
        }
        for row in ranked
    ]
