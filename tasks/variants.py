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
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from models.errors import UserError
from tasks.charts import variants_png
from tasks.files import read_json, replacing_folder, sha256_file, sha256_json, write_bytes, write_json, write_text
from tasks.params import Compress, Params, Student, load_params
from tasks.stage import STUDENTS, guarded, work_folder

PRECISIONS = ("fp32", "int8")
SHOWN = ("explained_effect", "sharpness_ratio", "ms_ssim", "psnr_db")
HEADINGS = (
    "variant | precision | parameters | MMAC | KiB | p50 ms | explained effect | sharpness | MS-SSIM | PSNR dB | front"
)


def named(prune: float, low_rank: float) -> str:
    """A variant's name in the table."""
    parts = [f"pruned {prune:g}"] * (prune > 0) + [f"rank {low_rank:g}"] * (low_rank < 1)
    return ", ".join(parts) or "whole"


def make(params: Params, name: str, block: Student, steps: int, rate: float) -> Path:
    """The folder of one variant with student/ and exported/; made if it is not there yet."""
    import models
    from models.students import load_student
    from tasks.quantise import export
    from tasks.train import CODE, compress, learn, make_recipe, publish, recovery_recipe

    cut = block.compress.model_copy(update={"recovery_steps": steps, "recovery_rate": rate})
    block = block.model_copy(update={"compress": cut})
    source = STUDENTS / name / "student"
    record = read_json(source / "student.json")
    code = {file: sha256_file(Path(models.__path__[0]) / file) for file in CODE}
    work = {"student": record["weights_sha256"], "compress": cut.model_dump(), "train": block.train.model_dump()}
    key = sha256_json(work | {"pairs": record["pairs"], "code": code})[:16]
    folder = work_folder(name) / "variants" / key
    if (folder / "exported" / "exported.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    student = load_student(source)
    ranks = compress(student, block) if cut.cuts else {}
    recipe = recovery_recipe(make_recipe(params, block), block)
    trained, curve = learn(name, block, student, recipe, folder / "checkpoint.safetensors")
    count = sum(parameter.numel() for parameter in trained.parameters())
    publish(folder / "student", trained, record | {"ranks": ranks, "parameters": count}, curve)
    if not (folder / "pairs").exists():
        (folder / "pairs").symlink_to((STUDENTS / name / "pairs").resolve())
    export(folder, params.quantise, sizes=[], threads=params.train.threads)
    (folder / "checkpoint.safetensors").unlink()
    return folder


def measure(folder: Path, pairs: Path, size: int) -> dict[str, Any]:
    """Figures of one variant's LiteRT files on the test pairs, by precision, and what it takes."""
    import torch

    from models.exportability import mega_macs
    from models.students import load_student
    from tasks.quality import measure_all, open_file, pooled, read_pairs, rounded

    inputs, targets = read_pairs(pairs, "test")
    student = load_student(folder / "student")
    files = {precision: folder / "exported" / f"student.{precision}.tflite" for precision in PRECISIONS}
    with torch.inference_mode():
        columns = measure_all({key: open_file(file, "litert") for key, file in files.items()}, inputs, targets, {})
    return {
        "parameters": read_json(folder / "student" / "student.json")["parameters"],
        "mmac": round(mega_macs(student, size), 1),
        "bytes": {precision: file.stat().st_size for precision, file in files.items()},
        "quality": {precision: rounded(pooled(column)) for precision, column in columns.items()},
    }


def timed(folders: Mapping[str, Path], params: Params) -> dict[str, dict[str, float]]:
    """p50 of one picture in ms, by variant and precision; one run of each file after the other."""
    from models.runtimes import open_model
    from tasks.timing import interleaved

    keys = list(itertools.product(folders, PRECISIONS))
    models = [open_model(folders[name] / "exported" / f"student.{kind}.tflite", "litert", 1) for name, kind in keys]
    rows = interleaved(models, warmup=params.benchmark.warmup, runs=params.benchmark.runs)
    found: dict[str, dict[str, float]] = {name: {} for name in folders}
    for (name, kind), row in zip(keys, rows.tolist(), strict=True):
        found[name][kind] = round(median(row), 3)
    return found


def front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Of each (cost, gain) whether no other point costs no more and gains no less (Pareto)."""
    return [not any(c <= cost and g >= gain and (c, g) != (cost, gain) for c, g in points) for cost, gain in points]


def rows_of(found: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a file, the Pareto front of latency and explained effect marked."""
    rows = [
        {
            "variant": name,
            "precision": precision,
            "parameters": one["parameters"],
            "mmac": one["mmac"],
            "bytes": one["bytes"][precision],
            "p50_ms": one["p50_ms"][precision],
            **{figure: one["quality"][precision][figure] for figure in SHOWN},
        }
        for name, one in found.items()
        for precision in PRECISIONS
    ]
    marks = front([(row["p50_ms"], row["explained_effect"]) for row in rows])
    return [row | {"front": mark} for row, mark in zip(rows, marks, strict=True)]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a Markdown table."""
    lines = [f"| {HEADINGS} |", "|" + "---|" * len(HEADINGS.split("|"))]
    for row in rows:
        cells = [row["variant"], row["precision"], f"{row['parameters']:,}", f"{row['mmac']:.0f}"]
        cells += [f"{row['bytes'] / 1024:.0f}", f"{row['p50_ms']:.2f}", f"{row['explained_effect']:.3f}"]
        cells += [f"{row['sharpness_ratio']:.2f}", f"{row['ms_ssim']:.3f}", f"{row['psnr_db']:.2f}"]
        lines.append(f"| {' | '.join([*cells, 'yes' if row['front'] else ''])} |")
    return "\n".join(lines) + "\n"


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
    found = {label: measure(folder, STUDENTS / name / "pairs", block.pairs.size) for label, folder in folders.items()}
    times = timed(folders, params)
    rows = rows_of({label: one | {"p50_ms": times[label]} for label, one in found.items()})
    with replacing_folder(out) as made:
        write_json(made / "variants.json", {"student": name, "steps": steps, "rows": rows})
        write_text(made / "variants.md", table(rows))
        write_bytes(made / "variants.png", variants_png(rows))
    print(table(rows))


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
