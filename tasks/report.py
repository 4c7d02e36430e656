"""The static report of one student: report/index.html with its pictures, readable offline and when copied.

Called by tasks/evaluate.py, which has all the figures. Writes index.html (from report.html, a Jinja2 template with
autoescape on, because student names, origins and licences are other people's text), images/*.png, images/*.svg,
samples.png and curves.png (for MLflow and the README).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks import templates
from tasks.charts import PLOTS, curve_png, curve_svg, pareto_png, png, sample_sheet
from tasks.control_quality import STRIP
from tasks.detector_report import CHART, detector_rows, scores_svg
from tasks.files import sha256_json, write_bytes, write_text
from tasks.pareto import HEADINGS, shown_rows
from tasks.records import Input
from tasks.shortfall import NAMES, shown_parts
from tasks.target import LOCAL

Pictures = npt.NDArray[np.uint8]
Json = Mapping[str, Any]

TEMPLATE = Path(__file__).with_name("report.html")
PANELS = {"input": "Input", "teacher": "Teacher", "student": "Student", "int8": "Student, int8"}
# Of every kind of flicker: its name, and what is done to the input.
KINDS = {
    "camera": (
        "Camera motion",
        "The camera pans, turns and zooms by fractions of a pixel; what does not follow, flickers.",
    ),
    "noise": ("Sensor noise", "A still scene with another noise in every frame: how far the picture varies over time."),
    "jitter": (
        "Crop jitter",
        "The crop box jumps by a pixel or two, as a face tracker's does, and the picture with it.",
    ),
    "clips": ("Videos", "What changes from frame to frame beyond the motion, which is estimated on the input."),
}
BLOCKS_SHOWN = 8  # of those that cost int8 most
ABSENT = "\N{EN DASH}"
BASELINES = {"identity": "Input left as it is", "colour_affine": "Best global colour map"}
# Of every figure: its heading, how it is written, what is right, and what it means.
FIGURES: dict[str, tuple[str, str, str, str]] = {
    "explained_effect": (
        "Explained effect",
        "{:.3f}",
        "1 is best",
        "The share of the teacher's change that the picture reproduces: 1 - error to the teacher / error of leaving "
        "the input alone, pooled over the test set. 0 is doing nothing; recolouring alone reaches the colour map's.",
    ),
    "sharpness_ratio": (
        "Sharpness",
        "{:.2f}",
        "1 is right",
        "Energy of the fine detail (Laplacian of luma) over the teacher's. Below 1 is blur, above 1 is noise or the "
        "input's own texture shining through.",
    ),
    "chroma_ratio": (
        "Colour",
        "{:.2f}",
        "1 is right",
        "Mean distance from grey (YCbCr) over the teacher's. Below 1 the colours are washed out.",
    ),
    "psnr_db": ("PSNR, dB", "{:.2f}", "higher is better", "Pixel error to the teacher; blind to blur and greying."),
    "ssim": ("SSIM", "{:.3f}", "1 is best", "Local structure shared with the teacher, in 11-pixel windows."),
    "ms_ssim": ("MS-SSIM", "{:.3f}", "1 is best", "The same over several scales, so that layout counts too."),
    "perceptual": (
        "Perceptual",
        "{:.3f}",
        "0 is best",
        "Distance to the teacher's picture in the features of a network without training: texture counts, not only "
        "pixels. It compares students with one another, not with published figures.",
    ),
    "kid": (
        "KID x1000",
        "{:.1f}",
        "0 is best",
        "How far the set of pictures is from the teacher's as a set, in the same features, and its deviation over "
        "subsets: where that is larger than the figures, there are too few test pictures to tell them apart.",
    ),
    "psnr_to_float_db": (
        "To float, dB",
        "{:.1f}",
        "higher is better",
        "PSNR of an int8 file to the fp32 file of the same runtime, mean over pictures: what quantisation costs. From "
        "about 40 dB on nobody sees it.",
    ),
    "worst_psnr_to_float_db": (
        "Worst, dB",
        "{:.1f}",
        "higher is better",
        "The same for the picture that quantisation harms most.",
    ),
    "banding": (
        "Bands",
        "{:.2f}",
        "0 is best",
        "What int8 adds to smooth gradients and plain areas, in levels of 255, after a mean over 5 pixels (finer is "
        "grain). Rounding the picture to 32 levels gives about 1.2.",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that a report tells, as read from the stages' outputs."""

    name: str
    quality: Json
    benchmark: Json
    exported: Json
    student: Json
    pairs: Json
    yields: Json
    curation: Json
    curve: Sequence[Json]
    exportability: Json
    variants: Json
    video: Json
    detector: Json  # detector.json, with what latency.json says under `latency`
    clip: Mapping[str, bytes]  # the files of video/ that the page shows, by name
    failures: Mapping[int, Mapping[str, Pictures]]  # of quality's failures the pictures to show, by place
    clusters: Mapping[str, bytes]  # by name a PNG of the inputs that are typical of it, side by side
    slider: bytes  # a PNG of pictures at several strengths; empty where the student has no slider
    inputs: Sequence[Input]


