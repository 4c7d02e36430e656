"""How far are a new teacher's answers from the old one's? Measured before a training with the new one is paid for.

The new teacher's answers to the test examples lie with the pairs; the old one is asked again. Of classifiers, called by
tasks/teacher_drift.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from models.errors import UserError
from tasks.classification.network_params import ImageTeacher, TextTeacher
from tasks.classification.taught import open_pairs
from tasks.records import Record

DIGITS = 4
MOST = 1000  # test examples, the first ones, that the old teacher is asked about


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelDrift(Record):
    """New against old on the same examples; figures are None where the old teacher cannot be asked any more."""

    n: int  # test examples
    old: str  # name and version
    new: str
    changed: float | None  # share of the examples of which they say another class
    old_accuracy: float | None  # on labelled examples
    new_accuracy: float | None
    told: str  # in words


def label_drift(folder: Path, dataset: str, old_teacher: Mapping[str, Any], *, old_digest: str = "") -> LabelDrift:
    """Compare the teacher whose answers lie in `folder` with `old_teacher`, a teacher's block.

    An old teacher that cannot be loaded is told, not raised; UserError for pairs that are missing or damaged.
    """
    pairs = open_pairs(folder, dataset)
    test = pairs.split("test")
    rows = pairs.rows("test")[:MOST]  # what it would not answer is none of them
    count = len(rows)
    new = np.asarray(pairs.logits("test")[rows, 0]).argmax(axis=1)
    labels = test.labels[rows]
    asked = test.inputs[rows] if isinstance(test.inputs, np.ndarray) else [test.inputs[row] for row in rows]
    figures: dict[str, float | None] = dict.fromkeys(("changed", "old_accuracy", "new_accuracy"))
    try:
        old = ask(old_teacher, asked, old_digest)
    except (UserError, OSError) as error:
        told = f"not compared, the old teacher cannot be asked: {error}"
    else:
        known = labels >= 0
        figures["changed"] = round(float((old != new).mean()), DIGITS)
        told = (
            f"the new teacher says another class than the old one of {figures['changed']:.1%} of {count} test examples"
        )
        if known.any():
            right = {
                who: round(float((said == labels)[known].mean()), DIGITS)
                for who, said in (("old_accuracy", old), ("new_accuracy", new))
            }
            figures |= right
            told += f"; it is right on {right['new_accuracy']:.1%}, the old one on {right['old_accuracy']:.1%}"
    return LabelDrift(
        n=count,
        old=f"{old_teacher.get('name', '?')} version {old_teacher.get('version', '?')}",
        new=f"{pairs.record['teacher_name']} version {pairs.record['teacher_version']}",
        told=told,
        **figures,
    )


def ask(block: Mapping[str, Any], inputs: Any, digest: str) -> Any:
    """The classes that a teacher says; UserError where it cannot be loaded or is not that teacher any more."""
    from models.classification.teachers import load_teacher

    try:
        settings = TypeAdapter[Any](ImageTeacher | TextTeacher).validate_python(dict(block), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(f"its block does not fit this version ({key or 'kind'}: {first['msg']})") from None
    teacher = load_teacher(settings.model_dump())
    if digest and teacher.digest != digest:
        raise UserError("this version of its code is not the one that taught the champion")
    return np.asarray(teacher(np.asarray(inputs) if isinstance(inputs, np.ndarray) else inputs)).argmax(axis=1)
