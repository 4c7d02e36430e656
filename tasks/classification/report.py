"""The static report of one classifier: report/index.html with its pictures, readable offline and when copied.

Called by evaluate, which has all the figures. Writes index.html (from report.html, a Jinja2 template with autoescape
on, because names of classes, texts and teachers are other people's), images/*.png, images/*.svg.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks import templates
from tasks.charts import curve_svg, png
from tasks.classification.charts import calibration_svg, validation_svg
from tasks.classification.quality import TEACHER
from tasks.classification.quality_report import (
    CLASSES_SHOWN,
    FIGURES,
    class_rows,
    confused,
    confusion_rows,
    contestants,
    counted,
    drop_rows,
    example_rows,
    mimicry_words,
)
from tasks.files import write_bytes, write_text
from tasks.speed_report import latency_rows, machine_text, size_rows, target_rows

Pictures = npt.NDArray[np.uint8]
Json = Mapping[str, Any]

TEMPLATE = Path(__file__).with_name("report.html")
SHOWN = 192  # pixels to which a small picture is enlarged, by whole numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """All that a classifier's report tells, as read from the stages' outputs."""

    name: str
    quality: Json  # tasks.classification.quality.summarise
    benchmark: Json
    exported: Json
    student: Json
    pairs: Json
    curve: Sequence[Json]
    inputs: Mapping[int, Pictures | str]  # of quality's worst examples, by row: (S,S,3), or the text


def write_report(folder: Path, told: Told) -> None:
    """Write the report into `folder`."""
    images = folder / "images"
    images.mkdir()
    calibrated = {one: told.quality["calibration"][one] for one in (told.quality["phone"], TEACHER)}
    if told.quality["labelled"]:
        write_text(images / "calibration.svg", calibration_svg(calibrated))
    write_text(images / "losses.svg", curve_svg("losses", told.curve))
    write_text(images / "validation.svg", validation_svg(told.curve))
    for row, shown in told.inputs.items():
        if not isinstance(shown, str):
            write_bytes(images / f"example-{row}.png", png(enlarged(shown)))
    write_text(folder / "index.html", render(told))


def enlarged(picture: Pictures) -> Pictures:
    """(S,S,3) with each pixel as large as fits into SHOWN, so that small pictures are not blurred by the browser."""
    times = max(1, SHOWN // picture.shape[0])
    return np.repeat(np.repeat(picture, times, axis=0), times, axis=1)


def render(told: Told) -> str:
    """index.html as text."""
    quality, exported = told.quality, told.exported["files"]
    speed = latency_rows(told.benchmark)
    runs = [run for run in speed if run["file"] == quality["phone"]]  # this machine's, fewest threads, first
    classes = class_rows(quality)
    return templates.render(
        TEMPLATE,
        told=told,
        quality=quality,
        phone=quality["files"][quality["phone"]],
        file=next(one for one in exported if one["file"] == quality["phone"]),
        run=runs[0] if runs else None,
        figures=FIGURES,
        contestants=contestants(quality),
        classes=classes,
        bars=classes[:CLASSES_SHOWN],
        confusion=confusion_rows(quality),
        confused=confused(quality),
        mimicry=mimicry_words(quality),
        drops=drop_rows(quality),
        examples=example_rows(quality, quality["classes"]),
        is_text=any(isinstance(one, str) for one in told.inputs.values()),
        counted=counted,
        one_input="text" if told.pairs["size"] is None else "picture",
        machine=machine_text(told.benchmark["machine"]),
        speed=speed,
        targets=target_rows(told.benchmark),
        frames=[],
        sizes=size_rows(exported),
    )
