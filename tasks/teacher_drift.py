"""How far are a new teacher's pictures from the old one's? Measured before a training with the new one is paid for.

Reads pairs/test.{inputs,targets}.npy and pairs/kept.jsonl of a student's folder that was curated with the new
teacher, and a JSON file with the old teacher's block of params.yaml, which paints some of the inputs again.
Writes FILE (TeacherDrift) and, beside it, FILE with the suffix .png: input, old and new side by side.

Command: python -m tasks.teacher_drift --student NAME --old JSON_FILE --out FILE.json
"""

import argparse
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from models.errors import UserError
from models.spread import spread
from tasks.charts import sample_sheet
from tasks.files import read_json, write_bytes, write_json
from tasks.params import load_params
from tasks.quality import checked, read_pairs, scale
from tasks.records import Record, Verdict, read_records
from tasks.stage import STUDENTS, guarded
from tasks.student_params import Student
from tasks.teacher_params import Teacher

Pictures = npt.NDArray[np.uint8]

SHEET_ROWS = 4
DIGITS = 4
FIGURES = ("rms_levels", "explained_effect", "chroma_ratio", "sharpness_ratio")
SAME_LEVELS = 1.0  # of 255, rms: what rounding to 8 bits and other hardware can make
TITLES = {"input": "Input", "old": "Old teacher", "new": "New teacher"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherDrift(Record):
    """New against old on the same inputs; figures are None where the old teacher cannot be asked any more."""

    n: int  # test inputs
    old: str  # name and version
    new: str
    rms_levels: float | None  # root mean square difference, in levels of 255
    explained_effect: float | None  # of the new teacher by the old: 1 - MSE(old, new) / MSE(input, new)
    chroma_ratio: float | None  # new over old
    sharpness_ratio: float | None  # Laplacian energy, new over old
    told: str  # in words


def teacher_drift(
    folder: Path, old_teacher: Mapping[str, Any], samples: int, sheet: Path | None = None, *, old_digest: str = ""
) -> TeacherDrift:
    """Compare the teacher that made folder/pairs with `old_teacher`, a teacher's block, on `samples` test inputs.

    Writes the pictures of a few to `sheet`. An old teacher that cannot be loaded or run, or (where `old_digest` is
    given) is not that teacher any more, is told, not raised; UserError for pairs that are missing or damaged.
    """
    pairs = folder / "pairs"
    record = read_json(pairs / "pairs.json")
    inputs, targets = read_pairs(pairs, "test")
    rows = spread(len(inputs), samples)
    seeds = _seeds(pairs, rows)
    before, after = np.asarray(inputs[rows]), np.asarray(targets[rows])
    figures: dict[str, Any] = dict.fromkeys(FIGURES)
    try:
        old = paint(old_teacher, before, seeds, old_digest)
    except (UserError, OSError) as error:
        told = f"not compared, the old teacher cannot be asked: {error}"
    else:
        figures = measure(before, old, after)
        told = in_words(figures)
        if sheet:
            write_bytes(sheet, contact_sheet(before, old, after))
    return TeacherDrift(
        n=len(rows),
        old=f"{old_teacher.get('name', '?')} version {old_teacher.get('version', '?')}",
        new=f"{record['teacher_name']} version {record['teacher_version']}",
        told=told,
        **figures,
    )


def _seeds(pairs: Path, rows: npt.NDArray[np.intp]) -> list[int]:
    """The seed with which the new teacher made each of these test rows."""
    seeds = {one.index: one.seed for one in read_records(pairs / "kept.jsonl", Verdict) if one.split == "test"}
    missing = [int(row) for row in rows if row not in seeds]
    if missing:
        raise UserError(f"{pairs}/kept.jsonl does not list test row {missing[0]}: curate again")
    return [seeds[int(row)] for row in rows]


def paint(block: Mapping[str, Any], inputs: Pictures, seeds: list[int], digest: str) -> Pictures:
    """The teacher's pictures of (N,S,S,3) inputs, rounded as pairs are; UserError where it cannot be loaded or run."""
    from models.teachers import load_teacher

    try:
        # mypy takes a union for no type here.
        settings = TypeAdapter[Any](Teacher).validate_python(dict(block), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(f"its block does not fit this version ({key or 'kind'}: {first['msg']})") from None
    teacher = load_teacher(settings.model_dump())
    if digest and teacher.digest != digest:
        raise UserError("this version of its code is not the one that taught the champion")
    # One at a time: the figures of a picture must not depend on how many are asked for, nor memory on their number.
    painted = [teacher(inputs[row : row + 1], seeds[row : row + 1])[0] for row in range(len(inputs))]
    return np.rint(checked("the old teacher", np.stack(painted), inputs.shape) * 255).astype(np.uint8)


def measure(inputs: Pictures, old: Pictures, new: Pictures) -> dict[str, float | None]:
    """TeacherDrift's figures of (N,S,S,3) uint8 pictures; explained effect is None if `new` changes nothing."""
    from models import metrics

    difference, change = (float(np.square(scale(one) - scale(new)).mean(dtype=np.float64)) for one in (old, inputs))
    before, after = metrics.to_tensor(old), metrics.to_tensor(new)
    colour, detail = (
        [float(figure(pictures).double().mean()) for pictures in (after, before)]
        for figure in (metrics.mean_chroma, metrics.laplacian_energy)
    )
    return {
        "rms_levels": round(255 * math.sqrt(difference), DIGITS),
        "explained_effect": round(1 - difference / change, DIGITS) if change else None,
        "chroma_ratio": round(metrics.floored_ratio(colour[0], colour[1], metrics.LEVEL), DIGITS),
        "sharpness_ratio": round(metrics.floored_ratio(detail[0], detail[1], metrics.LEVEL**2), DIGITS),
    }


def in_words(figures: Mapping[str, float | None]) -> str:
    """One sentence on what a training would have to learn anew."""
    rms, effect = figures["rms_levels"], figures["explained_effect"]
    assert rms is not None
    if rms < SAME_LEVELS:
        return f"the new teacher paints the old one's pictures (they differ by {rms:.2f} of 255 levels)"
    if effect is None:
        return f"the new teacher leaves its inputs as they are; the old one's are {rms:.1f} of 255 levels apart"
    if effect <= 0:
        what = "farther from the old one's than from the inputs themselves: another effect, to be learnt from scratch"
    elif effect < 0.5:
        what = f"another effect; the old one explains {effect:.0%} of it"
    elif effect < 0.9:
        what = f"a variation; the old one explains {effect:.0%} of it"
    else:
        what = f"a touch-up; the old one explains {effect:.0%} of it"
    looks = f"colour x{figures['chroma_ratio']:.2f}, fine detail x{figures['sharpness_ratio']:.2f}"
    return f"the new teacher's pictures are {what} ({rms:.1f} of 255 levels apart; {looks})"


def contact_sheet(inputs: Pictures, old: Pictures, new: Pictures) -> bytes:
    """A PNG of at most SHEET_ROWS rows, spread over the pictures: input, old, new."""
    rows = spread(len(inputs), SHEET_ROWS)
    pictures = {str(row + 1): {"input": inputs[row], "old": old[row], "new": new[row]} for row in rows}
    return sample_sheet(pictures, TITLES)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m tasks.teacher_drift")
    parser.add_argument("--student", required=True, help="a name under `students:` in params.yaml")
    parser.add_argument("--old", type=Path, required=True, help="a JSON file with the old teacher's block")
    parser.add_argument("--old-digest", default="", help="the digest the old teacher had when it taught")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write; the pictures lie beside it")
    parser.add_argument("--samples", type=int, help="test inputs to paint; retrain.teacher_samples if left out")
    arguments = parser.parse_args()

    def work() -> None:
        params, out = load_params(), arguments.out
        block = params.block(arguments.student)
        old = read_json(arguments.old)
        if not isinstance(old, dict):
            raise UserError(f"{arguments.old} must hold a teacher's block, a JSON object")
        samples = arguments.samples or params.retrain.teacher_samples
        if not isinstance(block, Student):
            from tasks.classification.teacher_drift import label_drift

            labels = label_drift(STUDENTS / arguments.student, block.dataset, old, old_digest=arguments.old_digest)
            write_json(out, labels.to_json())
            print(f"{arguments.student}: {labels.told}")
            return
        found = teacher_drift(
            STUDENTS / arguments.student, old, samples, out.with_suffix(".png"), old_digest=arguments.old_digest
        )
        write_json(out, found.to_json())
        print(f"{arguments.student}: {found.told}")

    guarded("teacher_drift", work, arguments.student)


if __name__ == "__main__":
    main()
