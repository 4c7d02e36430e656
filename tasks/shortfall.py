"""What a student's missing effect is lost to: how near it is to its teacher, step by step, and what each step takes.

Explained effect of the phone's file on test pictures is below the float student's by what quantisation takes; that is
below its own on the training pictures by what unseen inputs take (more data would give it back); what is missing there
is beyond the student as it is trained: capacity, loss or steps, which `python -m tasks.ceiling` tells apart by training
students that differ in one of them. Called by tasks/evaluate.py.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tasks.quality import DIGITS, Pictures

QUANTISATION, DATA, REST = "quantisation", "data", "rest"
LEAST = 0.02  # of explained effect: a smaller part limits nothing
NAMES = {QUANTISATION: "quantisation", DATA: "data: unseen inputs", REST: "capacity, loss or steps"}
# What helps against each part.
HELP = {
    QUANTISATION: "Layers kept in float (quantise.min_psnr_db), or longer training with the rounding in it "
    "(quantise_aware), would give some of it back.",
    DATA: "More inputs like those the app sees would give some of it back; see the coverage.",
    REST: "It is missing on the training pictures too. A wider student, other losses or longer training would give "
    "some of it back: python -m tasks.ceiling says which.",
}


def shortfall(
    explained: Mapping[str, float], errors: Mapping[str, Any], inputs: Pictures, targets: Pictures
) -> dict[str, Any]:
    """quality.json's `shortfall`: explained effect on test pictures of `phone` and `float`, on training; the parts.

    `errors` is errors.json, `inputs` and `targets` are the training arrays (N,S,S,3) uint8.
    """
    change = sum(change_of(inputs, targets, errors["rows"]))
    taught = 1 - sum(errors["error"]) / change if change else 0.0
    parts = {
        QUANTISATION: explained["float"] - explained["phone"],
        DATA: taught - explained["float"],
        REST: 1 - max(taught, explained["float"]),
    }
    worst = max(parts, key=lambda part: parts[part])
    return {
        "phone": round(explained["phone"], DIGITS),
        "float": round(explained["float"], DIGITS),
        "training": round(taught, DIGITS),
        "parts": {part: round(value, DIGITS) for part, value in parts.items()},
        "limited_by": worst if parts[worst] >= LEAST else "",
    }


def change_of(inputs: Pictures, targets: Pictures, rows: Sequence[int]) -> list[float]:
    """Mean squared error of leaving each of these inputs as it is, values in [0,1]."""
    differences = ((inputs[row].astype(np.float32) - targets[row]) / 255 for row in rows)
    return [float(np.square(one, dtype=np.float64).mean()) for one in differences]


def shown_parts(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the page shows: the reached effect, then each part that is lost, with its share of a bar in percent."""
    rows = [{"name": "reached", "value": found["phone"], "help": ""}]
    rows += [{"name": NAMES[part], "value": value, "help": HELP[part]} for part, value in found["parts"].items()]
    return [row | {"bar": round(100 * min(1.0, max(0.0, row["value"])), 2)} for row in rows]
