"""The gate's rules about classifiers: of each key of a classifier's `gate:` block what it looks at, against what.

Pure functions from evidence to one number, as tasks/rules.py has them of pictures. A rule about labels is not judged,
and named, where no test example has one; those about agreement with the teacher count there all the more. Candidate
and champion are compared example by example, on the candidate's test examples and its teacher's answers.
"""

from collections.abc import Callable

from models.classification.metrics import LEAST_IN_CLASS
from tasks.classification.evidence import UNLABELLED, YES, ClassCount, LabelEvidence, classes_of, examples_of
from tasks.classification.intervals import difference_interval, share_interval
from tasks.file_evidence import known
from tasks.measure import TARGET_RULES, Found, Measure, figure, ratio

Own = Callable[[LabelEvidence], Found | None]

ECE_FLOOR = 0.01  # a ratio to the champion below it is of two figures that nobody can tell apart

LABELS, TEACHER = "the labels", "the teacher's answers"
TEACHER_LABELS = "the teacher, on the labels"
MAJORITY = "the commonest class, always said"
FLOAT = "its own float file, on the same examples"
CHAMPION = "the champion, on the same examples"
NO_LABELS = "no test example has a label"
NO_ERRORS = "no test example has a label, or too few errors of the teacher are known"


def labelled(find: Callable[[LabelEvidence], Found]) -> Own:
    """The rule, but not judged where it finds nothing since no test example has a label."""

    def found(evidence: LabelEvidence) -> Found | None:
        value = find(evidence)
        return None if evidence.without_labels and value.value is None else value

    return found


def versus_labelled(
    find: Callable[[LabelEvidence, LabelEvidence], Found],
) -> Callable[[LabelEvidence, LabelEvidence], Found | None]:
    """The same of a rule about the champion."""

    def found(candidate: LabelEvidence, champion: LabelEvidence) -> Found | None:
        value = find(candidate, champion)
        return None if candidate.without_labels and value.value is None else value

    return found


def label_figure(name: str) -> Own:
    """A field as it is, of labelled examples."""
    return labelled(lambda evidence: Found(getattr(evidence, name)))


def accuracy_low(evidence: LabelEvidence) -> Found:
    """Lower end of the accuracy's 95 % interval over examples."""
    letters = examples_of(evidence, "right", "accuracy")
    if isinstance(letters, str):
        return Found(None, letters)
    told = len(letters) - letters.count(UNLABELLED)
    interval = share_interval(letters.count(YES), told)
    return Found(interval.low, f"over {told} examples") if interval else Found(None, "needs more than one example")


def difference(mine: str, other: str) -> Own:
    """One share minus another."""

    def find(evidence: LabelEvidence) -> Found:
        a, b = getattr(evidence, mine), getattr(evidence, other)
        if not known(a):
            return Found(a)
        return Found(a - b if known(b) else b)

    return labelled(find)


def worst_class(evidence: LabelEvidence) -> Found:
    """The least accuracy of all classes of at least LEAST_IN_CLASS examples."""
    classes = judged_classes(evidence)
    if isinstance(classes, str):
        return Found(None, classes)
    rates = {name: one.right / one.count for name, one in classes.items()}
    name = min(rates, key=lambda name: rates[name])
    return Found(rates[name], f"{name}, of {classes[name].count} examples")


def judged_classes(evidence: LabelEvidence) -> str | dict[str, ClassCount]:
    """The classes that are judged, by name; or why there are none."""
    classes = classes_of(evidence)
    if isinstance(classes, str):
        return classes
    judged = {name: one for name, one in classes.items() if one.count >= LEAST_IN_CLASS}
    return judged or f"has no class of {LEAST_IN_CLASS} labelled test examples"


def copied_errors(evidence: LabelEvidence) -> Found | None:
    """The share of the teacher's errors that is repeated; None where too few are known, and the evidence says so."""
    if evidence.copied_errors is None and (evidence.without_labels or evidence.without_errors):
        return None
    return Found(evidence.copied_errors, evidence.errors_note)


