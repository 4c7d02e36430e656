"""Students of one effect beside each other: what they take, how fast and how good they are, and which nothing beats.

Used by tasks/variants.py and tasks/architectures.py, which have them made: a folder each, with student/ and exported/.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median, stdev
from typing import TYPE_CHECKING, Any

from models.spread import spread
from tasks.charts import pareto_png, sample_sheet
from tasks.files import read_json, replacing_folder, write_bytes, write_json, write_text
from tasks.machine_state import machine
from tasks.markdown import markdown
from tasks.over_seeds import plus_minus
from tasks.params import Params
from tasks.stage import STUDENTS
from tasks.stage_params import Benchmark
from tasks.templates import render

if TYPE_CHECKING:
    from tasks.quality import Model, Pictures

PRECISIONS = ("fp32", "int8")
SHOWN = ("explained_effect", "sharpness_ratio", "ms_ssim", "psnr_db")
LITERT, LITERT_2, ONNX = "litert_ms", "litert_2_threads_ms", "onnx_ms"
FORMS = {LITERT: ("litert", "tflite", 1), LITERT_2: ("litert", "tflite", 2), ONNX: ("onnx", "onnx", 1)}
HEADINGS = (
    *("student", "precision", "parameters", "MMAC", "KiB", "LiteRT ms", "2 threads", "ONNX ms"),
    *("explained effect", "sharpness", "MS-SSIM", "PSNR dB", "front"),
)
NOTE = (
    "A marked row is on the Pareto front: no other file is as fast and as good. Latency is the p50 of one picture, all "
    "files in turn in one process; 1 is right for sharpness."
)
TEMPLATE = Path(__file__).with_name("pareto.html")
PICTURES = 3  # test pictures that are shown
Row = dict[str, Any]


def export_beside(folder: Path, pairs: Path, params: Params) -> None:
    """Make exported/ of a folder's student/, with pairs that lie elsewhere, unless it is there by the same settings."""
    from tasks.quantise import export

    kept, settings = folder / "quantise.json", params.quantise.model_dump()
    if kept.exists() and read_json(kept) == settings:
        return
    if not (folder / "pairs").exists():
        (folder / "pairs").symlink_to(pairs.resolve())
    kept.unlink(missing_ok=True)
    export(folder, params.quantise, sizes=[], threads=params.train.threads)
    write_json(kept, settings)


def measure(folder: Path, pairs: Path, size: int) -> dict[str, Any]:
    """Figures of one student's LiteRT files on the test pairs, by precision, and what it takes."""
    import torch

    from models.exportability import blank, mega_macs
    from models.students import load_student
    from tasks.quality import measure_all, open_file, pooled, read_pairs, rounded

    inputs, targets = read_pairs(pairs, "test")
    files = {precision: folder / "exported" / f"student.{precision}.tflite" for precision in PRECISIONS}
    with torch.inference_mode():
        columns = measure_all({key: open_file(file, "litert") for key, file in files.items()}, inputs, targets, {})
    return {
        "parameters": read_json(folder / "student" / "student.json")["parameters"],
        "mmac": round(mega_macs(load_student(folder / "student"), blank(size)), 1),
        "bytes": {precision: file.stat().st_size for precision, file in files.items()},
        "quality": {precision: rounded(pooled(column)) for precision, column in columns.items()},
    }


def timed(exported: Mapping[str, Path], settings: Benchmark) -> dict[str, dict[str, dict[str, float]]]:
    """p50 of one picture in ms, by student, precision and form; all files of the folders in turn, round by round."""
    from models.runtimes import open_model
    from tasks.timing import interleaved

    keys = list(itertools.product(exported, PRECISIONS, FORMS))
    models = []
    for name, precision, form in keys:
        runtime, suffix, threads = FORMS[form]
        models.append(open_model(exported[name] / f"student.{precision}.{suffix}", runtime, threads))
    rows = interleaved(models, warmup=settings.warmup, runs=settings.runs)
    found: dict[str, dict[str, dict[str, float]]] = {
        name: {precision: {} for precision in PRECISIONS} for name in exported
    }
    for (name, precision, form), row in zip(keys, rows.tolist(), strict=True):
        found[name][precision][form] = round(median(row), 3)
    return found


