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
from tasks.quality_report import FIGURES, contestants, cost_rows, flicker_rows, part_rows
from tasks.records import Input
from tasks.shortfall import NAMES, shown_parts
from tasks.speed_report import frame_rows, latency_rows, machine_text, size_rows, target_rows

Pictures = npt.NDArray[np.uint8]
Json = Mapping[str, Any]

TEMPLATE = Path(__file__).with_name("report.html")
PANELS = {"input": "Input", "teacher": "Teacher", "student": "Student", "int8": "Student, int8"}


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
