"""What the stage detector leaves, made up but of the right shape: of a detector, and of none."""

from pathlib import Path
from typing import Any

from tasks.files import sha256_bytes, write_bytes, write_json
from tasks.outside_baselines import BASELINES
from tasks.shifted import SETS

LATENCY = {"file": "detector.fp32.tflite", "p50_ms": 0.5, "student": "student.int8.tflite"}
LATENCY |= {"student_p50_ms": 2.0, "share": 0.25, "runs": 50}


def no_detector(pairs: str, weights: str, *, left_out: bool = True, without: str = "left out") -> dict[str, Any]:
    """detector.json where there is none."""
    record = {"pairs": pairs, "student": weights, "size": 64, "without": without, "left_out": left_out}
    return record | {"files": [], "sets": []}


def a_detector(pairs: str, weights: str, *, found: float = 0.0, photos: int = 2, samples: int = 16) -> dict[str, Any]:
    """detector.json of one whose files are not there."""
    alarm = {"asked": 0.05, "by": "extrapolation", "found": found, "interval": [0.0, 0.5], "samples": samples}
    alarm |= {"photos": photos}
    files = [
        {"file": f"detector.fp32.{suffix}", "runtime": runtime, "precision": "fp32", "sha256": "d" * 64, "bytes": 9}
        | {"layout": layout, "departure": 1e-6}
        for runtime, suffix, layout in (("litert", "tflite", "NHWC"), ("onnx", "onnx", "NCHW"))
    ]
    sets = [
        {"name": name, "samples": samples, "auroc": 1 - place / 40, "fpr_at_95": 0.1, "fades": 0.9, "passes": 0.5}
        | {"auroc_interval": [0.7, 1.0] if place else None, "baselines": dict.fromkeys(BASELINES, 0.6)}
        for place, name in enumerate(SETS)
    ]
    return no_detector(pairs, weights, left_out=False, without="") | {
        "looks_at": ["picture"],
        "files": files,
        "passes_at": 1.5,
        "photos": {"train": 7, "val": 1, "test": photos},
        "fitted_on": 320,
        "calibrated_on": 328,
        "alarms": {"fades": alarm, "passes": alarm | {"asked": 0.01}},
        "sets": sets,
        "scores": {name: [0.5, 1.2, 9.0] for name in ("test", *SETS)},
    }


def write_detector(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    """detector/ with that record, its files if it has any, and the time they take; returns the record."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in record["files"]:
        data = f"{file['file']} {record['student']}".encode()
        write_bytes(folder / file["file"], data)
        file |= {"sha256": sha256_bytes(data), "bytes": len(data)}
    write_json(folder / "detector.json", record)
    if record["files"]:
        write_json(folder / "latency.json", LATENCY)
    return record
