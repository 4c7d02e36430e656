"""How well a classifier answers, and how it came by its answers: example by example, and pooled over a set.

Accuracy tells how often it is right, agreement how often it says what its teacher says. The two are not the same: of
the teacher's errors a student copies some and corrects others, and of its right answers it breaks some; a student that
copies all and corrects none has learnt its teacher, not the task (Stanton et al. 2021, Does Knowledge Distillation
Really Work?). Calibration is the expected calibration error over 15 bins of confidence (Guo et al. 2017). Figures
about labels are of labelled examples alone, and None where there are none.

torchmetrics has most of these, and the tests compare with it; it is not imported here, as that takes longer than the
evaluation of ten thousand examples. Its calibration error gives a confidence of exactly 1 a sixteenth bin; here it
belongs to the last, so that the figure is that of the bins which are drawn. torch is imported where it is needed, as
the gate, which knows none, reads LEAST_IN_CLASS here.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

UNLABELLED = -1
BINS = 15
LEAST_IN_CLASS = 5  # a class of fewer labelled examples is not judged as worst: its figure is chance


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What one contestant says of N examples, beside what its teacher says and what is right; columns (N,)."""

    labels: Labels  # UNLABELLED where nobody knows
    teacher: Labels  # the class that the teacher holds most likely
    said: Labels  # the class that the contestant does
    confidence: npt.NDArray[np.float64]  # its probability of that class
    divergence: npt.NDArray[np.float64]  # KL(teacher || contestant), in nats

    @property
    def labelled(self) -> Mask:
        """Where there is a label."""
        return self.labels != UNLABELLED

    @property
    def right(self) -> Mask:
        """Where it says the label."""
        return self.said == self.labels

    @property
    def teacher_right(self) -> Mask:
        """Where its teacher says the label."""
        return self.teacher == self.labels

    @property
    def agrees(self) -> Mask:
        """Where it says what its teacher says."""
        return self.said == self.teacher


@dataclass(frozen=True, slots=True, kw_only=True)
class Mimicry:
    """What became of the teacher's errors and of its right answers, counted over labelled examples."""

    teacher_errors: int
    copied: int  # the same wrong class
    corrected: int
    otherwise_wrong: int  # another wrong class
    teacher_right: int
    broken: int  # on which the contestant is wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """The labelled examples whose confidence lies in [low, high), in the last bin [low, high]."""

    low: float
    high: float
    count: int
    confidence: float | None  # their mean
    accuracy: float | None


def answers(logits: Logits, teacher: Logits, labels: Labels) -> Answers:
    """Compare a contestant's logits (N,C) with the teacher's (N,C) and the labels (N,); of equals the first wins."""
    import torch
    from torch.nn import functional

    ours, theirs = (
        functional.log_softmax(torch.from_numpy(np.asarray(one, np.float64)), dim=1) for one in (logits, teacher)
    )
    divergence = functional.kl_div(ours, theirs, reduction="none", log_target=True).sum(dim=1)
    said = np.asarray(logits).argmax(axis=1).astype(np.int64)
    return Answers(
        labels=labels,
        teacher=np.asarray(teacher).argmax(axis=1).astype(np.int64),
        said=said,
        confidence=ours.exp().numpy()[np.arange(len(said)), said],
        divergence=divergence.numpy(),
    )


def figures(found: Answers, classes: int) -> dict[str, float | None]:
    """The set's figures; None for those that need labels, or errors of the teacher, where there are none."""
    labelled, told = found.labelled, mimicry(found)
    accuracy = share(int((found.right & labelled).sum()), int(labelled.sum()))
    teacher = share(int((found.teacher_right & labelled).sum()), int(labelled.sum()))
    worst = worst_class(confusion(found, classes))
    return {
        "accuracy": accuracy,
        "teacher_accuracy": teacher,
        "accuracy_gap": None if teacher is None or accuracy is None else teacher - accuracy,
        "agreement": float(found.agrees.mean()),
        "divergence": float(found.divergence.mean()),
        "ece": calibration_error(calibration(found)),
        "worst_class": None if worst is None else worst[1],
        "copied_errors": share(told.copied, told.teacher_errors),
        "corrected_errors": share(told.corrected, told.teacher_errors),
        "broken": share(told.broken, told.teacher_right),
    }


def share(count: int, of: int) -> float | None:
    """A share, None of nothing."""
    return count / of if of else None


def mimicry(found: Answers) -> Mimicry:
    """Count what became of the teacher's errors and right answers."""
    errors, right = found.labelled & ~found.teacher_right, found.labelled & found.teacher_right
    return Mimicry(
        teacher_errors=int(errors.sum()),
        copied=int((errors & found.agrees).sum()),
        corrected=int((errors & found.right).sum()),
        otherwise_wrong=int((errors & ~found.agrees & ~found.right).sum()),
        teacher_right=int(right.sum()),
        broken=int((right & ~found.right).sum()),
    )


def confusion(found: Answers, classes: int) -> Labels:
    """(C,C) counts of labelled examples: the row is the label, the column what was said."""
    counts: Labels = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (found.labels[found.labelled], found.said[found.labelled]), 1)
    return counts


def worst_class(counts: Labels) -> tuple[int, float] | None:
    """The class of a confusion matrix that is right least often, and how often; None where all are too small."""
    sizes = counts.sum(axis=1)
    judged = [one for one in range(len(counts)) if sizes[one] >= LEAST_IN_CLASS]
    rates: Mapping[int, float] = {one: float(counts[one, one] / sizes[one]) for one in judged}
    return min(rates.items(), key=lambda item: item[1], default=None)


def calibration(found: Answers) -> list[Bin]:
    """The labelled examples in BINS bins of equal width."""
    confidence, right = found.confidence[found.labelled], found.right[found.labelled]
    edges = np.linspace(0, 1, BINS + 1)
    places = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, BINS - 1)
    bins = []
    for place in range(BINS):
        mine = places == place
        bins.append(
            Bin(
                low=float(edges[place]),
                high=float(edges[place + 1]),
                count=int(mine.sum()),
                confidence=float(confidence[mine].mean()) if mine.any() else None,
                accuracy=float(right[mine].mean()) if mine.any() else None,
            )
        )
    return bins


def calibration_error(bins: list[Bin]) -> float | None:
    """How far confidence lies from accuracy, the mean over examples of their bin's distance; 0 is best."""
    count = sum(one.count for one in bins)
    apart = [
        one.count * abs(one.confidence - one.accuracy)
        for one in bins
        if one.confidence is not None and one.accuracy is not None
    ]
    return sum(apart) / count if count else None
