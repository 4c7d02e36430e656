"""What would bring a student nearer to its teacher: students that differ from it in one thing, and what each gains.

The report says what quantisation and unseen inputs take (tasks/shortfall.py); what is left is told apart here by
training. Reads pairs/ of data/students/NAME. Trains, without the rounding of int8, the student as its block says, one
twice as wide, one by the pixel loss alone, one for twice the steps, and one on half of the inputs; of each the
explained effect on the test pictures is measured in float. What the student gains over the one on half of the inputs is
what as many again may bring. Where the teacher was asked twice (`pairs.again`), how near it comes to itself stands
beside them: that is the ceiling, as no student can foretell a seed. Writes OUT (default: data/ceiling/NAME):
ceiling.json and ceiling.md. May be killed and run again.

Command: python -m tasks.ceiling --student NAME [--steps 600] [--seeds 0 1] [--out FOLDER]
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from tasks.files import replacing_folder, write_json, write_text
from tasks.machine_state import machine
from tasks.markdown import markdown
from tasks.params import changed_student, load_params
from tasks.quality import read_pairs
from tasks.recipes import measure
from tasks.shortfall import asked_again, to_itself
from tasks.stage import STUDENTS, guarded
from tasks.trained_apart import SCRATCH, train_apart

FOUND = Path("data/ceiling")
OWN, HALF = "as it is", "half of the inputs"
# What each of the others stands for, and what to do where it gains most.
STANDS_FOR = {
    "twice as wide": ("capacity", "take wider layers (architecture), or have some searched for: understudy search"),
    "the pixel loss alone": ("loss", "weigh the losses anew; what the pixels gain, sharpness and colour may lose"),
    "twice the steps": ("steps", "train longer (train.steps)"),
    HALF: ("data", "add inputs like those the app sees"),
}
LEAST = 0.01  # of explained effect: less is chance


def changes(block: Mapping[str, Any], steps: int) -> dict[str, dict[str, Any]]:
    """What each student differs in, as keys of the block."""
    architecture = block["architecture"]
    return {
        OWN: {"train.steps": steps},
        "twice as wide": {"train.steps": steps, "architecture": wider(architecture)},
        "the pixel loss alone": {"train.steps": steps, "train.losses": {"pixel": 1.0}},
        "twice the steps": {"train.steps": 2 * steps},
        HALF: {"train.steps": steps},
    }


def wider(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """The architecture with twice the channels; of an encoder of timm's, which has its own, only the decoder."""
    encoder = str(architecture["encoder"])
    if encoder.startswith("patches"):
        head, _, widths = encoder.partition("_")
        encoder = head + "_" + re.sub(r"\d+", lambda width: str(2 * int(width[0])), widths)
    return {
        **architecture,
        "encoder": encoder,
        "decoder_channels": [2 * one for one in architecture["decoder_channels"]],
    }


def ceiling(name: str, out: Path, steps: int | None, seeds: Sequence[int]) -> None:
    """Train, measure and write `out`."""
    params = load_params()
    block = params.student(name)
    if block.init != SCRATCH:
        block = changed_student(block, {"init": SCRATCH}, "ceiling")
        print("ceiling: all begin from scratch, as the student's start weights fit no wider one", file=sys.stderr)
    pairs = STUDENTS / name / "pairs"
    found: dict[str, list[dict[str, float]]] = {}
    for seed in seeds:
        for label, change in changes(block.model_dump(), steps or block.train.steps).items():
            print(f"ceiling: {label}, seed {seed}", file=sys.stderr)
            changed = changed_student(block, change | {"train.seed": seed}, label)
            folder = train_apart(params, name, changed, 0.5 if label == HALF else 1.0)
            found.setdefault(label, []).append(measure(folder, pairs))
    told = judge({label: [one["explained_effect"] for one in of_seeds] for label, of_seeds in found.items()})
    told["teacher_to_itself"] = teacher_to_itself(pairs)
    about = {"student": name, "steps": steps or block.train.steps, "seeds": list(seeds), "machine": machine()}
    table = to_table(told)
    with replacing_folder(out) as made:
        write_json(made / "ceiling.json", about | told)
        write_text(made / "ceiling.md", f"{table}\n{told['verdict']}\n")
    print(f"{table}\n{told['verdict']}")


def teacher_to_itself(pairs: Path) -> float | None:
    """Explained effect of the teacher's own second answers; None where it was not asked twice."""
    taught = read_pairs(pairs, "train")
    found = to_itself(asked_again(pairs / "kept.jsonl", len(taught[0])), *taught)
    return None if found is None else round(found, 6)


def judge(explained: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """What each gains in explained effect over the student as it is, and which is to be mended first.

    `explained` has a value for each seed. Seeds differ by some hundredths, so what does not gain with every seed counts
    for nothing.
    """
    gains: dict[str, list[float]] = {}
    for label, values in explained.items():
        if label != OWN:
            sign = -1 if label == HALF else 1
            gains[label] = [sign * (value - own) for value, own in zip(values, explained[OWN], strict=True)]
    counted = {label: mean(of_seeds) for label, of_seeds in gains.items() if min(of_seeds) > 0}
    best = max(counted, key=lambda label: counted[label], default=None)
    verdict = "none of these limits it: it is as near to its teacher as such a student comes"
    if best and counted[best] >= LEAST:
        what, advice = STANDS_FOR[best]
        verdict = f"{what} limits it most ({counted[best]:+.3f}): {advice}"
    return {
        "explained_effect": {label: [round(value, 6) for value in values] for label, values in explained.items()},
        "gains": {STANDS_FOR[label][0]: [round(gain, 6) for gain in of_seeds] for label, of_seeds in gains.items()},
        "verdict": verdict,
    }


def to_table(told: Mapping[str, Any]) -> str:
    """Markdown, a row a student; of several seeds the means, and the gains from the least to the most."""
    lines = []
    for label, values in told["explained_effect"].items():
        what = STANDS_FOR[label][0] if label in STANDS_FOR else ""
        gains = told["gains"][what] if what else []
        gain = f"{mean(gains):+.3f}" if gains else ""
        spread = f" ({min(gains):+.3f} to {max(gains):+.3f})" if len(gains) > 1 else ""
        lines.append([label, f"{mean(values):.3f}", what, gain + spread])
    if told["teacher_to_itself"] is not None:
        lines.append(["the teacher, with another seed", f"{told['teacher_to_itself']:.3f}", "the ceiling", ""])
    return markdown(["student", "explained effect", "stands for", "gain"], lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tasks.ceiling")
    parser.add_argument("--student", required=True, help="a name under `students:` in params.yaml, curated")
    parser.add_argument("--steps", type=int, help="of training; the block's if left out")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, help="default: data/ceiling/NAME")
    asked = parser.parse_args()
    guarded(
        "ceiling",
        lambda: ceiling(asked.student, asked.out or FOUND / asked.student, asked.steps, asked.seeds),
        asked.student,
    )
