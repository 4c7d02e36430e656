"""Figures of classifiers against plain loops, their intervals against textbooks."""

import math
from collections import Counter

import numpy as np
import pytest

from models.classification.metrics import (
    BINS,
    Answers,
    answers,
    calibration,
    calibration_error,
    confusion,
    figures,
    mimicry,
    worst_class,
)
from models.torch_setup import make_torchvision_importable
from tasks.classification.intervals import difference_interval, mcnemar, mean_interval, share_interval

CLASSES, COUNT = 4, 300


def made(seed: int = 0, unlabelled: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits of a student and its teacher, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, COUNT)
    truth = 2.5 * np.eye(CLASSES)[labels]
    teacher = truth + rng.normal(0, 1.2, (COUNT, CLASSES))
    student = 0.6 * teacher + rng.normal(0, 1.0, (COUNT, CLASSES))
    labels[:unlabelled] = -1
    return student.astype(np.float32), teacher.astype(np.float32), labels


def softmax(row: list[float]) -> list[float]:
    powers = [math.exp(value - max(row)) for value in row]
    return [power / sum(powers) for power in powers]


def test_every_figure_is_that_of_a_plain_loop() -> None:
    student, teacher, labels = made()
    counted: Counter[str] = Counter()
    apart = 0.0
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    by_class: dict[int, list[bool]] = {one: [] for one in range(CLASSES)}
    for row in range(COUNT):
        p, q = softmax(student[row].tolist()), softmax(teacher[row].tolist())
        said, told, label = p.index(max(p)), q.index(max(q)), int(labels[row])
        counted["agreed"] += said == told
        apart += sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))
        if label < 0:
            continue
        counted["labelled"] += 1
        counted["right"] += said == label
        by_class[label].append(said == label)
        bins[min(BINS - 1, int(p[said] * BINS))].append((p[said], said == label))
        if told == label:
            counted["teacher_right"] += 1
            counted["broken"] += said != label
        else:
            counted["teacher_errors"] += 1
            counted["copied"] += said == told
            counted["corrected"] += said == label
            counted["otherwise_wrong"] += said not in (told, label)
    ece = sum(abs(sum(confidence for confidence, _ in mine) - sum(right for _, right in mine)) for mine in bins if mine)
    told_figures = figures(answers(student, teacher, labels), CLASSES)
    assert told_figures == pytest.approx(
        {
            "accuracy": counted["right"] / counted["labelled"],
            "teacher_accuracy": counted["teacher_right"] / counted["labelled"],
            "accuracy_gap": (counted["teacher_right"] - counted["right"]) / counted["labelled"],
            "agreement": counted["agreed"] / COUNT,
            "divergence": apart / COUNT,
            "ece": ece / counted["labelled"],
            "worst_class": min(sum(mine) / len(mine) for mine in by_class.values()),
            "copied_errors": counted["copied"] / counted["teacher_errors"],
            "corrected_errors": counted["corrected"] / counted["teacher_errors"],
            "broken": counted["broken"] / counted["teacher_right"],
        }
    )
    found = mimicry(answers(student, teacher, labels))
    assert {name: getattr(found, name) for name in ("copied", "corrected", "otherwise_wrong", "broken")} == {
        name: counted[name] for name in ("copied", "corrected", "otherwise_wrong", "broken")
    }
    assert found.copied + found.corrected + found.otherwise_wrong == found.teacher_errors > 10


def test_figures_are_those_of_torchmetrics() -> None:
    make_torchvision_importable()
    import torch
    from torchmetrics.functional import classification, kl_divergence

    student, teacher, labels = made(unlabelled=0)
    found = answers(student, teacher, labels)
    ours, theirs = (torch.softmax(torch.from_numpy(one).double(), dim=1) for one in (student, teacher))
    known = (ours, torch.from_numpy(labels), CLASSES)
    told = figures(found, CLASSES)
    assert told["ece"] == pytest.approx(float(classification.multiclass_calibration_error(*known, n_bins=BINS)))
    assert told["divergence"] == pytest.approx(float(kl_divergence(theirs, ours)))
    assert told["accuracy"] == pytest.approx(float(classification.multiclass_accuracy(*known, average="micro")))
    assert (confusion(found, CLASSES) == classification.multiclass_confusion_matrix(*known).numpy()).all()