def gain_low(candidate: LabelEvidence, champion: LabelEvidence) -> Found:
    """Lower end of the paired 95 % interval of accuracy, candidate minus champion; of agreement without labels."""
    column, of = ("agreed", "agreement") if candidate.without_labels else ("right", "accuracy")
    mine, its = examples_of(candidate, column, of), examples_of(champion, column, of)
    if isinstance(mine, str):
        return Found(None, mine)
    if isinstance(its, str):
        return Found(None, f"of the champion {its}")
    if [one == UNLABELLED for one in mine] != [one == UNLABELLED for one in its]:
        return Found(None, "needs the same examples of both")
    ours, theirs = ([one == YES for one in letters if one != UNLABELLED] for letters in (mine, its))
    interval = difference_interval(ours, theirs)
    return Found(interval.low if interval else None, f"{of} over {len(ours)} examples")


def worst_class_gain(candidate: LabelEvidence, champion: LabelEvidence) -> Found:
    """The least gain of all classes: accuracy, candidate minus champion."""
    mine, its = judged_classes(candidate), judged_classes(champion)
    if isinstance(mine, str):
        return Found(None, mine)
    if isinstance(its, str):
        return Found(None, f"of the champion {its}")
    if {name: one.count for name, one in mine.items()} != {name: one.count for name, one in its.items()}:
        return Found(None, "needs the same classes of both")
    gains = {name: (one.right - its[name].right) / one.count for name, one in mine.items()}
    name = min(gains, key=lambda name: gains[name])
    return Found(gains[name], name)


# A key that begins with min_ is the least allowed value, one that begins with max_ the greatest; in LabelGate's order.
LABEL_RULES: dict[str, Measure] = {
    "min_accuracy": Measure(words="accuracy", against=LABELS, own=label_figure("accuracy"), unless=NO_LABELS),
    "min_accuracy_low": Measure(
        words="lower end of the accuracy's interval", against=LABELS, own=labelled(accuracy_low), unless=NO_LABELS
    ),
    "min_above_majority": Measure(
        words="accuracy beyond the commonest class's",
        against=MAJORITY,
        own=difference("accuracy", "majority_accuracy"),
        unless=NO_LABELS,
    ),
    "min_agreement": Measure(words="agreement with the teacher", against=TEACHER, own=figure("agreement")),
    "max_accuracy_drop": Measure(
        words="accuracy lost to the teacher",
        against=TEACHER_LABELS,
        own=difference("teacher_accuracy", "accuracy"),
        unless=NO_LABELS,
    ),
    "min_worst_class": Measure(
        words="accuracy on the worst class", against=LABELS, own=labelled(worst_class), unless=NO_LABELS
    ),
    "max_ece": Measure(words="expected calibration error", against=LABELS, own=label_figure("ece"), unless=NO_LABELS),
    "max_copied_errors": Measure(
        words="share of the teacher's errors that are copied",
        against=TEACHER_LABELS,
        own=copied_errors,
        unless=NO_ERRORS,
    ),
    "max_broken": Measure(
        words="share of the teacher's right answers that are broken",
        against=TEACHER_LABELS,
        own=label_figure("broken"),
        unless=NO_LABELS,
    ),
    "max_int8_accuracy_drop": Measure(
        words="upper end of the interval of the accuracy that int8 costs",
        against=FLOAT,
        own=label_figure("int8_accuracy_drop_high"),
        unless=NO_LABELS,
    ),
    "min_test_samples": Measure(words="number of test examples", against=TEACHER, own=figure("test_samples")),
    "min_gain_over_champion": Measure(words="lower end of the gain's interval", against=CHAMPION, versus=gain_low),
    "min_worst_class_gain": Measure(
        words="gain in accuracy on the worst class",
        against=CHAMPION,
        versus=versus_labelled(worst_class_gain),
        unless=NO_LABELS,
    ),
    "max_ece_over_champion": Measure(
        words="calibration error over the champion's",
        against=CHAMPION,
        versus=versus_labelled(ratio("ece", ECE_FLOOR)),
        unless=NO_LABELS,
    ),
    **TARGET_RULES,
}
