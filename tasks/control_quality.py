"""How right a student's slider is between its ends: what evaluate adds for a student that has one.

At strength s a picture is to be the input with s of what the teacher changed. Called by tasks/evaluate.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.charts import png
from tasks.quality import BATCH, DIGITS, Floats, Pictures, Work, checked, open_file, scale, to_bytes

GRID = tuple(place / 8 for place in range(9))  # strengths along which the distance from the input is to rise
SHOWN = (0.25, 0.5, 0.75, 1.0)  # those of them whose explained effect is told
STRIP = (0.0, *SHOWN)  # at which the report shows test pictures
STRIP_ROWS = 2
Slider = Callable[[Pictures, float], Floats]  # (B,S,S,3) uint8 at a strength -> (B,S,S,3) in [0,1]
Table = npt.NDArray[np.float64]


def control_quality(folder: Path, work: Work, name: str, slide: Slider) -> dict[str, Any]:
    """quality.json's `control`: figures of what `open_slider` gave, and of all other files."""
    found = slider_figures(name, slide, work.inputs, work.targets)
    found["files"], found["sliders"] = {}, {}
    for one in work.exported["control"]:
        file = one["file"]
        if one["strength"] is not None:
            found["files"][file] = {"strength": one["strength"], "explained_effect": fixed_effect(folder, one, work)}
        elif file != name:
            found["sliders"][file] = slider_figures(file, slider_of(folder, one), work.inputs, work.targets)
    return found


def open_slider(folder: Path, work: Work) -> tuple[str, Slider] | None:
    """The name of LiteRT's float32 file with the slider and what runs it; None without a slider."""
    files = work.exported.get("control")
    if not files:
        return None
    first = next(one for one in files if one["strength"] is None and one["runtime"] == "litert")
    return first["file"], slider_of(folder, first)


def slider_of(folder: Path, file: Mapping[str, Any]) -> Slider:
    """A file that takes the strength as a function over batches."""
    from models.runtimes import open_model

    model = open_model(folder / "exported" / file["file"], file["runtime"], 1)

    def slide(pictures: Pictures, strength: float) -> Floats:
        return np.concatenate([model(scale(pictures[row : row + 1]), strength) for row in range(len(pictures))])

    return slide


def slider_strip(slide: Slider, inputs: Pictures) -> bytes:
    """A PNG of the first of the test pictures at STRIP, side by side."""
    shown = np.asarray(inputs[:STRIP_ROWS])
    columns = [np.concatenate(list(to_bytes(slide(shown, strength)))) for strength in STRIP]
    return png(np.concatenate(columns, axis=1))


def fixed_effect(folder: Path, file: dict[str, Any], work: Work) -> float:
    """The explained effect of a file at its own strength."""
    run = open_file(folder / "exported" / file["file"], file["runtime"])
    [found] = distances(file["file"], lambda x, _: run(x), work.inputs, work.targets, [file["strength"]]).explained()
    return found


def slider_figures(name: str, slide: Slider, inputs: Pictures, targets: Pictures) -> dict[str, Any]:
    """Of (N,S,S,3) uint8 pairs: explained effect by strength, how far 0 is from the input, and whether it only rises.

    identity_levels is the root mean square distance at 0 in levels of 255; monotone the share of pictures whose
    distance from the input never falls along GRID; step_back the largest fall over the distance at full strength.
    """
    found = distances(name, slide, inputs, targets, GRID)
    moved = np.sqrt(found.moved)
    steps = np.diff(moved, axis=1) / np.maximum(moved[:, -1:], 1 / 255)
    effects = dict(zip(GRID, found.explained(), strict=True))
    return {
        "identity_levels": round(255 * float(np.sqrt(found.moved[:, 0].mean())), DIGITS),
        "monotone": round(float((steps >= 0).all(axis=1).mean()), DIGITS),
        "step_back": round(max(0.0, -float(steps.min())), DIGITS),
        "explained_effect": {f"{strength:g}": effects[strength] for strength in SHOWN},
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Distances:
    """Mean squared distances by picture and strength, (N,len(strengths))."""

    strengths: Sequence[float]
    error: Table  # from the input with so much of the teacher's change
    moved: Table  # from the input
    change: Table  # (N,): the teacher's, from the input

    def explained(self) -> list[float]:
        """Pooled, by strength: 1 - error / change that was asked for; 0 where none was."""
        asked = [strength**2 * self.change.sum() for strength in self.strengths]
        return [
            round(1 - error / all_of_it, DIGITS) if all_of_it else 0.0
            for error, all_of_it in zip(self.error.sum(axis=0).tolist(), asked, strict=True)
        ]


def distances(name: str, slide: Slider, inputs: Pictures, targets: Pictures, strengths: Sequence[float]) -> Distances:
    """What a slider makes of (N,S,S,3) uint8 pairs, a few pictures at a time."""
    from models.metrics import batches

    error, moved, change = [], [], []
    for x, y in batches([inputs, targets], BATCH):
        given, wanted = scale(x), scale(y)
        made = [checked(name, slide(x, strength), x.shape) for strength in strengths]
        asked = [given + np.float32(strength) * (wanted - given) for strength in strengths]
        error.append([_squared(one, other) for one, other in zip(made, asked, strict=True)])
        moved.append([_squared(one, given) for one in made])
        change.append(_squared(wanted, given))
    return Distances(
        strengths=strengths,
        error=np.concatenate(error, axis=1).T,
        moved=np.concatenate(moved, axis=1).T,
        change=np.concatenate(change),
    )


def _squared(a: Floats, b: Floats) -> Table:
    found: Table = np.square(a - b, dtype=np.float64).mean(axis=(1, 2, 3))
    return found
