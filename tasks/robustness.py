"""How a finished student holds up when its camera is bad, and when what it sees is not what it was taught on.

Reads pairs/, student/ and exported/ of data/students/NAME. Every test input is degraded as CAMERA says
(models/camera.py: blur, noise, compression) and what the student makes of it held against the teacher's picture of the
clean one. Explained effect is over the clean input there, so that 0 is a student no better than the clean photograph.
Then it is changed as SCENES say (something in front of the lens, too little or too much light), which a teacher is to
see too: it is asked again, unless its pictures cost money or hours, and the effect is over the changed input. Writes
OUT (default: data/robustness/NAME): robustness.json, robustness.md (the table) and samples.png.

Command: python -m tasks.robustness --student NAME [--out FOLDER]
"""

import argparse
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from models import camera
from models.spread import spread
from tasks.charts import sample_sheet
from tasks.files import read_json, replacing_folder, write_bytes, write_json, write_text
from tasks.markdown import markdown
from tasks.occluders import KINDS, occlude
from tasks.params import load_params
from tasks.pictures import expose
from tasks.progress import progress
from tasks.quality import (
    BATCH,
    IDENTITY,
    TORCH,
    Columns,
    Model,
    Pictures,
    checked,
    of_torch,
    open_file,
    pooled,
    read_pairs,
    rounded,
    scale,
    shown_file,
    to_bytes,
)
from tasks.records import read_made
from tasks.stage import STUDENTS, guarded
from tasks.video import of_teacher

MEASURED = Path("data/robustness")
SHOWN = 3  # test pictures on the sheet
FIGURES = ("explained_effect", "ms_ssim", "sharpness_ratio")
NOISY = math.log(4e-3), math.log(1.2e-2)  # shot noise of a dim room and of a dark one
Degrade = Callable[[Pictures, np.random.Generator], Pictures]  # one picture (S,S,3)


def noisy(log_shot: float) -> Degrade:
    """Shot noise of that strength with the read noise that goes with it."""
    shot, read = math.exp(log_shot), math.exp(camera.read_of(log_shot))
    return lambda picture, random: camera.noise(picture, shot, read, random)


def all_of_it(picture: Pictures, random: np.random.Generator) -> Pictures:
    """A little of everything, in the order of a camera."""
    blurred = camera.blur(picture, camera.disc(1.5))
    return camera.compress(noisy(NOISY[0])(blurred, random), 40)


# Fixed points of the ranges that models/camera.py draws from; radius and length in pixels, JPEG's quality.
CAMERA: dict[str, Degrade] = {
    "clean": lambda picture, random: picture,
    "blur 1.5": lambda picture, random: camera.blur(picture, camera.disc(1.5)),
    "blur 3": lambda picture, random: camera.blur(picture, camera.disc(3.0)),
    "motion 8": lambda picture, random: camera.blur(picture, camera.line(8.0, random.uniform(0, math.pi))),
    "noise dim": noisy(NOISY[0]),
    "noise dark": noisy(NOISY[1]),
    "JPEG 40": lambda picture, random: camera.compress(picture, 40),
    "JPEG 15": lambda picture, random: camera.compress(picture, 15),
    "all three": all_of_it,
}
SCENES: dict[str, Callable[[Pictures, int], Pictures]] = {  # of one picture and its row
    "occluded": lambda picture, row: occlude(picture, list(KINDS)[row % len(KINDS)], row),
    "2 stops darker": lambda picture, _: expose(picture, -2.0, 1.0),
    "1.5 stops brighter": lambda picture, _: expose(picture, 1.5, 1.0),
}


def degraded(pictures: Pictures, condition: str, first: int = 0) -> Pictures:
    """(N,S,S,3) uint8 under a condition; `first` is the row of the first one in its set, which seeds what is random."""
    rows = [(row, np.asarray(picture)) for row, picture in enumerate(pictures, first)]
    if condition in SCENES:
        return np.stack([SCENES[condition](picture, row) for row, picture in rows])
    return np.stack([CAMERA[condition](picture, np.random.default_rng((0, row))) for row, picture in rows])


