"""What a change of the recipe is worth: students of one effect, taught in several ways on equal samples.

Reads pairs/ of data/students/NAME and a plan: recipes by name, each a change of the student's block (default:
tasks/recipes.yaml). Every recipe is trained with each seed (without `quantise_aware`, which changes the look of none)
and measured on the test pairs. Writes OUT/ (default: data/recipes/PLAN/NAME): recipes.json, recipes.md (the table),
curves.png (explained effect on the validation pairs over samples) and samples.png. May be killed and run again: what
is finished is kept in data/.work/NAME/apart.

Classifiers have plans of their own (tasks/classification/recipes.py) and as many steps as their block says.

Command: python -m tasks.recipes PLAN --student NAME [--steps 600] [--seeds 0 1 2] [--only RECIPE ...] [--latency]
[--library] [--workers 1] [--examples N]
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import numpy as np

from models.errors import UserError
from tasks.charts import curves_png
from tasks.files import read_json, replacing_folder, write_bytes, write_json, write_text
from tasks.machine_state import machine
from tasks.markdown import markdown
from tasks.over_seeds import mean_curve, over_seeds, plus_minus
from tasks.params import Params, changed_student, load_params, parse_yaml
from tasks.pareto import LITERT, export_beside, samples, side_by_side, timed
from tasks.stage import STUDENTS, guarded
from tasks.student_params import Student
from tasks.trained_apart import train_apart

if TYPE_CHECKING:
    from tasks.quality import Model

COMPARED = Path("data/recipes")
LIBRARY = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg")
STEPS = 600
PLANS = Path(__file__).with_suffix(".yaml")
# Of quality.json and headings; the last two of a set, not of a picture.
FIGURES = {
    "psnr_db": ("PSNR dB", 2),
    "ms_ssim": ("MS-SSIM", 3),
    "perceptual": ("perceptual", 3),
    "explained_effect": ("explained effect", 3),
    "sharpness_ratio": ("sharpness", 2),
    "chroma_ratio": ("chroma", 2),
    "chroma_error": ("chroma error", 2),
    "kid": ("KID x1000", 1),
    "flicker": ("flicker", 1),
}
Plan = dict[str, dict[str, Any]]
Row = dict[str, Any]


def read_plan(path: Path, plan: str, only: Sequence[str]) -> Plan:
    """The recipes of a plan by name, those of `only` if it names any; UserError for what is none."""
    try:
        raw = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error})") from None
    if not isinstance(raw, dict) or plan not in raw:
        raise UserError(
            f"{path} has no plan {plan!r}; there are: {', '.join(raw) if isinstance(raw, dict) else 'none'}"
        )
    recipes = raw[plan]
    if not isinstance(recipes, dict) or not all(isinstance(change, dict) for change in recipes.values()):
        raise UserError(f"{path}: {plan}: must be recipes by name, each keys of a student's block with values")
    unknown = [name for name in only if name not in recipes]
    if unknown:
        raise UserError(f"{path}: {plan} has no {unknown[0]!r}; there are: {', '.join(recipes)}")
    return {name: recipes[name] for name in only or recipes}


def measure(folder: Path, pairs: Path) -> dict[str, float]:
    """FIGURES of one student in float32 on the test pairs, with KID's own deviation."""
    kept = folder / "quality.json"
    if not kept.exists():
        write_json(kept, judge(folder / "student", pairs))
    found: dict[str, float] = read_json(kept)
    return found