def front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Of each (cost, gain) whether no other point costs no more and gains no less (Pareto)."""
    return [not any(c <= cost and g >= gain and (c, g) != (cost, gain) for c, g in points) for cost, gain in points]


def rows_of(
    found: Mapping[str, Sequence[Mapping[str, Any]]], times: Mapping[str, Mapping[str, Mapping[str, float]]]
) -> list[Row]:
    """One row a precision, the Pareto front of LiteRT's latency and explained effect marked.

    `found` has what `measure` gave of each student, once for each seed that it was trained with; quality is its mean.
    """
    rows = []
    for name, seeds in found.items():
        for precision in PRECISIONS:
            effects = [one["quality"][precision][SHOWN[0]] for one in seeds]
            rows.append(
                {
                    "student": name,
                    "precision": precision,
                    "parameters": seeds[0]["parameters"],
                    "mmac": seeds[0]["mmac"],
                    "bytes": seeds[0]["bytes"][precision],
                    **times[name][precision],
                    **{figure: round(mean(one["quality"][precision][figure] for one in seeds), 4) for figure in SHOWN},
                    "seeds": len(seeds),
                    "explained_effect_sd": round(stdev(effects), 4) if len(effects) > 1 else None,
                }
            )
    marks = front([(row[LITERT], row["explained_effect"]) for row in rows])
    return [row | {"front": mark} for row, mark in zip(rows, marks, strict=True)]


def cells(row: Mapping[str, Any]) -> list[str]:
    """A row's values as they are shown, by HEADINGS."""
    shown = [row["student"], row["precision"], f"{row['parameters']:,}", f"{row['mmac']:.0f}"]
    shown += [f"{row['bytes'] / 1024:.0f}", *(f"{row[form]:.2f}" for form in FORMS)]
    shown += [plus_minus(row["explained_effect"], row["explained_effect_sd"], 3), f"{row['sharpness_ratio']:.2f}"]
    return [*shown, f"{row['ms_ssim']:.3f}", f"{row['psnr_db']:.2f}", "yes" if row["front"] else ""]


def shown_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows as the pages show them: cells by HEADINGS, and whether one is on the front."""
    return [{"front": row["front"], "cells": cells(row)} for row in rows]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a Markdown table."""
    return markdown(HEADINGS, map(cells, rows))


def samples(models: "Mapping[str, Model]", pairs: Path) -> bytes:
    """A PNG of some test pictures: input, teacher, and what each model makes of it."""
    from tasks.quality import read_pairs

    inputs, targets = read_pairs(pairs, "test")
    rows = spread(len(inputs), PICTURES)
    return side_by_side(models, inputs[rows], targets[rows])


def side_by_side(models: "Mapping[str, Model]", inputs: "Pictures", targets: "Pictures") -> bytes:
    """A PNG with a row for each of (N,S,S,3) uint8 pairs: input, teacher, and what each model makes of it."""
    from tasks.quality import to_bytes

    columns = {"input": inputs, "teacher": targets}
    columns |= {name: to_bytes(model(inputs)) for name, model in models.items()}
    sheet = {str(place + 1): {name: column[place] for name, column in columns.items()} for place in range(len(inputs))}
    return sample_sheet(sheet, {name: name for name in columns})


def in_int8(exported: Path) -> "Model":
    """The LiteRT int8 file of a folder of exported ones."""
    from tasks.quality import open_file

    return open_file(exported / "student.int8.tflite", "litert")


def page(
    title: str, about: str, headings: Sequence[str], rows: Sequence[Row], note: str, pictures: Mapping[str, str]
) -> str:
    """index.html as text: rows of cells by headings, those on the front marked, and pictures NAME.png by caption."""
    return render(TEMPLATE, title=title, about=about, headings=headings, rows=rows, note=note, pictures=pictures)


def compare(
    out: Path,
    what: str,
    title: str,
    folders: Mapping[str, Sequence[Path]],
    *,
    about: Mapping[str, Any],
    params: Params,
    name: str,
) -> None:
    """Measure students of the effect `name`, each in a folder a seed, and write OUT.

    OUT holds WHAT.json, WHAT.md (the table), WHAT.png (quality over latency), samples.png and index.html.
    """
    pairs, size = STUDENTS / name / "pairs", params.student(name).pairs.size
    found = {label: [measure(folder, pairs, size) for folder in made] for label, made in folders.items()}
    exported = {label: made[0] / "exported" for label, made in folders.items()}
    rows = rows_of(found, timed(exported, params.benchmark))
    where = machine()
    words = f"Effect {name}; {about['steps']} steps of training each; {where['cpu']}."
    with replacing_folder(out) as made:
        write_json(made / f"{what}.json", {"student": name, **about, "machine": where, "rows": rows})
        write_text(made / f"{what}.md", table(rows))
        write_bytes(made / f"{what}.png", pareto_png(rows, title))
        write_bytes(
            made / "samples.png", samples({label: in_int8(folder) for label, folder in exported.items()}, pairs)
        )
        pictures = {what: "Quality over latency", "samples": "Test pictures, int8; never seen in training"}
        write_text(made / "index.html", page(title, words, HEADINGS, shown_rows(rows), NOTE, pictures))
    print(table(rows))
