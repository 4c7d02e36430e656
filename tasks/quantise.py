"""Export the trained student: LiteRT and ONNX, each in float32 and int8, each compared with torch.

Reads data/students/NAME/student and pairs; writes data/students/NAME/exported: the four files and
exported.json. The int8 files are calibrated on real training inputs, parity is measured on validation
inputs. Equal weights give equal bytes. Takes about a minute and 1.5 GiB.

    python -m tasks.quantise --student NAME
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.errors import UserError
from tasks.files import read_json, replacing_folder, sha256_bytes, write_bytes, write_json
from tasks.params import Params, Student
from tasks.parity import Tolerance, check_float_file, parity, parity_at, torch_function
from tasks.stage import STUDENTS, student_main

Images = npt.NDArray[np.float32]

LAYOUTS = {"litert": "NHWC", "onnx": "NCHW"}
SUFFIXES = {"litert": "tflite", "onnx": "onnx"}


def evenly(pairs: Path, split: str, count: int) -> list[Images]:
    """At most `count` inputs of a split, evenly over its order, each (1,S,S,3) float32 in [0,1]."""
    try:
        inputs = np.load(pairs / f"{split}.inputs.npy", mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise UserError(f"missing {error.filename}: run the stage that writes it (dvc repro curate)") from None
    except (ValueError, EOFError) as error:
        raise UserError(f"{pairs}/{split}.inputs.npy is no whole array ({error}): run dvc repro curate again") from None
    if not len(inputs):
        raise UserError(f"{pairs} has no {split} pairs: add photos to the sources or raise the split's share")
    rows = np.unique(np.linspace(0, len(inputs) - 1, num=min(count, len(inputs))).round().astype(int))
    return [inputs[row : row + 1].astype(np.float32) / np.float32(255) for row in rows]


def convert(student: Any, size: int, samples: list[Images], threads: int) -> dict[tuple[str, str], bytes]:
    """The four files' bytes by (runtime, precision)."""
    from models.litert import to_litert, to_litert_int8
    from models.onnx_export import to_onnx, to_onnx_int8

    files: dict[tuple[str, str], bytes] = {}
    say("converting to LiteRT (about half a minute)")
    files["litert", "fp32"] = to_litert(student, size)
    say(f"calibrating LiteRT int8 on {len(samples)} training inputs")
    files["litert", "int8"] = to_litert_int8(files["litert", "fp32"], samples, threads)
    say("converting to ONNX")
    files["onnx", "fp32"] = to_onnx(student, size)
    say(f"calibrating ONNX int8 on {len(samples)} training inputs")
    files["onnx", "int8"] = to_onnx_int8(files["onnx", "fp32"], samples)
    return files


def describe(path: Path, runtime: str, precision: str, samples: list[Images], expected: list[Images]) -> dict[str, Any]:
    """A file's line in exported.json."""
    from models.runtimes import open_model

    found = parity(open_model(path, runtime), samples, expected)
    say(f"{path.name}: {found['psnr_db']} dB to torch, worst {found['worst_psnr_db']} dB, max {found['max_abs']}")
    data = path.read_bytes()
    return {
        "file": path.name,
        "runtime": runtime,
        "precision": precision,
        "sha256": sha256_bytes(data),
        "bytes": len(data),
        "layout": LAYOUTS[runtime],
        "parity": found,
    }


def say(line: str) -> None:
    """Show what is being done."""
    print(f"quantise: {line}", file=sys.stderr, flush=True)


def export(
    folder: Path,
    *,
    calibration_samples: int,
    parity_samples: int,
    tolerance: Tolerance,
    sizes: Sequence[int],
    threads: int,
) -> None:
    """Make folder/exported from folder/student and folder/pairs.

    Raises a UserError for a float32 file that departs from torch, at the student's own size or one that it claims.
    """
    samples = evenly(folder / "pairs", "train", calibration_samples)
    checks = evenly(folder / "pairs", "val", parity_samples)
    record = read_json(folder / "student" / "student.json")

    from models.students import load_student
    from models.torch_setup import prepare_torch

    prepare_torch(threads)
    student = load_student(folder / "student")
    expected = [torch_function(student)(check) for check in checks]
    files = convert(student, record["size"], samples, threads)
    with replacing_folder(folder / "exported") as exported:
        lines = []
        for (runtime, precision), data in files.items():
            path = exported / f"student.{precision}.{SUFFIXES[runtime]}"
            write_bytes(path, data)
            lines.append(describe(path, runtime, precision, checks, expected))
            if precision == "fp32":
                check_float_file(student, path, runtime, lines[-1]["parity"], checks, expected, tolerance)
        written = {"student": record["weights_sha256"], "files": lines}
        written["sizes"] = supported(student, record["size"], lines, sizes, checks, tolerance)
        write_json(exported / "exported.json", written)


def supported(
    student: Any,
    size: int,
    lines: Sequence[Mapping[str, Any]],
    sizes: Sequence[int],
    checks: Sequence[Images],
    tolerance: Tolerance,
) -> list[dict[str, Any]]:
    """The sizes that the student claims, its own first, with the parity of the float32 files of each by runtime."""
    own = {line["runtime"]: line["parity"] for line in lines if line["precision"] == "fp32"}
    found = [{"size": size, "parity": own}]
    for other in sizes:
        say(f"checking parity at {other} x {other} (about half a minute)")
        found.append({"size": other, "parity": parity_at(student, other, checks, tolerance)})
    return found


def quantise(params: Params, name: str, block: Student) -> None:
    """The stage: see the module's docstring."""
    settings = params.quantise
    export(
        STUDENTS / name,
        calibration_samples=settings.calibration_samples,
        parity_samples=settings.parity_samples,
        tolerance=Tolerance(max_difference=settings.max_float_difference, min_psnr_db=settings.min_float_psnr_db),
        sizes=block.sizes,
        threads=params.train.threads,
    )


if __name__ == "__main__":
    student_main("quantise", quantise)
