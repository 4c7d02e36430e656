"""Stage variants: what cutting the trained student costs and gains, where its block asks for it.

Whole, pruned, factorised and both, at equal training, in float32 and int8. Reads pairs/ and student/ of
data/students/NAME. Each variant is cut from the same student, trained for the same number of steps (the whole one too),
trained to be rounded as the block says, exported and quantised; all files are timed in turn in one process on one
thread and measured on the test pairs. Writes variants/: variants.json and, if `variants.steps` is not 0, variants.md
(the table), variants.png (quality over latency, the Pareto front marked), samples.png and index.html. The report shows
table and front. May be killed and run again: a finished variant is kept in data/.work/NAME/variants.

Command: python -m tasks.variants --student NAME
"""

import itertools
import sys
from pathlib import Path

from tasks.files import read_json, replacing_folder, sha256_json, write_json
from tasks.params import Params
from tasks.pareto import compare, export_beside
from tasks.stage import STUDENTS, student_main, work_folder
from tasks.student_params import Student
from tasks.training_params import Compress


def named(prune: float, low_rank: float) -> str:
    """A variant's name in the table."""
    parts = [f"pruned {prune:g}"] * (prune > 0) + [f"rank {low_rank:g}"] * (low_rank < 1)
    return ", ".join(parts) or "whole"


def make(params: Params, name: str, block: Student) -> Path:
    """The folder with student/ of what `block.compress` makes of the student; made if it is not there."""
    from models.students import load_student
    from tasks.learning import CODE, ROUNDING_CODE, digests, going_on, learn, make_recipe, publish
    from tasks.train import compress, learn_rounded, recovery_recipe

    source = STUDENTS / name / "student"
    record = read_json(source / "student.json")
    work = block.model_dump(include={"compress", "train", "quantise_aware"})
    work |= {"student": record["weights_sha256"], "pairs": record["pairs"], "code": digests((*CODE, *ROUNDING_CODE))}
    folder = work_folder(name) / "variants" / sha256_json(work)[:16]
    if (folder / "student").is_dir():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    student = load_student(source)
    ranks = record["ranks"] | (compress(student, block) if block.compress.cuts else {})
    recipe = make_recipe(params, block)
    trained, curve = learn(name, block, student, recovery_recipe(recipe, block), folder / "recover.safetensors")
    if block.quantise_aware.steps:
        curve = going_on(curve, learn_rounded(name, block, trained, recipe, folder / "round.safetensors"))
    count = sum(parameter.numel() for parameter in trained.parameters())
    publish(folder / "student", trained, record | {"ranks": ranks, "parameters": count}, curve)
    for checkpoint in folder.glob("*.safetensors"):
        checkpoint.unlink()
    return folder


def variants(params: Params, name: str, block: Student) -> None:
    """Write data/students/NAME/variants; no rows where none are asked for."""
    from models.torch_setup import prepare_torch

    asked, out = block.variants, STUDENTS / name / "variants"
    if not asked.steps:
        with replacing_folder(out) as made:
            write_json(made / "variants.json", {"student": name, "steps": 0, "rows": []})
        return
    prepare_torch(params.train.threads)
    folders = {}
    for prune, energy in itertools.product(asked.prune, asked.low_rank):
        cut = Compress(prune=prune, low_rank=energy, recovery_steps=asked.steps, recovery_rate=asked.rate)
        print(f"variants: {named(prune, energy)}", file=sys.stderr)
        folder = make(params, name, block.model_copy(update={"compress": cut}))
        export_beside(folder, STUDENTS / name / "pairs", params)
        folders[named(prune, energy)] = [folder]
    title = "Variants at equal training"
    compare(out, "variants", title, folders, about={"steps": asked.steps}, params=params, name=name)


if __name__ == "__main__":
    student_main("variants", variants)
