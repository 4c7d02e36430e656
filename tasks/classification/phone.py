"""What the gate is told of a classifier's file that a phone runs: its answers to the test examples, latency, size.

Called by evaluate for the candidate and by compare for the champion too, so that both are measured by the same code;
tasks/gate.py judges.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from models.classification.metrics import UNLABELLED, Answers, confusion, figures, mimicry
from tasks.classification import evidence as letters
from tasks.classification.evidence import ClassCount, LabelEvidence
from tasks.classification.quality import MAJORITY, Work, drop, rounded
from tasks.files import sha256_json
from tasks.phone import MIB
from tasks.quality import float_twins
from tasks.target import LOCAL, judged_file, of_target

LEAST_ERRORS = 5  # of the teacher: of fewer, the share that is copied says nothing


def student_evidence(work: Work, found: Mapping[str, Answers]) -> LabelEvidence:
    """All that evaluate knows of the phone's file; what a bundle ships of it is added by tasks/bundle.py.

    `found` is what tasks.classification.quality.measure_all gives. The latency is that of one thread, if it was this
    file's. A file in float32 loses nothing to its own float file.
    """
    phone = judged_file(work.files)
    name = phone["file"]
    twin = float_twins(work.files).get(name, name if phone["precision"] == "fp32" else None)
    lost = drop(found[twin], found[name]) if twin else {"drop": None, "interval": None}
    rows = [
        one
        for one in of_target(work.benchmark["files"], LOCAL)
        if one["sha256"] == phone["sha256"] and one["threads"] == 1
    ]
    return replace(
        label_evidence(found[name], found[MAJORITY], work),
        measured_sha256=phone["sha256"],
        int8_accuracy_drop=lost["drop"],
        int8_accuracy_drop_high=lost["interval"]["high"] if lost["interval"] else None,
        p90_ms=rows[0]["p90_ms"] if rows else None,
        file_bytes=phone["bytes"],
        bundle_mib=sum(one["bytes"] for one in work.files) / MIB,
    )


def label_evidence(found: Answers, majority: Answers, work: Work) -> LabelEvidence:
    """What a file's answers to the test examples tell, whichever file it is; what int8 costs is not known of it."""
    told, classes = rounded(figures(found, len(work.classes))), len(work.classes)
    counts = confusion(found, classes)
    errors = mimicry(found).teacher_errors
    known = f"of {errors} error{'s' if errors != 1 else ''} of the teacher"
    no_labels = "" if found.labelled.any() else f"none of the {len(work.inputs)} test examples has a label"
    few = errors < LEAST_ERRORS and not no_labels
    return LabelEvidence(
        pairs=work.pairs["digest"],
        teacher=work.pairs["teacher"],
        accuracy=told["accuracy"],
        teacher_accuracy=told["teacher_accuracy"],
        majority_accuracy=rounded(figures(majority, classes))["accuracy"],
        agreement=told["agreement"],
        ece=told["ece"],
        copied_errors=None if few else told["copied_errors"],
        broken=told["broken"],
        errors_note="" if few else known,
        without_labels=no_labels,
        without_errors=f"{errors} errors of the teacher are known, and {LEAST_ERRORS} are needed" if few else "",
        reference=sha256_json([work.labels.tolist(), found.teacher.tolist()]),
        right="".join(
            letters.UNLABELLED if label == UNLABELLED else letters.YES if right else letters.NO
            for label, right in zip(found.labels.tolist(), found.right.tolist(), strict=True)
        ),
        agreed="".join(letters.YES if one else letters.NO for one in found.agrees.tolist()),
        classes=tuple(
            ClassCount(name=name, count=int(row.sum()), right=int(row[place]))
            for place, (name, row) in enumerate(zip(work.classes, np.asarray(counts), strict=True))
        ),
        test_samples=len(work.inputs),
    )
