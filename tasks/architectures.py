"""Which student for an effect: several architectures after equal training samples, in float32 and in int8.

Reads pairs/ of data/students/NAME and the architectures of CANDIDATES (default: tasks/architectures.yaml). Each is
trained from scratch on the same batches with the student's own recipe (without `quantise_aware`) and quantised; all
files are timed in turn in one process and measured on the test pairs. Writes OUT (default: data/architectures/NAME):
index.html, architectures.json, architectures.md (the table), architectures.png (quality over latency, the Pareto front
marked) and samples.png. May be killed and run again: what is finished is kept in data/.work/NAME/apart.

Command: python -m tasks.architectures --student NAME [--out FOLDER] [--steps 600] [--seeds 0 1] [--only NAME ...]
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from models.errors import UserError
from tasks.params import load_params
from tasks.pareto import compare, export_beside
from tasks.stage import STUDENTS, guarded
from tasks.student_params import Architecture, Control
from tasks.trained_apart import SCRATCH, train_apart

COMPARED = Path("data/architectures")
CANDIDATES = Path(__file__).parent / "architectures.yaml"


def read_candidates(path: Path, only: Sequence[str]) -> dict[str, Architecture]:
    """The architectures of a file by name, those of `only` if it names any; UserError for what is none."""
    try:
        raw: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split())})") from None
    if not isinstance(raw, Mapping) or not raw:
        raise UserError(f"{path} holds no architectures: names with what `architecture` in params.yaml has")
    unknown = [name for name in only if name not in raw]
    if unknown:
        raise UserError(f"{path} has no {unknown[0]!r}; there are: {', '.join(map(str, raw))}")
    found = {}
    for name in only or list(raw):
        try:
            found[str(name)] = Architecture.model_validate(raw[name])
        except ValidationError as error:
            first = error.errors()[0]
            raise UserError(f"{path}: {name}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    return found


def architectures(
    name: str, out: Path, candidates: Mapping[str, Architecture], *, steps: int, seeds: Sequence[int]
) -> None:
    """Make all students, measure them and write `out`."""
    from models.torch_setup import prepare_torch

    params = load_params()
    # Without a slider, and from scratch, as start weights fit one architecture alone.
    block = params.student(name).model_copy(update={"init": SCRATCH, "control": Control(by="none", baked=[])})
    prepare_torch(params.train.threads)
    folders: dict[str, list[Path]] = {}
    for label, architecture in candidates.items():
        for seed in seeds:
            print(f"architectures: {label}, seed {seed}", file=sys.stderr)
            train = block.train.model_copy(update={"steps": steps, "seed": seed})
            one = block.model_copy(update={"architecture": architecture, "train": train})
            folders.setdefault(label, []).append(train_apart(params, name, one))
            export_beside(folders[label][-1], STUDENTS / name / "pairs", params)
    about = {"steps": steps, "seeds": list(seeds)}
    about["architectures"] = {label: one.model_dump() for label, one in candidates.items()}
    title = f"Architectures after {steps} steps"
    compare(out, "architectures", title, folders, about=about, params=params, name=name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tasks.architectures")
    parser.add_argument("--student", required=True, help="a name under `students:` in params.yaml, curated")
    parser.add_argument("--out", type=Path, help="default: data/architectures/NAME")
    parser.add_argument("--candidates", type=Path, default=CANDIDATES, help="a YAML file of architectures by name")
    parser.add_argument("--only", nargs="+", default=[], help="names in it")
    parser.add_argument("--steps", type=int, default=600, help="of training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    asked = parser.parse_args()
    guarded(
        "architectures",
        lambda: architectures(
            asked.student,
            asked.out or COMPARED / asked.student,
            read_candidates(asked.candidates, asked.only),
            steps=asked.steps,
            seeds=asked.seeds,
        ),
        asked.student,
    )