def test_the_surest_belong_to_the_last_bin() -> None:
    found = sure([1.0, 1.0, 0.95], right=[True, False, True])
    bins = calibration(found)
    assert [one.count for one in bins] == [0] * (BINS - 1) + [3]
    assert calibration_error(bins) == pytest.approx(abs((1 + 1 + 0.95) / 3 - 2 / 3))


def sure(confidence: list[float], right: list[bool]) -> Answers:
    zeros = np.zeros(len(right), np.int64)
    said = np.where(right, 0, 1).astype(np.int64)
    return Answers(
        labels=zeros, teacher=zeros, said=said, confidence=np.array(confidence), divergence=np.zeros(len(right))
    )


def test_unlabelled_examples_have_agreement_alone() -> None:
    student, teacher, labels = made(unlabelled=COUNT)
    found = figures(answers(student, teacher, labels), CLASSES)
    assert {name for name, value in found.items() if value is not None} == {"agreement", "divergence"}
    assert confusion(answers(student, teacher, labels), CLASSES).sum() == 0


def test_the_teacher_beside_itself_copies_everything_and_breaks_nothing() -> None:
    _, teacher, labels = made()
    found = figures(answers(teacher, teacher, labels), CLASSES)
    assert (found["agreement"], found["copied_errors"], found["broken"], found["accuracy_gap"]) == (1, 1, 0, 0)
    assert found["divergence"] == pytest.approx(0, abs=1e-12)


def test_a_small_class_is_not_the_worst() -> None:
    counts = np.array([[0, 4, 0], [1, 9, 0], [3, 0, 2]])
    assert worst_class(counts) == (2, 0.4)
    assert worst_class(counts[:1]) is None


def test_the_interval_of_a_share_is_wilsons() -> None:
    from scipy.stats import binomtest

    for count, of in ((0, 30), (27, 30), (30, 30), (812, 1000)):
        ours, theirs = share_interval(count, of), binomtest(count, of).proportion_ci(0.95, "wilson")
        assert ours is not None and ours.low <= count / of <= ours.high
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-6)
    assert share_interval(1, 1) is None


def test_the_interval_of_a_mean_is_the_textbooks() -> None:
    values = np.random.default_rng(1).normal(0.3, 0.2, 400)
    found = mean_interval(values)
    error = 1.96 * values.std() / math.sqrt(400)
    assert found is not None and found == mean_interval(values) and found.examples == 400
    assert (found.low, found.high) == pytest.approx((values.mean() - error, values.mean() + error), abs=0.002)
    assert mean_interval(values[:1]) is None


def test_the_interval_of_a_difference_is_the_bootstrap_of_pairs() -> None:
    rng = np.random.default_rng(2)
    hard = rng.random(500) < 0.4  # for both
    mine, other = ~hard & (rng.random(500) < 0.98), ~hard & (rng.random(500) < 0.94)
    found = difference_interval(mine, other)
    values = mine.astype(float) - other
    drawn = values[rng.integers(0, 500, (4000, 500))].mean(axis=1)
    assert found is not None
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.004)
    own = share_interval(int(mine.sum()), 500)
    assert own is not None and found.high - found.low < 0.6 * (own.high - own.low)
    same = difference_interval(mine, mine)
    assert same is not None and same.low == same.high == 0.0


def test_mcnemar_is_the_sign_test_of_those_that_differ() -> None:
    mine = np.array([True] * 9 + [False] * 1 + [True] * 20)
    other = np.array([False] * 9 + [True] * 1 + [True] * 20)
    by_hand = 2 * sum(math.comb(10, k) for k in (0, 1)) / 2**10
    assert mcnemar(mine, other) == mcnemar(other, mine) == pytest.approx(by_hand)
    assert mcnemar(mine, mine) == 1.0