def measure(
    models: Mapping[str, Model], inputs: Pictures, targets: Pictures, teacher_of: Model | None = None
) -> dict[str, dict[str, dict[str, float]]]:
    """Condition -> model -> figures, over (N,S,S,3) uint8 pairs; without a teacher only those of the camera."""
    from models import metrics

    found = {}
    conditions = [*CAMERA, *(SCENES if teacher_of else ())]
    with progress("robustness", len(inputs) * len(conditions), "pictures") as advance:
        for condition in conditions:
            parts: dict[str, list[Columns]] = {name: [] for name in models}
            first = 0
            for x, y in metrics.batches([inputs, targets], BATCH):
                seen = degraded(x, condition, first)
                clean, teacher = metrics.to_tensor(x), metrics.to_tensor(y)
                if condition in SCENES and teacher_of:
                    clean = metrics.to_tensor(seen)
                    teacher = metrics.to_tensor(checked("the teacher", teacher_of(seen), x.shape))
                for name, model in models.items():
                    output = metrics.to_tensor(checked(name, model(seen), x.shape))
                    parts[name].append(metrics.measure(output, clean, teacher))
                first += len(x)
                advance(len(x))
            found[condition] = {name: rounded(pooled(metrics.join(part))) for name, part in parts.items()}
    return found


def table(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """The figures as Markdown, a row a condition, "model figure" a column."""
    names = list(next(iter(found.values())))
    head = ["test pictures", *(f"{name}: {figure.replace('_', ' ')}" for name in names for figure in FIGURES)]
    lines = []
    for condition, by_model in found.items():
        lines.append([condition, *(f"{by_model[name][figure]:.3f}" for name in names for figure in FIGURES)])
    return markdown(head, lines)


def samples(model: Model, inputs: Pictures, targets: Pictures, teacher_of: Model | None = None) -> bytes:
    """A PNG: for some test rows, under each condition what the model sees and what it makes of it."""
    rows: dict[str, dict[str, Pictures]] = {}
    for condition in (*CAMERA, *(SCENES if teacher_of else ())):
        rows[condition] = {}
        for row in spread(len(inputs), SHOWN):
            seen = degraded(inputs[row : row + 1], condition, row)
            made = to_bytes(model(seen))
            teacher = to_bytes(teacher_of(seen))[0] if condition in SCENES and teacher_of else targets[row]
            rows[condition] |= {f"seen {row}": seen[0], f"made {row}": made[0], f"teacher {row}": teacher}
    return sample_sheet(rows, {name: name.split()[0] for name in rows["clean"]})


def robustness(name: str, out: Path) -> None:
    """Measure one student and write `out`; raises UserError where it is not made yet, or of other pairs."""
    import torch

    from models.students import load_student
    from models.teachers import KEEPING, load_teacher

    folder = STUDENTS / name
    read_made(folder)
    files = read_json(folder / "exported" / "exported.json")["files"]
    inputs, targets = read_pairs(folder / "pairs", "test")
    phone = shown_file(files, "int8")
    runtime = next(record["runtime"] for record in files if record["file"] == phone)
    models: dict[str, Model] = {
        TORCH: of_torch(load_student(folder / "student")),
        phone: open_file(folder / "exported" / phone, runtime),
        IDENTITY: scale,
    }
    settings = load_params().student(name).teacher
    teacher_of: Model | None = None
    if settings.kind in KEEPING:
        print(
            f"robustness: a {settings.kind} teacher's pictures cost: {', '.join(SCENES)} are left out", file=sys.stderr
        )
    else:
        teacher_of = of_teacher(load_teacher(settings.model_dump()))
    with torch.inference_mode():
        found = measure(models, inputs, targets, teacher_of)
        sheet = samples(models[phone], inputs, targets, teacher_of)
    about: dict[str, Any] = {"student": name, "test_samples": len(inputs), "found": found}
    with replacing_folder(out) as made:
        write_json(made / "robustness.json", about)
        write_text(made / "robustness.md", table(found))
        write_bytes(made / "samples.png", sheet)
    print(table(found))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tasks.robustness")
    parser.add_argument("--student", required=True, help="a name under `students:` in params.yaml, made")
    parser.add_argument("--out", type=Path, help="default: data/robustness/NAME")
    asked = parser.parse_args()
    guarded("robustness", lambda: robustness(asked.student, asked.out or MEASURED / asked.student), asked.student)
