"""What cutting a trained student costs and gains: whole, pruned, factorised and both, at equal training, fp32 and int8.

Reads pairs/ and student/ of data/students/NAME. Each variant is cut from the same student, trained for the same number
of steps (the whole one too), exported and quantised; all files are timed in turn in one process on one thread and
measured on the test pairs. Writes OUT: variants.json, variants.md (the table) and variants.png (quality over latency,
the Pareto front marked). May be killed and run again: a finished variant is kept in data/.work/NAME/variants.

Command: python -m tasks.variants --student NAME --out FOLDER [--steps 300] [--prune 0 0.25 0.5] [--low-rank 1 0.7]
"""

import argparse
import itertools
import sys
from pathlib import Path

from models.errors import UserError
from tasks.files import read_json, sha256_json
from tasks.params import Compress, Params, Student, load_params
from tasks.pareto import compare, finish
from tasks.stage import STUDENTS, guarded, work_folder


def named(prune: float, low_rank: float) -> str:
    """A variant's name in the table."""
    parts = [f"pruned {prune:g}"] * (prune > 0) + [f"rank {low_rank:g}"] * (low_rank < 1)
    return ", ".join(parts) or "whole"


def make(params: Params, name: str, block: Student, steps: int, rate: float) -> Path:
    """The folder of one variant with student/ and exported/; made if it is not there yet."""
    from models.students import load_student
    from tasks.train import CODE, compress, digests, learn, make_recipe, recovery_recipe

    cut = block.compress.model_copy(update={"recovery_steps": steps, "recovery_rate": rate})
    block = block.model_copy(update={"compress": cut})
    source = STUDENTS / name / "student"
    record = read_json(source / "student.json")
    work = {"student": record["weights_sha256"], "compress": cut.model_dump(), "train": block.train.model_dump()}
    key = sha256_json(work | {"pairs": record["pairs"], "code": digests(CODE)})[:16]
    folder = work_folder(name) / "variants" / key
    if (folder / "exported" / "exported.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    student = load_student(source)
    ranks = compress(student, block) if cut.cuts else {}
    recipe = recovery_recipe(make_recipe(params, block), block)
    trained, curve = learn(name, block, student, recipe, folder / "checkpoint.safetensors")
    finish(folder, STUDENTS / name / "pairs", params, trained, record | {"ranks": ranks}, curve)
    return folder


def variants(name: str, out: Path, *, steps: int, rate: float, prunes: list[float], energies: list[float]) -> None:
    """Make all variants, measure them and write `out`."""
    from models.torch_setup import prepare_torch

    params = load_params()
    block = params.student(name)
    if block.compress.cuts:
        raise UserError(f"students.{name}.compress cuts already: variants are cut from a whole student")
    prepare_torch(params.train.threads)
    folders = {}
    for prune, energy in itertools.product(prunes, energies):
        cut = Compress(prune=prune, low_rank=energy, recovery_steps=steps, recovery_rate=rate)
        label = named(prune, energy)
        print(f"variants: {label}", file=sys.stderr)
        folders[label] = make(params, name, block.model_copy(update={"compress": cut}), steps, rate)
    made = {label: [folder] for label, folder in folders.items()}
    title = "Variants at equal training"
    compare(out, "variants", title, made, about={"steps": steps}, params=params, name=name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tasks.variants")
    parser.add_argument("--student", required=True, help="a name under `students:` in params.yaml, trained")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300, help="of training after the cut")
    parser.add_argument("--rate", type=float, default=0.3, help="its learning rate, over the training's")
    parser.add_argument("--prune", type=float, nargs="+", default=[0.0, 0.25, 0.5], help="shares of channels")
    parser.add_argument("--low-rank", type=float, nargs="+", default=[1.0, 0.7], help="energies that factors keep")
    asked = parser.parse_args()
    told = {"steps": asked.steps, "rate": asked.rate, "prunes": asked.prune, "energies": asked.low_rank}
    guarded("variants", lambda: variants(asked.student, asked.out, **told), asked.student)
