"""What a student's missing effect is lost to: how near it is to its teacher, step by step, and what each step takes.

Explained effect of the phone's file on test pictures is below the float student's by what quantisation takes; that is
below its own on the training pictures by what unseen inputs take (more data would give it back); what is missing there
is beyond the student as it is trained: capacity, loss or steps, which `python -m tasks.ceiling` tells apart by training
students that differ in one of them. Where the teacher was asked twice (`pairs.again`), what its answers owe to the seed
alone is set apart: two answers differ by twice the variance of one, and no student can foretell that variance. Called
by tasks/evaluate.py.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks.quality import DIGITS, Pictures
from tasks.records import Verdict, read_records, rows_of

QUANTISATION, DATA, CHANCE, REST = "quantisation", "data", "chance", "rest"
LEAST = 0.02  # of explained effect: a smaller part limits nothing
NAMES = {
    QUANTISATION: "quantisation",
    DATA: "data: unseen inputs",
    CHANCE: "the teacher's own chance",
    REST: "capacity, loss or steps",
}
# What helps against each part.
HELP = {
    QUANTISATION: "Layers kept in float (quantise.min_psnr_db), or longer training with the rounding in it "
    "(quantise_aware), would give some of it back.",
    DATA: "More inputs like those the app sees would give some of it back; see the coverage.",
    CHANCE: "With another seed the teacher answers otherwise, which no student can foretell. A teacher with one seed, "
    "or the mean of several answers, would take it away.",
    REST: "It is missing on the training pictures too. A wider student, other losses or longer training would give "
    "some of it back: python -m tasks.ceiling says which.",
}


def shortfall(
    explained: Mapping[str, float],
    errors: Mapping[str, Any],
    inputs: Pictures,
    targets: Pictures,
    again: Mapping[int, float] | None = None,
) -> dict[str, Any]:
    """quality.json's `shortfall`: explained effect on test pictures of `phone` and `float`, on training; the parts.

    `errors` is errors.json, `inputs` and `targets` are the training arrays (N,S,S,3) uint8, `again` of some of their
    rows how far the teacher's second answer lay from the first (Pair.disagreement).
    """
    itself = to_itself(again or {}, inputs, targets)
    change = sum(change_of(inputs, targets, errors["rows"]))
    taught = 1 - sum(errors["error"]) / change if change else 0.0
    parts = {
        QUANTISATION: explained["float"] - explained["phone"],
        DATA: taught - explained["float"],
    }
    rest = 1 - max(taught, explained["float"])
    if itself is not None:
        parts[CHANCE] = min(max(rest, 0.0), (1 - itself) / 2)
        rest -= parts[CHANCE]
    parts[REST] = rest
    worst = max(parts, key=lambda part: parts[part])
    return {
        "phone": round(explained["phone"], DIGITS),
        "float": round(explained["float"], DIGITS),
        "training": round(taught, DIGITS),
        "teacher_to_itself": None if itself is None else round(itself, DIGITS),
        "asked_again": len(again or {}),
        "parts": {part: round(value, DIGITS) for part, value in parts.items()},
        "limited_by": worst if parts[worst] >= LEAST else "",
    }


def asked_again(kept: Path, count: int) -> dict[int, float]:
    """Of the `count` training rows for which the teacher was asked twice: how far its two answers lie apart."""
    verdicts = rows_of(read_records(kept, Verdict), "train", count, kept)
    return {row: one.scores["inconsistency"] for row, one in enumerate(verdicts) if "inconsistency" in one.scores}


def to_itself(again: Mapping[int, float], inputs: Pictures, targets: Pictures) -> float | None:
    """Explained effect of the teacher's own second answers, (row -> root mean square difference); None without any."""
    change = sum(change_of(inputs, targets, list(again)))
    return 1 - sum(apart**2 for apart in again.values()) / change if change else None


def change_of(inputs: Pictures, targets: Pictures, rows: Sequence[int]) -> list[float]:
    """Mean squared error of leaving each of these inputs as it is, values in [0,1]."""
    differences = ((inputs[row].astype(np.float32) - targets[row]) / 255 for row in rows)
    return [float(np.square(one, dtype=np.float64).mean()) for one in differences]


def shown_parts(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the page shows: the reached effect, then each part that is lost, with its share of a bar in percent."""
    rows = [{"name": "reached", "value": found["phone"], "help": ""}]
    rows += [{"name": NAMES[part], "value": value, "help": HELP[part]} for part, value in found["parts"].items()]
    return [row | {"bar": round(100 * min(1.0, max(0.0, row["value"])), 2)} for row in rows]
