"""Evidence of classifiers, made up: of a good student, and of the champion it is compared with."""

import dataclasses
from typing import Any

from evidences import CANDIDATE_FILE, CHAMPION_FILE

from tasks.classification.evidence import ClassCount, LabelEvidence

CLASSES = ("cat", "dog", "owl")
EACH = 40  # examples of each class
SAMPLES = EACH * len(CLASSES)


def answered(*right: int, agreed: int = 108, each: int = EACH) -> dict[str, Any]:
    """The columns of a file that answers so many of each class right, the first of each."""
    letters = "".join("1" * one + "0" * (each - one) for one in right)
    return {
        "right": letters,
        "accuracy": round(letters.count("1") / len(letters), 6),
        "classes": tuple(
            ClassCount(name=name, count=each, right=one) for name, one in zip(CLASSES, right, strict=True)
        ),
        "agreed": "1" * agreed + "0" * (len(letters) - agreed),
        "agreement": round(agreed / len(letters), 6),
        "test_samples": len(letters),
    }


def without_labels(agreed: int = 108) -> dict[str, Any]:
    """The columns of a test set without labels."""
    nothing = dict.fromkeys(
        (
            *("accuracy", "teacher_accuracy", "majority_accuracy", "ece", "copied_errors", "broken"),
            *("int8_accuracy_drop", "int8_accuracy_drop_high"),
        )
    )
    columns = answered(0, 0, 0, agreed=agreed)
    return columns | nothing | {"right": "-" * SAMPLES, "classes": (), "without_labels": "no label"}


def good(**changed: Any) -> LabelEvidence:
    """A student that passes sensible limits, timed in turn with `champion()`."""
    evidence = LabelEvidence(
        pairs="a" * 64,
        teacher="b" * 64,
        measured_sha256=CANDIDATE_FILE,
        shipped_sha256=CANDIDATE_FILE,
        timed_with=CHAMPION_FILE,
        teacher_accuracy=0.925,
        majority_accuracy=0.35,
        ece=0.03,
        copied_errors=0.5,
        errors_note="of 9 errors of the teacher",
        broken=0.04,
        int8_accuracy_drop=0.0,
        int8_accuracy_drop_high=0.01,
        p90_ms=6.0,
        file_bytes=1_200_000.0,
        bundle_mib=8.0,
        reference="e" * 64,
        **answered(37, 36, 35),
    )
    return dataclasses.replace(evidence, **changed)


def champion(**changed: Any) -> LabelEvidence:
    """The champion that `good()` beats: right where that is, but for a few examples of each class."""
    evidence = good(
        measured_sha256=CHAMPION_FILE,
        shipped_sha256=CHAMPION_FILE,
        timed_with=CANDIDATE_FILE,
        **answered(34, 33, 32, agreed=100),
    )
    return dataclasses.replace(evidence, **changed)
