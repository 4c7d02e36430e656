"""Made-up results of a classifier: digits of scikit-learn, and texts, with contestants that err in known ways."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tasks.classification.quality import Work, taught_labels

FILES = [
    {"file": f"student.{precision}.{suffix}", "runtime": runtime, "precision": precision, "bytes": size}
    | {"sha256": f"{size:064x}", "parity": {"max_abs": 0.01, "max_relative": 0.001, "agreement": 1.0}}
    for precision, suffix, runtime, size in (
        ("fp32", "tflite", "litert", 310_000),
        ("int8", "tflite", "litert", 95_000),
        ("fp32", "onnx", "onnx", 312_000),
        ("int8", "onnx", "onnx", 99_000),
    )
]
PHONE = "student.int8.tflite"
P50_MS = {"student.fp32.tflite": 0.22, PHONE: 0.14, "student.fp32.onnx": 0.2, "student.int8.onnx": 0.25}
MORE = (("p50_ms", 1.0), ("p90_ms", 1.1), ("p99_ms", 1.4))
BENCHMARK: dict[str, Any] = {
    "machine": {"cpu": "Example CPU @ 2.00GHz", "cores": 2, "architecture": "x86_64", "os": "Debian, Linux 6.1"}
    | {"python": "3.11.9", "litert": "2.3.0", "onnxruntime": "1.31.1"},
    "files": [
        {**{key: one[key] for key in ("file", "runtime", "precision", "sha256", "bytes")}, "threads": threads}
        | {"target": "local", "runs": 100, "peak_mib": 60.0}
        | {name: P50_MS[one["file"]] * more / threads**0.5 for name, more in MORE}
        for one in FILES
        for threads in (1, 2)
    ],
    "targets": [],
    "frames": [],
}
PAIRS = {"digest": "a" * 64, "teacher": "b" * 64}


def scores(labels: np.ndarray, classes: int, sure: float, noise: float, seed: int) -> np.ndarray:
    """Logits (N,C) that lean to the labels."""
    return (
        sure * np.eye(classes)[labels] + np.random.default_rng(seed).normal(0, noise, (len(labels), classes))
    ).astype(np.float32)


def digits(labelled: bool = True, count: int = 360) -> tuple[Work, dict[str, Callable[[Any], np.ndarray]]]:
    """Test digits with a teacher, and what each contestant makes of them by looking the picture up."""
    from sklearn.datasets import load_digits

    found = load_digits()
    pictures = np.repeat((found.images[:count, :, :, None] * 15.9).astype(np.uint8), 3, axis=3)
    return results(pictures, found.target[:count].astype(np.int64), [str(one) for one in range(10)], labelled)


def results(
    inputs: Any, labels: np.ndarray, classes: list[str], labelled: bool = True, noise: float = 1.6
) -> tuple[Work, dict[str, Callable[[Any], np.ndarray]]]:
    """Work and models over these inputs."""
    count = len(classes)
    teacher = scores(labels, count, 6.0, noise, 0)
    student = (0.7 * teacher + scores(labels, count, 1.5, 1.1, 1)).astype(np.float32)
    rough = (student + np.random.default_rng(2).normal(0, 0.15, student.shape)).astype(np.float32)
    given = {"torch": student, **{one["file"]: rough if one["precision"] == "int8" else student for one in FILES}}
    work = Work(
        classes=classes,
        inputs=inputs,
        labels=labels if labelled else np.full_like(labels, -1),
        teacher=teacher,
        taught=taught_labels(labels if labelled else np.full_like(labels, -1), teacher),
        pairs=PAIRS,
        files=FILES,
        benchmark=BENCHMARK,
    )
    return work, {name: looked_up(logits) for name, logits in given.items()}


def looked_up(logits: np.ndarray) -> Callable[[Any], np.ndarray]:
    """A model that gives these logits, batch after batch."""
    at = 0

    def model(inputs: Any) -> np.ndarray:
        nonlocal at
        at += len(inputs)
        return logits[at - len(inputs) : at]

    return model


def told(work: Work, models: dict[str, Callable[[Any], np.ndarray]], *, size: int | None, name: str = "digits") -> Any:
    """All that a report tells of these results."""
    from tasks.classification.phone import student_evidence
    from tasks.classification.quality import measure_all, summarise
    from tasks.classification.report import Told

    found = measure_all(models, work)
    quality = summarise(found, work, student_evidence(work, found).to_json())
    curve: list[dict[str, Any]] = []
    for step in range(10, 401, 10):
        parts = {"kd": 2.0 * step**-0.4, "labels": 1.4 * step**-0.4}
        curve.append({"step": step, "loss": sum(parts.values()), "losses": parts})
        if step % 100 == 0:
            curve.append({"step": step, "val_accuracy": 0.95 - 10 / step, "val_agreement": 0.96 - 9 / step})
    return Told(
        name=name,
        quality=quality,
        benchmark=work.benchmark,
        exported={"files": list(work.files), "student": "c" * 64},
        student={"parameters": 77_450, "weights_sha256": "c" * 64, "init": "scratch", "train": {"steps": 400}},
        pairs={
            **work.pairs,
            "teacher_name": "ensemble of <2> networks",
            "teacher_version": 1,
            "dataset": name,
            "dataset_digest": "d" * 64,
            "counts": {"train": 1077, "val": 360, "test": len(work.inputs)},
            "size": size,
        },
        curve=curve,
        inputs={one["row"]: work.inputs[one["row"]] for one in quality["worst"]},
    )
