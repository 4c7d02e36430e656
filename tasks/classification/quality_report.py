"""What a classifier's report tells of quality: every figure with what it means, and rows for tables, bars, words."""

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.classification.phone import LEAST_ERRORS
from tasks.classification.quality import MAJORITY, TEACHER
from tasks.quality_report import ABSENT

Json = Mapping[str, Any]

CLASSES_SHOWN = 20  # bars, of the worst
CONFUSED_SHOWN = 8  # pairs of classes
WIDEST = 24  # classes of which the whole confusion is still read
# Of every figure: its heading, how it is written, what is right, and what it means.
FIGURES: dict[str, tuple[str, str, str, str]] = {
    "accuracy": ("Accuracy", "{:.3f}", "1 is best", "The share of the labelled test examples that it answers right."),
    "agreement": (
        "Agreement",
        "{:.3f}",
        "1 is the teacher",
        "The share of all test examples on which it says what its teacher says, right or wrong. High agreement with "
        "low accuracy is a teacher well copied, not a task well learnt.",
    ),
    "divergence": (
        "Divergence",
        "{:.3f}",
        "0 is the teacher",
        "Kullback-Leibler divergence from the teacher's probabilities to its own, in nats, the mean over examples: how "
        "much of what the teacher holds possible besides its answer was not learnt.",
    ),
    "ece": (
        "Calibration error",
        "{:.3f}",
        "0 is best",
        "How far its confidence lies from how often it is right, over 15 bins of confidence, the mean over examples.",
    ),
    "worst_class": (
        "Worst class",
        "{:.3f}",
        "1 is best",
        "Accuracy on the class where it is least, of those with at least 5 labelled test examples.",
    ),
    "copied_errors": (
        "Errors copied",
        "{:.0%}",
        "0 is best",
        "Of the examples on which the teacher is wrong, those on which it gives the same wrong answer. Networks that "
        "never met share some too, as the same examples are hard for all.",
    ),
    "corrected_errors": (
        "Errors corrected",
        "{:.0%}",
        "all is best",
        "Of the examples on which the teacher is wrong, those that it answers right.",
    ),
    "broken": (
        "Answers broken",
        "{:.1%}",
        "0 is best",
        "Of the examples on which the teacher is right, those that it answers wrong.",
    ),
}


def contestants(quality: Json) -> list[dict[str, Any]]:
    """The rows of the quality table: the student, its files (the phone's stands out), its teacher, the baseline."""
    named = [("student", "Student, torch", quality["student"])]
    named += [
        ("shown" if file == quality["phone"] else "file", file, figures) for file, figures in quality["files"].items()
    ]
    named += [("baseline", "Teacher", quality[TEACHER])]
    named += [("baseline", f"Always “{quality['commonest']}”", quality["baselines"][MAJORITY])]
    return [
        {"kind": kind, "label": label, "cells": {name: written(name, figures.get(name)) for name in FIGURES}}
        for kind, label, figures in named
    ]


def written(name: str, value: float | None) -> str:
    """A figure as text."""
    return ABSENT if value is None else FIGURES[name][1].format(value)


def class_rows(quality: Json) -> list[dict[str, Any]]:
    """The classes that have test examples, worst first, with bars and the teacher's marks in percent."""
    rows = [row for row in quality["per_class"] if row["count"]]
    return [
        {**row, "bar": round(100 * row["accuracy"], 2), "mark": round(100 * row["teacher_accuracy"], 2)}
        | {"worst": row["name"] == quality["worst_class"]}
        for row in sorted(rows, key=lambda row: (row["accuracy"], -row["count"], row["name"]))
    ]


def confusion_rows(quality: Json) -> list[dict[str, Any]]:
    """The confusion by rows, none for more than WIDEST classes.

    A cell's shade in percent grows with the root of its share of the row, so that rare confusions are seen and differ.
    """
    if len(quality["classes"]) > WIDEST:
        return []
    return [
        {
            "name": name,
            "cells": [
                {
                    "count": count,
                    "shade": round(70 * (count / max(1, sum(counts))) ** 0.5),
                    "right": place == column,
                }
                for column, count in enumerate(counts)
            ],
        }
        for place, (name, counts) in enumerate(zip(quality["classes"], quality["confusion"], strict=True))
    ]


def confused(quality: Json) -> list[dict[str, Any]]:
    """The pairs of classes that are confused most often."""
    classes = quality["classes"]
    pairs = [
        {"name": classes[row], "said": classes[column], "count": count, "of": sum(counts)}
        for row, counts in enumerate(quality["confusion"])
        for column, count in enumerate(counts)
        if row != column and count
    ]
    return sorted(pairs, key=lambda one: (-one["count"], one["name"], one["said"]))[:CONFUSED_SHOWN]


def mimicry_words(quality: Json) -> list[str]:
    """What became of the teacher's errors and right answers, in sentences."""
    told, phone = quality["mimicry"], quality["files"][quality["phone"]]
    words = [f"It says what its teacher says on {phone['agreement']:.1%} of {quality['test_samples']} test examples."]
    if not quality["labelled"]:
        return [*words, "No test example has a label, so that nobody can say which of the two is right."]
    errors, right = told["teacher_errors"], told["teacher_right"]
    if errors:
        words.append(
            f"The teacher is wrong on {counted(errors, 'labelled example')}. Of these it repeats {told['copied']} with "
            f"the same wrong answer, corrects {told['corrected']}, and gives another wrong answer to "
            f"{told['otherwise_wrong']}."
        )
    if errors < LEAST_ERRORS:
        words.append(f"That is fewer than {LEAST_ERRORS} errors, so that the gate does not judge what is copied.")
    if right:
        words.append(f"The teacher is right on {right}. Of these it breaks {told['broken']}.")
    return words


def counted(count: int, what: str) -> str:
    """The number with its noun."""
    return f"{count} {what}{'s' if count != 1 else ''}"


def drop_rows(quality: Json) -> list[dict[str, Any]]:
    """What int8 and the like cost, as text."""
    return [
        {
            **row,
            "lost": ABSENT if row["drop"] is None else f"{100 * row['drop']:+.2f}",
            "between": between(row["interval"]),
            "chance": ABSENT if row["p"] is None else f"{row['p']:.2f}" if row["p"] >= 0.01 else "< 0.01",
            "changed": f"{row['flipped']:.1%}",
        }
        for row in quality["int8"]
    ]


def between(interval: Json | None) -> str:
    """An interval of a difference, in percentage points."""
    return f"{100 * interval['low']:+.2f} to {100 * interval['high']:+.2f}" if interval else ABSENT


def example_rows(quality: Json, names: Sequence[str]) -> list[dict[str, Any]]:
    """The worst examples with classes by name, and what kind of error each is."""
    return [
        {
            **one,
            "label_name": names[one["label"]] if one["label"] >= 0 else "",
            "teacher_name": names[one["teacher"]],
            "said_name": names[one["said"]],
            "error": kind_of(one),
        }
        for one in quality["worst"]
    ]


def kind_of(one: Json) -> str:
    """Whose error it is, in words."""
    if one["label"] < 0:
        return "at odds with the teacher"
    if one["teacher"] == one["label"]:
        return "broken: the teacher is right"
    return "copied from the teacher" if one["said"] == one["teacher"] else "both wrong, in two ways"