def judge(student: Path, pairs: Path) -> dict[str, float]:
    """What `measure` keeps."""
    import torch

    from models import metrics
    from models.distribution import kid, pooled
    from models.perceptual import distances
    from models.stability import flicker
    from models.students import load_student
    from tasks.quality import BATCH, of_torch, read_pairs

    inputs, targets = read_pairs(pairs, "test")
    network = load_student(student)
    columns, outputs, theirs = [], [], []
    with torch.inference_mode():
        for x, y in metrics.batches([inputs, targets], BATCH):
            picture, teacher = metrics.to_tensor(x), metrics.to_tensor(y)
            output = network(picture)
            found = metrics.measure(output, picture, teacher)
            found["perceptual"] = distances(output, teacher).double().numpy()
            found["chroma_error"] = metrics.chroma_error(output, teacher).double().numpy()
            columns.append(found)
            outputs.append(pooled([output]))
            theirs.append(pooled([teacher]))
        joined = metrics.join(columns)
        moved = flicker(of_torch(network), inputs)
    apart, deviation = kid(torch.cat(outputs), torch.cat(theirs))
    figures = metrics.pool(joined) | {"flicker": moved, "kid": 1000 * apart, "kid_sd": 1000 * deviation}
    figures["perceptual"] = float(joined["perceptual"].mean())
    figures["chroma_error"] = 255 * float(joined["chroma_error"].mean())
    return {key: round(value, 6) for key, value in figures.items()}


def row_of(label: str, folders: Sequence[Path], pairs: Path) -> Row:
    """Mean and deviation over the seeds of each figure, and how long the training took."""
    found = [measure(folder, pairs) for folder in folders]
    row: Row = {"recipe": label, "seeds": len(found), "kid_own_sd": mean(one["kid_sd"] for one in found)}
    row["parameters"] = read_json(folders[0] / "student" / "student.json")["parameters"]
    row["seconds"] = [read_json(folder / "seconds.json") for folder in folders]
    return row | over_seeds({figure: [one[figure] for one in found] for figure in FIGURES})


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table: mean ± deviation over the seeds; of one seed, KID's own deviation."""
    headings = ["recipe", *(heading for heading, _ in FIGURES.values()), "training, s"]
    latency = "int8_ms" in rows[0]
    lines = []
    for row in rows:
        cells = [row["recipe"]]
        for figure, (_, digits) in FIGURES.items():
            spread = row[f"{figure}_sd"]
            if figure == "kid" and spread is None:
                spread = row["kid_own_sd"]
            cells.append(plus_minus(row[figure], spread, digits))
        cells.append(f"{mean(row['seconds']):.0f}")
        lines.append([*cells, *([f"{row['int8_ms']:.2f}", f"{row['fp32_ms']:.2f}"] if latency else [])])
    return markdown([*headings, *(["int8 ms", "fp32 ms"] * latency)], lines)


def add_latency(rows: Sequence[Row], folders: Mapping[str, Sequence[Path]], pairs: Path, params: Params) -> None:
    """Put p50 of each recipe's LiteRT files into its row, all timed in turn on one thread."""
    exported = {}
    for label, (folder, *_) in folders.items():
        export_beside(folder, pairs, params)
        exported[label] = folder / "exported"
    times = timed(exported, params.benchmark)
    for row in rows:
        for precision in ("int8", "fp32"):
            row[f"{precision}_ms"] = times[row["recipe"]][precision][LITERT]


def on_library(models: "Mapping[str, Model]", block: Student) -> bytes:
    """A PNG of LIBRARY's photographs, which may be shown anywhere: input, teacher, and what each model makes of it."""
    from models.teachers import load_teacher
    from tasks.features import centre_square
    from tasks.pictures import decode_picture
    from tasks.quality import to_bytes
    from tasks.sources import library_sources

    photographs = [source.path for source in library_sources("scikit-image") if source.path.name in LIBRARY]
    inputs = np.stack([centre_square(decode_picture(path.read_bytes()), block.pairs.size) for path in photographs])
    teacher = load_teacher(block.teacher.model_dump())
    return side_by_side(models, inputs, to_bytes(teacher(inputs, [0] * len(inputs))))


