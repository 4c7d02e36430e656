"""What was measured of one bundle's int8 file that gives logits, on the test examples: judged by tasks/gate.py.

Which examples it answers right, and on which it agrees with its teacher, is written example by example, so that a
candidate and its champion can be compared in pairs. Where no test example has a label, the figures about labels are
None and `without_labels` says so; agreement with the teacher is left.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from models.errors import UserError
from tasks.file_evidence import FileEvidence, known
from tasks.records import Record

YES, NO, UNLABELLED = "1", "0", "-"  # of one example
SHARES_AGREE = 1e-5  # how far a share may lie from that of the examples: rounding, no more


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassCount(Record):
    """The labelled test examples of one class."""

    name: str
    count: int
    right: int  # that the file answers right


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelEvidence(FileEvidence):
    """Everything measured of one file on the test examples."""

    kind: ClassVar[str] = "labels"

    accuracy: float | None = None  # of labelled examples
    teacher_accuracy: float | None = None
    majority_accuracy: float | None = None  # of the class that training has most of, always said
    agreement: float | None = None  # with the teacher's class, of all examples
    ece: float | None = None  # expected calibration error, 15 bins
    copied_errors: float | None = None  # of the teacher's errors those that it repeats, the same wrong class
    broken: float | None = None  # of the teacher's right answers those on which it is wrong
    int8_accuracy_drop: float | None = None  # accuracy of its own float file minus its own
    int8_accuracy_drop_high: float | None = None  # upper end of that difference's paired 95 % interval
    errors_note: str = ""  # of how many errors of the teacher
    without_labels: str = ""  # why figures about labels are missing
    without_errors: str = ""  # why nothing is said of the teacher's errors

    # Example by example, in the order of the test split.
    reference: str | None = None  # digest of the labels and of the teacher's classes
    right: str = ""  # a letter each: 1 right, 0 wrong, - without a label
    agreed: str = ""  # 1 where it says what the teacher says, else 0
    classes: tuple[ClassCount, ...] = ()

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The evidence a JSON object stands for; a UserError when its keys are not this version's."""
        try:
            classes = tuple(ClassCount.from_json(one) for one in value["classes"])
            return cls(**{key: inner for key, inner in value.items() if key != "kind"} | {"classes": classes})
        except (TypeError, KeyError) as error:
            raise UserError(f"the evidence does not fit this version ({error}): run dvc repro evaluate") from None

    def unlike(self, champion: Self) -> str:
        """Why the two were not measured on the same labels and answers of the teacher; "" where they were."""
        if not self.reference or not champion.reference:
            return "on which labels and answers of the teacher candidate or champion were measured is not known"
        if self.reference != champion.reference:
            return "candidate and champion were measured on different labels or answers of the teacher"
        return ""


def examples_of(evidence: LabelEvidence, column: str, of: str) -> str | Sequence[str]:
    """The letters of `right` or `agreed` as a list, if they make up the figure `of`; else why they cannot be used."""
    letters, figure = getattr(evidence, column), getattr(evidence, of)
    allowed = {YES, NO, UNLABELLED} if column == "right" else {YES, NO}
    if not isinstance(letters, str) or not letters or not set(letters) <= allowed:
        return "does not say it example by example"
    told = len(letters) - letters.count(UNLABELLED)
    if len(letters) != evidence.test_samples or not told:
        return "has examples that do not make up the test samples"
    if not known(figure) or not abs(letters.count(YES) / told - figure) <= SHARES_AGREE:
        return f"has examples that do not add up to the {of}"
    return list(letters)


def classes_of(evidence: LabelEvidence) -> str | dict[str, ClassCount]:
    """The classes by name, if they make up the examples; else why they cannot be used."""
    letters = examples_of(evidence, "right", "accuracy")
    if isinstance(letters, str):
        return letters
    classes = {one.name: one for one in evidence.classes}
    if len(classes) < len(evidence.classes) or not all(
        known(number) for one in evidence.classes for number in (one.count, one.right)
    ):
        return "has a class that is told twice, or whose counts are not finite numbers"
    if any(not 0 <= one.right <= one.count for one in evidence.classes):
        return "has a class with more right answers than examples"
    sums = sum(one.count for one in classes.values()), sum(one.right for one in classes.values())
    if sums != (len(letters) - letters.count(UNLABELLED), letters.count(YES)):
        return "has classes that do not make up the test samples"
    return classes