def write_report(
    folder: Path,
    evidence: Evidence,
    rows: Mapping[str, Sequence[int]],
    pictures: Callable[[int], Mapping[str, Pictures]],
) -> None:
    """Write the report into `folder`; `pictures(row)` gives the panels of a test row, (S,S,3) uint8 each."""
    images = folder / "images"
    images.mkdir()
    samples = {int(sample["row"]): sample for sample in evidence.quality["per_sample"]}
    bands: dict[str, list[dict[str, Any]]] = {}
    first: dict[str, Mapping[str, Pictures]] = {}
    for band, chosen in rows.items():
        for number, row in enumerate(chosen, start=1):
            panels = pictures(row)
            first.setdefault(band, panels)
            bands.setdefault(band, []).append(write_sample(images, band, number, panels, samples[row]))
    for plot in PLOTS:
        write_text(images / f"{plot}.svg", curve_svg(plot, evidence.curve))
    if evidence.variants["rows"]:
        write_bytes(images / "variants.png", pareto_png(evidence.variants["rows"], "Variants at equal training"))
    for name, data in evidence.clip.items():
        write_bytes(images / name, data)
    for place, panels in evidence.failures.items():
        for panel, picture in panels.items():
            write_bytes(images / f"failure-{place}-{panel}.png", png(picture))
    if evidence.detector["sets"]:
        write_text(images / "detector.svg", scores_svg(evidence.detector))
    for name, data in evidence.clusters.items():
        write_bytes(images / f"{name.replace(' ', '-')}.png", data)
    if evidence.slider:
        write_bytes(images / "slider.png", evidence.slider)
    write_bytes(folder / "curves.png", curve_png(evidence.curve))
    write_bytes(folder / "samples.png", sample_sheet(first, PANELS))
    write_text(folder / "index.html", render(evidence, bands))


def write_sample(images: Path, band: str, number: int, panels: Mapping[str, Pictures], sample: Json) -> dict[str, Any]:
    """Write the panels of one test picture and describe them for the template."""
    shots = []
    for panel, picture in panels.items():
        file = f"{band}-{number}-{panel}.png"
        write_bytes(images / file, png(picture))
        height, width = picture.shape[:2]
        shots.append({"panel": PANELS[panel], "src": f"images/{file}", "width": width, "height": height})
    return {"number": number, "shots": shots, "sample": sample}


def render(evidence: Evidence, bands: Mapping[str, Sequence[Json]]) -> str:
    """index.html as text."""
    speed = latency_rows(evidence.benchmark)
    shown = headline(evidence, speed)
    return templates.render(
        TEMPLATE,
        evidence=evidence,
        quality=evidence.quality,
        bands=bands,
        figures=FIGURES,
        contestants=contestants(evidence.quality, shown["file"]["file"]),
        headline=shown,
        machine=machine_text(evidence.benchmark["machine"]),
        speed=speed,
        targets=target_rows(evidence.benchmark),
        frames=frame_rows(evidence.benchmark),
        sizes=size_rows(evidence.exported["files"]),
        parts=part_rows(evidence.quality["evidence"], evidence.inputs),
        obstacles=obstacle_rows(evidence.exportability["findings"]),
        int8=[file for file in evidence.exported["files"] if "to_float" in file],
        costs=cost_rows(evidence.exported),
        variants=shown_rows(evidence.variants["rows"]),
        variant_headings=HEADINGS,
        flicker=flicker_rows(evidence.video),
        shortfall=shown_parts(evidence.quality["shortfall"]) if "shortfall" in evidence.quality else [],
        part_names=NAMES,
        panel_names=PANELS,
        outside=detector_rows(evidence.detector),
        chart=CHART,
        strip=STRIP,
        losses=loss_rows(evidence),
        origins=origin_rows(evidence.inputs),
        inputs_digest=sha256_json(sorted(one.digest for one in evidence.inputs)),
    )


