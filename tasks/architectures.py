"""Which student for an effect: several architectures after equal training samples, in float32 and in int8.

Reads pairs/ of data/students/NAME and the architectures of CANDIDATES (default: tasks/architectures.yaml). Each is
trained from scratch on the same batches with the student's own recipe (without `quantise_aware`) and quantised; all
files are timed in turn in one process and measured on the test pairs. Writes OUT (default: data/architectures/NAME):
index.html, architectures.json, architectures.md (the table), architectures.png (quality over latency, the Pareto front
marked) and samples.png. May be killed and run again: what is finished is kept in data/.work/NAME/architectures.

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
from tasks.files import read_json, sha256_json
from tasks.params import Architecture, Params, Student, load_params
from tasks.pareto import compare, finish
from tasks.stage import STUDENTS, guarded, work_folder

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


def make(params: Params, name: str, block: Student) -> Path:
    """The folder with student/ and exported/ of one architecture and seed; made if it is not there yet."""
    from accelerate.utils import set_seed

    from models.students import build_student
    from tasks.learning import CODE, digests, learn, make_recipe

    pairs = STUDENTS / name / "pairs"
    work = {"architecture": block.architecture.model_dump(), "train": block.train.model_dump(), "code": digests(CODE)}
    work |= {"pairs": read_json(pairs / "pairs.json")["digest"], "quantise": params.quantise.model_dump()}
    folder = work_folder(name) / "architectures" / sha256_json(work)[:16]
    if (folder / "exported" / "exported.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    set_seed(block.train.seed)
    student = build_student(block.architecture.model_dump(), block.pairs.size)
    trained, curve = learn(name, block, student, make_recipe(params, block), folder / "checkpoint.safetensors")
    record = {"architecture": block.architecture.model_dump(), "size": block.pairs.size}
    finish(folder, pairs, params, trained, record, curve)
    return folder


def architectures(
    name: str, out: Path, candidates: Mapping[str, Architecture], *, steps: int, seeds: Sequence[int]
) -> None:
    """Make all students, measure them and write `out`."""
    from models.torch_setup import prepare_torch

    params = load_params()
    block = params.student(name)
    prepare_torch(params.train.threads)
    folders: dict[str, list[Path]] = {}
    for label, architecture in candidates.items():
        for seed in seeds:
            print(f"architectures: {label}, seed {seed}", file=sys.stderr)
            train = block.train.model_copy(update={"steps": steps, "seed": seed})
            one = block.model_copy(update={"architecture": architecture, "train": train})
            folders.setdefault(label, []).append(make(params, name, one))
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
