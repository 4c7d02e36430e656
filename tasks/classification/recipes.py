"""What a change of the recipe is worth: classifiers of one student's pairs, taught in several ways with several seeds.

Reads the pairs of data/students/NAME and a plan (default: tasks/classification/recipes.yaml); the first recipe is what
the others are compared with. All are taught for as many steps, measured on the test examples at the last step and where
validation examples were best. With `latency` the first seed's student of each is exported and timed, all in turn; then
the table says what each takes and which is the knee. Writes OUT: recipes.json, recipes.md, curves.png, with latency
pareto.png.

The command is that of tasks/recipes.py.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log, sqrt
from pathlib import Path
from statistics import mean, median
from typing import Any

from tasks.charts import curves_png, pareto_png
from tasks.classification.params import Classifier
from tasks.classification.taken import student_takes
from tasks.classification.trained_apart import TESTED, Apart, last_and_best, train_apart
from tasks.files import read_json, replacing_folder, write_bytes, write_json, write_text
from tasks.machine_state import machine
from tasks.markdown import markdown
from tasks.over_seeds import mean_curve, over_seeds, plus_minus
from tasks.params import Params, changed_student, load_params
from tasks.pareto import front
from tasks.stage import STUDENTS
from tasks.workers import spread_out

PLANS = Path(__file__).with_suffix(".yaml")
FILES = {"fp32": "student.fp32.tflite", "int8": "student.int8.tflite"}
Plan = Mapping[str, dict[str, Any]]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """How a plan is followed."""

    steps: int | None  # the block's where nothing is said
    seeds: Sequence[int]
    workers: int  # students at a time, which share the threads
    latency: bool
    examples: int | None = None  # of training that they see; None: all


def recipes(name: str, block: Classifier, out: Path, plan: Plan, asked: Asked) -> None:
    """Make all students, measure them and write `out`."""
    params = load_params()
    steps = asked.steps or block.train.steps
    threads = max(1, params.train.threads // asked.workers)
    apart = params.model_copy(update={"train": params.train.model_copy(update={"threads": threads})})
    jobs = []
    for seed in asked.seeds:
        for label, change in plan.items():
            changed = changed_student(block, change | {"train.steps": steps, "train.seed": seed}, f"recipe {label}")
            jobs.append(Apart(params=apart, name=name, label=label, block=changed, examples=asked.examples))
    made: dict[str, dict[int, Path]] = {label: {} for label in plan}
    for job, folder in all_made(jobs, asked.workers):
        made[job.label][job.block.train.seed] = folder
        found = last_and_best(folder)
        print(f"recipes: {job.label}, seed {job.block.train.seed}: {found[found['figure']]:.4f}", file=sys.stderr)
    folders = {label: [made[label][seed] for seed in asked.seeds] for label in plan}
    rows = rows_of(folders)
    if asked.latency:
        add_costs(rows, folders, params, name, block)
    about = {"student": name, "steps": steps, "seeds": list(asked.seeds), "examples": asked.examples, "recipes": plan}
    title = f"{name}, {steps} steps, seeds {', '.join(map(str, asked.seeds))}"
    figure = rows[0]["figure"]
    shown = f"{figure}, test"
    curves = {label: curve_of(made, figure) for label, made in folders.items()}
    with replacing_folder(out) as written:
        write_json(written / "recipes.json", about | {"machine": machine(), "rows": rows})
        write_text(written / "recipes.md", table(rows))
        write_bytes(written / "curves.png", curves_png(curves, title, shown))
        if asked.latency:
            write_bytes(written / "pareto.png", pareto_png(points(rows), title, quality=("last", shown)))
    print(table(rows))


def all_made(jobs: Sequence[Apart], workers: int) -> Any:
    """Each job with its folder, as it is done."""
    if workers == 1:
        return ((job, train_apart(job)) for job in jobs)
    return spread_out(train_apart, jobs, workers, "--workers")


def rows_of(folders: Mapping[str, Sequence[Path]]) -> list[Row]:
    """A row a recipe: means and deviations over the seeds, and what the last step gains over the first recipe's."""
    rows = []
    for label, made in folders.items():
        found = [last_and_best(folder) for folder in made]
        figure = found[0]["figure"]
        row: Row = {"recipe": label, "seeds": len(found), "figure": figure}
        row["parameters"] = read_json(made[0] / "student" / "student.json")["parameters"]
        row["seconds"] = [read_json(folder / "seconds.json") for folder in made]
        row["values"] = [round(one[figure], 6) for one in found]
        row |= over_seeds({"last": row["values"]} | {key: [one[key] for one in found] for key in ("best", "agreement")})
        rows.append(row)
    for row in rows[1:]:
        row |= gain(rows[0], row)
    return rows