def contestants(quality: Json, shown: str) -> list[dict[str, Any]]:
    """The rows of the quality table: the student, its files (`shown` stands out), the baselines; FIGURES as text."""
    named = [("student", "Student, torch", quality["student"])]
    named += [("shown" if file == shown else "file", file, figures) for file, figures in quality["files"].items()]
    named += [("baseline", BASELINES[name], figures) for name, figures in quality["baselines"].items()]
    return [
        {
            "kind": kind,
            "label": label,
            "cells": {
                name: shape.format(figures[name]) + deviation(name, figures) if name in figures else ABSENT
                for name, (_, shape, _, _) in FIGURES.items()
            },
        }
        for kind, label, figures in named
    ]


def deviation(name: str, figures: Json) -> str:
    """What stands behind a figure that has a deviation of its own, as KID has over its subsets."""
    return f" ± {figures[f'{name}_sd']:.0f}" if f"{name}_sd" in figures else ""


def flicker_rows(video: Json) -> list[dict[str, Any]]:
    """Each kind of flicker: its name, what it is, levels of 255 by whose, and the phone's file over the teacher's."""
    return [
        {
            "name": name,
            "meaning": meaning,
            "cells": {whose: levels(video["flicker"][kind][whose]) for whose in ("input", "teacher", "float", "phone")}
            | {"over_teacher": levels(video["over_teacher"][kind]["phone"])},
        }
        for kind, (name, meaning) in KINDS.items()
        if kind in video["flicker"]
    ]


def levels(value: float | None) -> str:
    """A figure as text, or a dash where it is not known."""
    return ABSENT if value is None else f"{value:.2f}"


def latency_rows(benchmark: Json) -> list[dict[str, Any]]:
    """The benchmark's results, this machine's first, with the share of the longest p90 each bar takes, in percent."""
    results = sorted(
        ({"target": LOCAL, **one} for one in benchmark["files"]),
        key=lambda one: (one["target"] != LOCAL, one["target"], one["threads"], one["p50_ms"], one["file"]),
    )
    longest = max((one["p90_ms"] for one in results), default=1.0)
    return [
        {
            **one,
            "where": one["target"] + (f", {one['provider']}" if one.get("provider") else ""),
            "bar": round(100 * one["p50_ms"] / longest, 2),
            "mark": round(100 * one["p90_ms"] / longest, 2),
        }
        for one in results
    ]


def target_rows(benchmark: Json) -> list[dict[str, Any]]:
    """Each target with its machine in words, or why it failed, what it left out, its state, and its sustained run."""
    return [
        {
            "target": one["target"],
            "failed": one.get("failed"),
            "machine": ", ".join(f"{key} {value}" for key, value in one.get("machine", {}).items() if value),
            "not_measured": one.get("not_measured", {}),
            "state": state_text(one.get("before"), one.get("after")),
            "sustained": one.get("sustained"),
        }
        for one in benchmark.get("targets", [])
    ]


def state_text(before: Json | None, after: Json | None) -> str:
    """Heat, frequency, governor and load before and after, as far as they could be read."""
    if not before or not after:
        return ""
    parts = []
    for key, words, unit in (
        ("temperatures_c", "temperature", "°C"),
        ("frequencies_mhz", "frequency", " MHz"),
        ("load_1min", "load", ""),
    ):
        values = [highest(one.get(key)) for one in (before, after)]
        if None not in values:
            parts.append(f"{words} {values[0]:g} to {values[1]:g}{unit}")
    parts += [f"governor {', '.join(before['governors'])}"] if before.get("governors") else []
    unread = before.get("not_readable", [])
    parts += [f"not readable: {', '.join(name.replace('_', ' ') for name in unread)}"] if unread else []
    return "; ".join(parts)


def highest(found: Any) -> float | None:
    """The largest of a mapping's or list's numbers, or the number itself."""
    if isinstance(found, Mapping):
        found = list(found.values())
    if isinstance(found, Sequence):
        return max(found, default=None)
    return None if found is None else float(found)


def frame_rows(benchmark: Json) -> list[dict[str, Any]]:
    """Frame budgets, quickest first, with the share each step's median takes of the budget or of the slowest whole."""
    rows = sorted(benchmark.get("frames", []), key=lambda one: one["total"]["p90_ms"])
    widest = max([one["budget_ms"] for one in rows] + [one["total"]["p90_ms"] for one in rows], default=1.0)
    return [
        {
            **one,
            "budget_mark": round(100 * one["budget_ms"] / widest, 2),
            "steps": [{**step, "bar": round(100 * step["p50_ms"] / widest, 2)} for step in one["steps"]],
        }
        for one in rows
    ]


