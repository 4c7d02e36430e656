"""Whether `understudy trace` finds wrong answers: some are planted, a student is taught them, and it is asked.

Reads data/students/NAME (curated). For each fault a tenth of the training inputs, those of one kind, gets wrong
targets; a student is trained and exported in a workspace of its own, and test inputs of that kind are traced, and as
many of other kinds. Of the pairs that the first traces name as what the student has its picture from, precision is the
share that was planted; recall is the share of the planted ones that any of them names. Beside it how many traces say
`teacher error copied`, of that kind and of the others, where it would be wrong. Writes OUT (default:
data/trace-planted/NAME): planted.json and planted.md. May be killed and run again: a fault that is done is kept.

Command: python -m tasks.trace_planted --student NAME [--steps 600] [--faults grey cast half same] [--out FOLDER]
"""

import argparse
import contextlib
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.files import read_json, replacing_folder, sha256_file, sha256_json, write_json, write_text
from tasks.markdown import markdown
from tasks.params import Params, changed_student, load_params
from tasks.quality import read_pairs
from tasks.stage import STUDENTS, guarded, work_folder
from tasks.trace import look
from tasks.trace_verdict import COPIED

Pictures = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

FOUND = Path("data/trace-planted")
SHARE = 0.1  # of the inputs, which are of the kind
TRACED = 24  # test inputs, at most, of the kind and of the others
# What is planted: (N,S,S,3) inputs and right targets -> wrong ones.
FAULTS: dict[str, Callable[[Pictures, Pictures], Pictures]] = {
    "grey": lambda x, y: np.repeat(y.mean(axis=-1, keepdims=True), 3, axis=-1).astype(np.uint8),
    "cast": lambda x, y: np.clip(y.astype(np.int16) + np.array([25, 0, -25], np.int16), 0, 255).astype(np.uint8),
    "half": lambda x, y: ((x.astype(np.uint16) + y) // 2).astype(np.uint8),
    "same": lambda x, y: x,
}


def dark(inputs: Pictures, like: Pictures) -> Mask:
    """Which of (N,S,S,3) belong to the darkest tenth of `like`."""
    light, bound = (one.mean(axis=(1, 2, 3)) for one in (inputs, like))
    found: Mask = light < np.quantile(bound, SHARE)
    return found


def plant(workspace: Path, name: str, fault: str, params: Params, steps: int) -> tuple[Mask, Mask]:
    """Make the workspace with wrong targets and a student of them; which training and test rows are of the kind."""
    own = workspace / STUDENTS / name
    shutil.copytree(STUDENTS / name / "pairs", own / "pairs")
    for lent in (STUDENTS / name / "raw", Path("data/inputs"), Path("models")):
        (workspace / lent).symlink_to(lent.absolute())
    inputs, _ = read_pairs(own / "pairs", "train")
    tested, _ = read_pairs(own / "pairs", "test")
    wrong = dark(inputs, inputs)
    targets = np.load(own / "pairs" / "train.targets.npy", mmap_mode="r+", allow_pickle=False)
    targets[wrong] = FAULTS[fault](inputs[wrong], targets[wrong])
    targets.flush()
    record = read_json(own / "pairs" / "pairs.json")
    record["files"]["train.targets.npy"] = sha256_file(own / "pairs" / "train.targets.npy")
    record["digest"] = sha256_json([record["digest"], fault, record["files"]])
    write_json(own / "pairs" / "pairs.json", record)
    changes = {"train.steps": steps, "quantise_aware.steps": 0, "compress.prune": 0.0, "compress.low_rank": 1.0}
    block = changed_student(params.student(name), changes, "planted")
    shared = params.train.model_copy(update={"processes": 1})
    alone = params.model_copy(update={"students": {name: block}, "train": shared})
    write_json(workspace / "params.yaml", alone.model_dump(mode="json"))  # JSON is YAML
    with contextlib.chdir(workspace):
        from tasks.quantise import quantise
        from tasks.train import train

        train(alone, name, block)
        quantise(alone, name, block)
        write_json(STUDENTS / name / "detector" / "detector.json", {"without": "this is about wrong answers alone"})
    return wrong, dark(tested, inputs)


def ask(workspace: Path, name: str, wrong: Mask, of_kind: Mask) -> dict[str, Any]:
    """Trace test inputs of the kind and others; figures as in planted.json."""
    with contextlib.chdir(workspace):
        tested, _ = read_pairs(STUDENTS / name / "pairs", "test")
        named: set[int] = set()
        told = {"of_kind": 0, "others": 0}
        asked = {
            "of_kind": np.flatnonzero(of_kind)[:TRACED].tolist(),
            "others": np.flatnonzero(~of_kind)[:TRACED].tolist(),
        }
        for whose, rows in asked.items():
            for row in rows:
                found = look(name, np.asarray(tested[row]), 1)
                told[whose] += any(sign.kind == COPIED and sign.found for sign in found.signs)
                if whose == "of_kind":
                    named |= set(found.named.tolist())
    right = sum(bool(wrong[row]) for row in named)
    return {
        "planted": int(wrong.sum()),
        "pairs": len(wrong),
        "named": len(named),
        "precision": right / len(named) if named else None,
        "recall": right / int(wrong.sum()),
        "traced": {whose: len(rows) for whose, rows in asked.items()},
        "copied": told,
    }


def planted(name: str, faults: Sequence[str], steps: int, out: Path) -> None:
    """Plant, teach, ask, for each fault; write `out`."""
    params = load_params()
    rows: dict[str, dict[str, Any]] = {}
    for fault in faults:
        folder = work_folder(name) / "planted" / f"{fault}-{steps}"
        if not (folder / "found.json").exists():
            print(f"trace_planted: {fault}", file=sys.stderr)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            found = ask(folder, name, *plant(folder, name, fault, params, steps))
            write_json(folder / "found.json", found)
        rows[fault] = read_json(folder / "found.json")
    table = to_table(rows)
    with replacing_folder(out) as made:
        write_json(made / "planted.json", {"student": name, "steps": steps, "found": rows})
        write_text(made / "planted.md", table)
    print(table)


def to_table(rows: dict[str, dict[str, Any]]) -> str:
    """Markdown, a row a fault."""
    head = ["planted", "wrong pairs", "named", "precision", "recall", "copied, said of the kind", "of others"]
    lines = []
    for fault, one in rows.items():
        precision = "" if one["precision"] is None else f"{one['precision']:.2f}"
        said = [f"{one['copied'][whose]} of {one['traced'][whose]}" for whose in ("of_kind", "others")]
        lines.append(
            [fault, f"{one['planted']} of {one['pairs']}", str(one["named"]), precision, f"{one['recall']:.2f}", *said]
        )
    return markdown(head, lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tasks.trace_planted")
    parser.add_argument("--student", required=True, help="a name under `students:` in params.yaml, curated")
    parser.add_argument("--steps", type=int, default=600, help="of training")
    parser.add_argument("--faults", nargs="+", choices=list(FAULTS), default=list(FAULTS))
    parser.add_argument("--out", type=Path, help="default: data/trace-planted/NAME")
    asked = parser.parse_args()
    guarded(
        "trace_planted",
        lambda: planted(asked.student, asked.faults, asked.steps, asked.out or FOUND / asked.student),
        asked.student,
    )