def gain(plain: Row, row: Row) -> Row:
    """What a recipe's last step gains over the first recipe's, and that in standard errors of the difference."""
    gained = row["last"] - plain["last"]
    if row["last_sd"] is None:
        return {"gain": round(gained, 6), "errors": None}
    error = sqrt((row["last_sd"] ** 2 + plain["last_sd"] ** 2) / row["seeds"])
    return {"gain": round(gained, 6), "errors": round(gained / error, 2) if error else None}


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, shares in percent."""
    costs = "mmac" in rows[0]
    headings = ["recipe", f"{rows[0]['figure']}, last step", "best on validation", "agreement"]
    headings += ["gain", "in standard errors", "training, s"]
    lines = []
    for row in rows:
        cells = [row["recipe"], *(percent(row[key], row[f"{key}_sd"]) for key in ("last", "best", "agreement"))]
        cells.append("" if "gain" not in row else f"{100 * row['gain']:+.2f}")
        cells.append("" if row.get("errors") is None else f"{row['errors']:+.1f}")
        cells.append(f"{mean(row['seconds']):.0f}")
        if costs:
            cells += [f"{row['parameters']:,}", f"{row['mmac']:.1f}"]
            cells += [f"{row[f'{one}_ms']:.2f}" for one in FILES] + [f"{row['int8_kib']:.0f}"]
            cells += [percent(row["int8"]), "knee" if row["knee"] else "front" if row["front"] else ""]
        lines.append(cells)
    more = ["parameters", "MMAC", "fp32 ms", "int8 ms", "int8 KiB", "int8, seed 0", ""]
    return markdown([*headings, *(more * costs)], lines)


def percent(value: float, spread: float | None = None) -> str:
    """A share as people read it."""
    return plus_minus(100 * value, None if spread is None else 100 * spread, 2)


def curve_of(made: Sequence[Path], figure: str) -> tuple[list[int], list[float]]:
    """Samples seen and the test figure, its mean over the seeds."""
    batch_size = read_json(made[0] / "student" / "student.json")["train"]["batch_size"]
    return mean_curve([folder / TESTED for folder in made], f"test_{figure}", batch_size)


def add_costs(
    rows: Sequence[Row], folders: Mapping[str, Sequence[Path]], params: Params, name: str, block: Classifier
) -> None:
    """What each recipe's student of the first seed takes, LiteRT's files timed in turn on one thread, and the knee."""
    from models.classification.networks import load_network
    from models.exportability import mega_macs
    from models.runtimes import open_model
    from tasks.classification.quantise import export
    from tasks.classification.taught import open_pairs
    from tasks.timing import interleaved

    pairs = open_pairs(STUDENTS / name, block.dataset)
    models = []
    for row, made in zip(rows, folders.values(), strict=True):
        export(made[0], pairs, params)
        student, taken = load_network(made[0] / "student"), student_takes(made[0] / "student")
        row["mmac"] = round(mega_macs(student, *taken.batch([pairs.split("test").inputs[0]])), 2)
        files = [made[0] / "exported" / file for file in FILES.values()]
        row["int8_kib"] = round(files[1].stat().st_size / 1024, 1)
        models += [open_model(file, "litert", 1, gives=taken.gives) for file in files]
        row["int8"] = tested(models[-1], pairs, taken)
    times = interleaved(models, warmup=params.benchmark.warmup, runs=params.benchmark.runs).tolist()
    for place, row in enumerate(rows):
        row["fp32_ms"], row["int8_ms"] = (round(median(one), 4) for one in times[2 * place : 2 * place + 2])
    places = [(row["int8_ms"], row["last"]) for row in rows]
    chosen = knee(places)
    for place, (row, on_front) in enumerate(zip(rows, front(places), strict=True)):
        row |= {"front": on_front, "knee": place == chosen}


def points(rows: Sequence[Row]) -> list[Row]:
    """The rows as tasks/charts.py draws them."""
    return [
        row | {"student": row["recipe"], "precision": "student, by its int8 file", "litert_ms": row["int8_ms"]}
        for row in rows
    ]


def tested(model: Any, pairs: Any, taken: Any) -> float:
    """How many of the kept test examples a file names right; of those without labels, as the teacher does."""
    import numpy as np

    rows, examples = pairs.rows("test"), pairs.split("test")
    said = np.array([int(model(taken.sample(examples.inputs[row])).argmax()) for row in rows])
    labels, teacher = examples.labels[rows], np.asarray(pairs.logits("test")[rows, 0]).argmax(axis=1)
    return round(float((said == np.where(labels < 0, teacher, labels)).mean()), 6)


def knee(points: Sequence[tuple[float, float]]) -> int | None:
    """Which of (cost, quality) is the knee of the front: after it quality costs most (Satopaa et al. 2011).

    On the front from cheapest to best, cost by its logarithm and both from 0 to 1, the point furthest above the line
    that joins the ends; None where there are not three.
    """
    places = sorted((place for place, on in enumerate(front(points)) if on), key=lambda place: points[place])
    if len(places) < 3:
        return None
    (low, least), (high, most) = points[places[0]], points[places[-1]]

    def above(place: int) -> float:
        cost, quality = points[place]
        return (quality - least) / (most - least) - log(cost / low) / log(high / low)

    best = max(places, key=above)
    return best if above(best) > 0 else None
