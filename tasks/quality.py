"""What evaluate measures: every contestant's pictures of the test set against the teacher's.

Contestants are the torch student, each exported file, and two baselines without any learning: the input left as
it is, and the best global colour map, fitted on the training pairs. Called by tasks/evaluate.py, and by
tasks/compare.py for the champion's file.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.errors import UserError
from tasks.evidence import Evidence
from tasks.input_slices import NO_SLICES, InputSlices
from tasks.intervals import explained_interval
from tasks.progress import progress
from tasks.records import Verdict

BATCH = 4  # pictures in memory at a time
TORCH, IDENTITY, COLOUR_AFFINE = "torch", "identity", "colour_affine"
DIGITS = 6  # of the figures written: finer differences come from the machine, not from the student

Pictures = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Model = Callable[[Pictures], Floats]  # (B,S,S,3) uint8 -> (B,S,S,3) in [0,1]
Columns = dict[str, npt.NDArray[np.float64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one student's evaluation reads, checked."""

    pairs: dict[str, Any]  # pairs.json
    student: dict[str, Any]  # student.json
    exported: dict[str, Any]  # exported.json
    benchmark: dict[str, Any]  # benchmark.json
    inputs: Pictures  # test, (N,S,S,3), memory-mapped
    targets: Pictures
    verdicts: list[Verdict]  # of the test rows, in their order
    photos: list[str]  # the group of each test row's input
    slices: InputSlices = NO_SLICES  # besides the halves


def read_pairs(folder: Path, split: str) -> tuple[Pictures, Pictures]:
    """The memory-mapped inputs and targets of a split, each (N,S,S,3) uint8."""
    inputs, targets = (
        np.load(folder / f"{split}.{side}.npy", mmap_mode="r", allow_pickle=False) for side in ("inputs", "targets")
    )
    if inputs.shape != targets.shape or inputs.ndim != 4 or not len(inputs):
        raise UserError(f"{folder}: {split} inputs {inputs.shape} and targets {targets.shape} do not fit: curate again")
    return inputs, targets


def open_models(folder: Path, work: Work) -> dict[str, Model]:
    """Every contestant by name: the torch student, each file, and the two baselines."""
    from models import metrics
    from models.students import load_student

    train = metrics.batches(read_pairs(folder / "pairs", "train"), 16)
    student = load_student(folder / "student")
    recolour = metrics.colour_affine(metrics.fit_colour_affine(train))
    models: dict[str, Model] = {
        TORCH: of_torch(student),
        IDENTITY: scale,
        COLOUR_AFFINE: lambda pictures: to_pictures(recolour(metrics.to_tensor(pictures))),
    }
    for record in work.exported["files"]:
        models[record["file"]] = open_file(folder / "exported" / record["file"], record["runtime"])
    return models


def open_file(path: Path, runtime: str) -> Model:
    """A model file as a function over batches; it takes one picture at a time."""
    from models.runtimes import open_model

    model = open_model(path, runtime, 1)
    return lambda pictures: np.concatenate([model(scale(pictures[i : i + 1])) for i in range(len(pictures))])


def scale(pictures: Pictures) -> Floats:
    """uint8 -> float32 in [0,1]."""
    return pictures.astype(np.float32) / np.float32(255)


def of_torch(student: Any) -> Model:
    """A torch student as a function over batches."""
    from models.metrics import to_tensor

    return lambda pictures: to_pictures(student(to_tensor(pictures)))


def to_pictures(values: Any) -> Floats:
    """A tensor (B,3,H,W) -> (B,H,W,3)."""
    pictures: Floats = values.permute(0, 2, 3, 1).numpy()
    return pictures


def to_bytes(pictures: Floats) -> Pictures:
    """Pictures in [0,1] as uint8; what lies beyond is clipped."""
    return np.rint(np.clip(pictures, 0, 1) * 255).astype(np.uint8)


def painted(model: Model, pictures: Pictures, name: str) -> Pictures:
    """What the model of that name makes of (N,S,S,3) uint8, BATCH at a time, as uint8."""
    import torch

    parts = [pictures[start : start + BATCH] for start in range(0, len(pictures), BATCH)]
    with torch.inference_mode():
        return np.concatenate([to_bytes(checked(name, model(part), part.shape)) for part in parts])


def measure_student(folder: Path, work: Work) -> tuple[dict[str, Columns], dict[str, Model]]:
    """Per-picture columns of every contestant by name, and the models that gave them."""
    import torch

    from models.torch_setup import prepare_torch

    prepare_torch(torch.get_num_threads())
    with torch.inference_mode():
        models = open_models(folder, work)
        return measure_all(models, work.inputs, work.targets, float_twins(work.exported["files"])), models


