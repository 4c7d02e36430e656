"""What is measured of a classifier: contestants, what int8 costs, classes, examples, and the evidence for the gate."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from label_results import BENCHMARK, FILES, PHONE, digits, looked_up, results

from models.errors import UserError
from tasks.classification.phone import student_evidence
from tasks.classification.quality import MAJORITY, TEACHER, Work, commonest, measure_all, summarise, taught_labels
from tasks.classification.rules import LABEL_RULES, gain_low, worst_class


def measured(labelled: bool = True) -> tuple[Work, dict[str, Any], dict[str, Any]]:
    work, models = digits(labelled)
    found = measure_all(models, work)
    return work, found, summarise(found, work, student_evidence(work, found).to_json())


def test_every_contestant_is_told() -> None:
    work, found, quality = measured()
    json.dumps(quality, allow_nan=False)
    assert list(quality["files"]) == [one["file"] for one in FILES] and quality["phone"] == PHONE
    assert quality["student"] == quality["files"]["student.fp32.tflite"] != quality["files"][PHONE]
    assert quality["teacher"]["accuracy"] == pytest.approx(
        (work.teacher.argmax(axis=1) == work.labels).mean(), abs=1e-6
    )
    assert quality["teacher"]["agreement"] == 1.0 and quality["teacher"]["divergence"] == 0.0
    most = np.bincount(work.labels).argmax()
    assert quality["commonest"] == str(most)
    assert quality["baselines"][MAJORITY]["accuracy"] == pytest.approx((work.labels == most).mean(), abs=1e-6)
    for name, interval in quality["intervals"].items():
        assert interval["low"] <= quality["files"][PHONE][name] <= interval["high"], name
    assert set(found) == {"torch", *quality["files"], TEACHER, MAJORITY}


def test_what_int8_costs_is_paired_with_the_float_file_of_its_runtime() -> None:
    work, found, quality = measured()
    assert [(row["file"], row["float"]) for row in quality["int8"]] == [
        (PHONE, "student.fp32.tflite"),
        ("student.int8.onnx", "student.fp32.onnx"),
    ]
    row = quality["int8"][0]
    before, after = quality["files"]["student.fp32.tflite"]["accuracy"], quality["files"][PHONE]["accuracy"]
    assert row["drop"] == pytest.approx(before - after, abs=1e-5)
    assert row["interval"]["low"] <= row["drop"] <= row["interval"]["high"] and 0 < row["flipped"] < 0.1
    evidence = student_evidence(work, found)
    assert (evidence.int8_accuracy_drop, evidence.int8_accuracy_drop_high) == (row["drop"], row["interval"]["high"])


def test_classes_and_confusion_are_counts_of_the_phones_file() -> None:
    work, found, quality = measured()
    counts = np.array(quality["confusion"])
    plain = np.zeros((10, 10), int)
    for label, said in zip(work.labels, found[PHONE].said, strict=True):
        plain[label, said] += 1
    assert (counts == plain).all() and quality["against"] == "labels"
    rates = {row["name"]: row["accuracy"] for row in quality["per_class"]}
    assert quality["worst_class"] == min(rates, key=lambda name: rates[name])
    assert [row["said"] for row in quality["per_class"]] == plain.sum(axis=0).tolist()


def test_the_worst_examples_are_wrong_and_the_surest_first() -> None:
    work, found, quality = measured()
    worst = quality["worst"]
    assert 0 < len(worst) <= 12
    assert all(one["said"] != work.labels[one["row"]] == one["label"] for one in worst)
    assert [one["confidence"] for one in worst] == sorted((one["confidence"] for one in worst), reverse=True)
    wrong = found[PHONE].confidence[~found[PHONE].right]
    assert worst[0]["confidence"] == pytest.approx(wrong.max(), abs=1e-6)


def test_the_evidence_is_what_the_rules_can_read() -> None:
    work, found, quality = measured()
    evidence = student_evidence(work, found)
    assert evidence.measured_sha256 == FILES[1]["sha256"] and evidence.p90_ms == BENCHMARK["files"][2]["p90_ms"]
    for name, rule in LABEL_RULES.items():
        if rule.own:
            value = rule.own(evidence)
            assert value is not None and value.value is not None, (name, value)
    assert worst_class(evidence).value == pytest.approx(quality["files"][PHONE]["worst_class"], abs=1e-6)
    itself = gain_low(evidence, evidence)
    assert itself.value == 0.0 and itself.note == "accuracy over 360 examples"


def test_without_labels_agreement_is_left() -> None:
    work, found, quality = measured(labelled=False)
    assert quality["labelled"] == 0 and quality["against"] == TEACHER
    assert quality["files"][PHONE]["accuracy"] is None and quality["int8"][0]["drop"] is None
    assert quality["int8"][0]["flipped"] > 0
    assert sum(row["right"] for row in quality["per_class"]) == found[PHONE].agrees.sum()
    assert all(one["said"] != one["teacher"] and one["label"] == -1 for one in quality["worst"])
    evidence = student_evidence(work, found)
    assert evidence.without_labels == "none of the 360 test examples has a label"
    assert evidence.agreement == quality["files"][PHONE]["agreement"] and set(evidence.right) == {"-"}


def test_few_errors_of_the_teacher_say_nothing_of_what_is_copied() -> None:
    work, models = digits()
    sure = replace(work, teacher=(20 * np.eye(10)[work.labels]).astype(np.float32))
    evidence = student_evidence(sure, measure_all(models, sure))
    assert evidence.copied_errors is None
    assert evidence.without_errors == "0 errors of the teacher are known, and 5 are needed"


def test_the_reference_is_the_labels_and_the_teachers_classes() -> None:
    work, models = digits()
    found = measure_all(models, work)
    same = student_evidence(work, found)
    other = digits()[0].labels.copy()
    other[0] = (other[0] + 1) % 10
    work, models = replace(work, labels=other), digits()[1]
    assert student_evidence(work, measure_all(models, work)).reference != same.reference


def test_texts_are_answered_in_batches() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 150)
    work, models = results([f"text {row}" for row in range(150)], labels, ["bad", "good"])
    found = measure_all(models, work)
    assert len(found[PHONE].said) == 150 and summarise(found, work, {})["test_samples"] == 150


def test_the_commonest_class_is_as_sure_as_it_is_common() -> None:
    logits = commonest(np.array([2, 2, 2, 0]), 3)(["a", "b"])
    assert logits.shape == (2, 3) and np.exp(logits[0]) == pytest.approx([2 / 7, 1 / 7, 4 / 7])
    assert taught_labels(np.array([-1, 1]), np.array([[0, 1, 2], [5, 0, 0]])).tolist() == [2, 1]


@pytest.mark.parametrize(
    ("logits", "says"),
    [
        (np.zeros((360, 9), np.float32), r"torch gives \(64, 9\) where \(64, 10\) logits are due"),
        (np.full((360, 10), np.nan, np.float32), "torch gives logits that are not finite: quantise or train again"),
    ],
)
def test_what_are_no_logits_is_refused(logits: np.ndarray, says: str) -> None:
    work, _ = digits()
    with pytest.raises(UserError, match=says):
        measure_all({"torch": looked_up(logits)}, work)
    with pytest.raises(UserError, match="teacher gives logits that are not finite: look at the teacher"):
        measure_all({}, replace(work, teacher=np.full((360, 10), np.nan, np.float32)))
