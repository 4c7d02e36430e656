"""What the report tells of quality: every figure with what it means, and rows for the page's tables and bars."""

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.records import Input

Json = Mapping[str, Any]

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