def compare(asked: argparse.Namespace) -> None:
    """Do what was asked on the command line, of an effect or of a classifier."""
    block = load_params().block(asked.student)
    for key in ("workers", "examples", "steps"):
        if getattr(asked, key) is not None and getattr(asked, key) < 1:
            raise UserError(f"--{key} {getattr(asked, key)}: there has to be one at least")
    out = asked.out or COMPARED / asked.plan / asked.student
    if isinstance(block, Student):
        if asked.workers > 1 or asked.examples:
            raise UserError("--workers and --examples are of classifiers: leave them out")
        recipes(
            asked.student,
            out,
            read_plan(asked.plans or PLANS, asked.plan, asked.only),
            steps=asked.steps or STEPS,
            seeds=asked.seeds,
            latency=asked.latency,
            library=asked.library,
        )
        return
    from tasks.classification import recipes as of_labels

    if asked.library:
        raise UserError(f"--library: {asked.student} is no effect, there is nothing to look at: leave it out")
    how = of_labels.Asked(**{key: getattr(asked, key) for key in ("steps", "seeds", "workers", "latency", "examples")})
    plan = read_plan(asked.plans or of_labels.PLANS, asked.plan, asked.only)
    of_labels.recipes(asked.student, block, out, plan, how)


def recipes(
    name: str, out: Path, plan: Plan, *, steps: int, seeds: Sequence[int], latency: bool, library: bool = False
) -> None:
    """Make all students, measure them and write `out`; the sheet is of test pictures, or of the library's."""
    import torch

    from models.students import load_student
    from models.torch_setup import prepare_torch
    from tasks.quality import of_torch

    params = load_params()
    block = params.student(name)
    pairs = STUDENTS / name / "pairs"
    prepare_torch(params.train.threads)
    folders: dict[str, list[Path]] = {}
    batch_sizes = {}
    for seed in seeds:
        for label, change in plan.items():
            print(f"recipes: {label}, seed {seed}", file=sys.stderr)
            changed = changed_student(block, change | {"train.steps": steps, "train.seed": seed}, f"recipe {label}")
            folders.setdefault(label, []).append(train_apart(params, name, changed))
            batch_sizes[label] = changed.train.batch_size
    rows = [row_of(label, made, pairs) for label, made in folders.items()]
    if latency:
        add_latency(rows, folders, pairs, params)
    title = f"{name}, {steps} steps, seeds {', '.join(map(str, seeds))}"
    with torch.inference_mode():
        models = {label: of_torch(load_student(made[0] / "student")) for label, made in folders.items()}
        sheet = on_library(models, block) if library else samples(models, pairs)
    about = {"student": name, "steps": steps, "seeds": list(seeds), "recipes": plan, "machine": machine()}
    curves = {
        label: mean_curve([one / "student" / "curve.jsonl" for one in made], "val_explained_effect", batch_sizes[label])
        for label, made in folders.items()
    }
    with replacing_folder(out) as made:
        write_json(made / "recipes.json", about | {"rows": rows})
        write_text(made / "recipes.md", table(rows))
        write_bytes(made / "curves.png", curves_png(curves, title))
        write_bytes(made / "samples.png", sheet)
    print(table(rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tasks.recipes")
    parser.add_argument("plan", help="a name in the file of plans")
    parser.add_argument("--student", required=True, help="a name under `students:` in params.yaml, curated")
    parser.add_argument("--plans", type=Path, help="a YAML file of plans; default: that of its kind of task")
    parser.add_argument("--only", nargs="+", default=[], help="recipes of the plan")
    parser.add_argument("--steps", type=int, help=f"of training; default: {STEPS}, of a classifier its block's")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--latency", action="store_true", help="export the first seed's student of each and time it")
    parser.add_argument("--library", action="store_true", help="photographs of scikit-image in samples.png")
    parser.add_argument("--workers", type=int, default=1, help="classifiers at a time, which share train.threads")
    parser.add_argument("--examples", type=int, help="of training that classifiers see at most; default: all")
    parser.add_argument("--out", type=Path, help="default: data/recipes/PLAN/NAME")
    asked = parser.parse_args()
    guarded("recipes", lambda: compare(asked), asked.student)