def machine_text(machine: Json) -> str:
    """The benchmark's machine in a sentence."""
    words = "{cpu}, {cores} cores ({architecture}), {os}; Python {python}, LiteRT {litert}, ONNX Runtime {onnxruntime}"
    return words.format(**machine)


def size_rows(files: Sequence[Json]) -> list[dict[str, Any]]:
    """The files by size, with the share of the largest each bar takes, in percent."""
    largest = max(file["bytes"] for file in files)
    rows = [{**file, "bar": round(100 * file["bytes"] / largest, 2)} for file in files]
    return sorted(rows, key=lambda row: (row["bytes"], row["file"]))


def cost_rows(exported: Json) -> list[dict[str, Any]]:
    """The blocks that cost int8 most, with the share of the costliest each bar takes, in percent."""
    rows = [row for row in exported.get("sensitivity", ()) if max(row["cost_db"], row["worst_cost_db"]) > 0]
    most = max((row["cost_db"] for row in rows), default=1.0)
    return [{**row, "bar": round(100 * max(0.0, row["cost_db"]) / max(most, 0.01), 2)} for row in rows[:BLOCKS_SHOWN]]


def part_rows(gate: Json, inputs: Sequence[Input]) -> list[dict[str, Any]]:
    """Slices and photos of the gate's evidence, worst first, with the bar of their explained effect in percent.

    A part that the teacher did not change, or that is empty, has no explained effect and is left out.
    """
    origins = {one.group: one.origin for one in inputs}
    named = [(one["name"], one["samples"], one) for one in gate["slices"]]
    named += [(origins.get(one["name"], one["name"][:12]), one["count"], one) for one in gate["photos"]]
    rows = [
        {"name": name, "samples": samples, "explained_effect": 1 - one["error"] / one["change"]}
        for name, samples, one in named
        if one["change"] > 0
    ]
    rows.sort(key=lambda row: (row["explained_effect"], row["name"]))
    return [row | {"bar": round(100 * min(1.0, max(0.0, row["explained_effect"])), 2)} for row in rows]


def headline(evidence: Evidence, speed: Sequence[Json]) -> dict[str, Any]:
    """The file a phone would run (int8 LiteRT where there is one) and its latency on the fewest threads."""
    # As tasks.target.judged_file, but for a student without one.
    order = [(runtime, precision) for runtime in ("litert", "onnx") for precision in ("int8", "fp32", "fp16", "w8a16")]
    file = min(evidence.exported["files"], key=lambda one: order.index((one["runtime"], one["precision"])))
    runs = [run for run in speed if run["file"] == file["file"]]  # this machine's first
    return {"file": file, "run": runs[0] if runs else None, "quality": evidence.quality["files"][file["file"]]}


def obstacle_rows(findings: Sequence[Json]) -> list[dict[str, Any]]:
    """What stands in a phone's way, once a layer and kind, with the number of its operations."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for one in findings:
        row = rows.setdefault((one["layer"], one["kind"]), {**one, "operations": []})
        row["operations"].append(one["op"])
    return [{**row, "operations": ", ".join(sorted(set(row["operations"])))} for row in rows.values()]


def loss_rows(evidence: Evidence) -> list[dict[str, Any]]:
    """Each part of the loss with its last value and its share of the gradient, when first and last measured.

    Parts come and go: an adversary from the middle on, the rounding at the end.
    """
    logged = [line["losses"] for line in evidence.curve if "losses" in line]
    shares = [line["shares"] for line in evidence.curve if "shares" in line]
    rows = []
    for name in dict.fromkeys(name for losses in logged for name in losses):
        values = [losses[name] for losses in logged if name in losses]
        own = [one[name] for one in shares if name in one]
        rows.append(
            {
                "name": name,
                "weight": evidence.student["train"]["losses"].get(name),
                "value": values[-1],
                "first": own[0] if own else None,
                "last": own[-1] if own else None,
            }
        )
    return rows


def origin_rows(inputs: Sequence[Input]) -> list[dict[str, Any]]:
    """Inputs by source file and licence, frames of one clip counted together."""
    rows: dict[tuple[str, str, str], int] = {}
    for one in inputs:
        key = (one.origin.partition("#")[0] if one.clip else one.origin, one.licence, one.split)
        rows[key] = rows.get(key, 0) + 1
    return [
        {"origin": origin, "licence": licence, "split": split, "inputs": count}
        for (origin, licence, split), count in sorted(rows.items())
    ]