def smoothness(models: Mapping[str, Model], inputs: Pictures, twins: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Of each file with a float twin, the bands and grain it adds to smooth areas, in levels of 255.

    Figures of models/banding.py: the larger of those on gradients and on the test inputs' plain areas, where there are.
    """
    import torch

    from models import banding, metrics

    found = {}
    with torch.inference_mode():
        for name, twin in twins.items():
            parts = banding.on_gradients(models[name], models[twin], inputs.shape[1])
            plain = banding.on_plain_areas(
                models[name], models[twin], (batch for (batch,) in metrics.batches([inputs], BATCH))
            )
            found[name] = {part: max(value, plain.get(f"plain_{part}") or 0.0) for part, value in parts.items()}
    return found


def float_twins(files: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Each file's name that is not fp32 -> the fp32 file of the same runtime."""
    floats = {record["runtime"]: record["file"] for record in files if record["precision"] == "fp32"}
    return {
        record["file"]: floats[record["runtime"]]
        for record in files
        if record["precision"] != "fp32" and record["runtime"] in floats
    }


def measure_all(
    models: Mapping[str, Model], inputs: Pictures, targets: Pictures, twins: Mapping[str, str]
) -> dict[str, Columns]:
    """Per-picture columns of every model over (N,S,S,3) uint8 pairs, BATCH pictures in memory at a time."""
    from models import metrics

    parts: dict[str, list[Columns]] = {name: [] for name in models}
    with progress("evaluate", len(inputs), "pictures") as advance:
        for x, y in metrics.batches([inputs, targets], BATCH):
            pictures, teacher = metrics.to_tensor(x), metrics.to_tensor(y)
            outputs = {name: metrics.to_tensor(checked(name, model(x), x.shape)) for name, model in models.items()}
            for name, output in outputs.items():
                columns = metrics.measure(output, pictures, teacher)
                if name in twins:
                    columns["psnr_to_float_db"] = metrics.psnr_db(output, outputs[twins[name]]).numpy()
                parts[name].append(columns)
            advance(len(x))
    return {name: metrics.join(part) for name, part in parts.items()}


def checked(name: str, output: Floats, shape: tuple[int, ...]) -> Floats:
    """The output clipped to [0,1]; a UserError when it is no picture."""
    if output.shape != shape or not np.isfinite(output).all():
        raise UserError(f"{name} gives no picture (shape {output.shape} for {shape}, or NaN): quantise or train again")
    return np.clip(output, 0.0, 1.0)


def summarise(
    columns: Mapping[str, Columns], work: Work, evidence: Evidence, smooth: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    """quality.json: figures of every contestant, what the gate is told of the phone's file, and each picture's own."""
    figures = {name: rounded(pooled(column) | dict(smooth.get(name, {}))) for name, column in columns.items()}
    shown = shown_file(work.exported["files"])
    photos = evidence.photos
    interval = explained_interval([photo.error for photo in photos], [photo.change for photo in photos])
    return {
        "test_samples": len(work.inputs),
        "test_photos": len(photos),
        "student": figures[TORCH],
        "explained_effect_interval": interval and interval.to_json(),  # of the evidence's file
        "baselines": {name: figures[name] for name in (IDENTITY, COLOUR_AFFINE)},
        "files": {record["file"]: figures[record["file"]] for record in work.exported["files"]},
        "evidence": evidence.to_json(),
        "per_sample_of": shown,
        "per_sample": per_sample(columns[shown], work),
    }


def pooled(columns: Columns) -> dict[str, float]:
    """The set's figures, with fidelity to the float file where there is one."""
    from models import metrics

    figures = metrics.pool(columns)
    if "psnr_to_float_db" in columns:
        figures["psnr_to_float_db"] = float(columns["psnr_to_float_db"].mean())
        figures["worst_psnr_to_float_db"] = float(columns["psnr_to_float_db"].min())
    return figures


def rounded(figures: Mapping[str, float]) -> dict[str, float]:
    """The same figures to DIGITS decimals."""
    return {name: round(value, DIGITS) for name, value in figures.items()}


def shown_file(files: Sequence[Mapping[str, Any]], precision: str = "fp32") -> str:
    """The LiteRT file of a precision, else any file of it, else the torch student."""
    names = [record["file"] for record in files if record["precision"] == precision and record["runtime"] == "litert"]
    names += [record["file"] for record in files if record["precision"] == precision]
    return names[0] if names else TORCH


def per_sample(columns: Columns, work: Work) -> list[dict[str, Any]]:
    """One record a test picture; its explained effect is its own 1 - error / change."""
    from models.metrics import LEVEL

    own = 1 - columns["error"] / np.maximum(columns["change"], LEVEL**2)
    return [
        {"row": row, "pair": verdict.pair, "input": verdict.input, "explained_effect": round(float(own[row]), DIGITS)}
        | rounded({name: float(columns[name][row]) for name in ("psnr_db", "ssim", "ms_ssim")})
        for row, verdict in enumerate(work.verdicts)
    ]


def panels(work: Work, models: Mapping[str, Model], row: int) -> dict[str, Pictures]:
    """What the report shows of a test row: input, teacher, student and int8, each (S,S,3) uint8."""
    inputs, targets = np.asarray(work.inputs[row]), np.asarray(work.targets[row])
    files = work.exported["files"]
    shown = {"student": shown_file(files), "int8": shown_file(files, "int8")}
    pictures = {"input": inputs, "teacher": targets}
    for label, name in shown.items():
        if name != TORCH or label == "student":
            pictures[label] = painted(models[name], inputs[None], name)[0]
    return pictures
