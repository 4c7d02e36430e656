"""Export the trained student: LiteRT and ONNX in the precisions of params.yaml, each compared with torch.

Reads data/students/NAME/student and pairs; writes data/students/NAME/exported: the files and exported.json. The int8
files are calibrated on real training inputs; parity, what each block costs, and the layers that must stay in float for
the budget (tasks/mixed.py) are measured on validation inputs. Equal weights give equal bytes on one kind of machine.
Of a student with a slider (models/controls.py) these are the files at full strength; beside them, in `control` of
exported.json, files that take the strength and, for each in `control.baked`, files at that strength.
Takes about a minute and 1.5 GiB.

    python -m tasks.quantise --student NAME
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.errors import UserError
from models.spread import spread
from tasks.files import read_json, replacing_folder, sha256_bytes, write_bytes, write_json
from tasks.mixed import Budget, Fidelity, Measure, Mixed, follow, keep_high
from tasks.params import Params
from tasks.parity import Function, Tolerance, check_float_file, parity, parity_at, torch_function
from tasks.stage import STUDENTS, student_main
from tasks.stage_params import Precisions, Quantise
from tasks.student_params import Student

if TYPE_CHECKING:
    from models.litert_int8 import LiteRtQuantiser
    from models.onnx_int8 import OnnxQuantiser
    from models.runtimes import Sample

Images = npt.NDArray[np.float32]

LAYOUTS = {"litert": "NHWC", "onnx": "NCHW"}
SUFFIXES = {"litert": "tflite", "onnx": "onnx"}
CALIBRATED = (0.0, 0.25, 0.5, 0.75, 1.0)  # strengths at which the files that take it are calibrated, in turn
STRENGTHS = (0.0, 0.3, 0.7, 1.0)  # and held against torch


def evenly(pairs: Path, split: str, count: int) -> "list[tuple[Images]]":
    """At most `count` inputs of a split, evenly over its order, each (1,S,S,3) float32 in [0,1]."""
    try:
        inputs = np.load(pairs / f"{split}.inputs.npy", mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise UserError(f"missing {error.filename}: run the stage that writes it (dvc repro curate)") from None
    except (ValueError, EOFError) as error:
        raise UserError(f"{pairs}/{split}.inputs.npy is no whole array ({error}): run dvc repro curate again") from None
    if not len(inputs):
        raise UserError(f"{pairs} has no {split} pairs: add photos to the sources or raise the split's share")
    return [(inputs[row : row + 1].astype(np.float32) / np.float32(255),) for row in spread(len(inputs), count)]


def refuse_shared(calibration: Sequence[tuple[Images]], checks: Sequence[tuple[Images]]) -> None:
    """Refuse to measure on a picture that the ranges were found on: it would look better than it is."""
    seen = {sha256_bytes(one.tobytes()) for (one,) in calibration}
    if any(sha256_bytes(one.tobytes()) in seen for (one,) in checks):
        raise UserError("a validation input is a training input too: run the pipeline from ingest on (dvc repro)")


class Files:
    """The files as they are made: bytes by (runtime, precision), and what was kept high in which."""

    def __init__(
        self,
        student: Any,
        size: int,
        samples: "Sequence[Sample]",
        checks: "Sequence[Sample]",
        threads: int,
        budget: Budget,
    ) -> None:
        self.student, self.size, self.threads, self.budget = student, size, threads, budget
        self.samples, self.checks = samples, checks
        self.data: dict[tuple[str, str], bytes] = {}
        self.mixed: dict[str, Mixed] = {}  # by runtime

    def litert(self, precisions: Sequence[str]) -> "LiteRtQuantiser":
        """Make the LiteRT files; returns what made the int8 one, for ONNX's sake."""
        from models.litert import to_litert
        from models.litert_int8 import LiteRtQuantiser, to_litert_fp16, to_litert_w8a16

        say("converting to LiteRT (about half a minute)")
        content = self.data["litert", "fp32"] = to_litert(self.student, self.size)
        say(f"calibrating LiteRT int8 on {len(self.samples)} training inputs")
        modules = [name for name, _ in self.student.named_modules()]
        quantiser = LiteRtQuantiser(content, self.samples, self.threads, modules)
        say("finding what each block costs, and what must stay in float")
        mixed = keep_high(quantiser.layers, self.measure("litert", content, quantiser), self.budget)
        self.keep("litert", quantiser, mixed)
        if "fp16" in precisions:
            self.data["litert", "fp16"] = to_litert_fp16(content)
        if "w8a16" in precisions:
            self.data["litert", "w8a16"] = to_litert_w8a16(content, self.samples, self.threads)
        return quantiser

    def onnx(self, precisions: Sequence[str], sibling: "LiteRtQuantiser") -> None:
        """Make the ONNX files, int8 with the scales of the LiteRT one and, if need be, its layers in float."""
        from models.onnx_export import to_onnx
        from models.onnx_int8 import OnnxQuantiser, to_onnx_fp16

        say("converting to ONNX")
        content = self.data["onnx", "fp32"] = to_onnx(self.student, self.size)
        say(f"calibrating ONNX int8 on {len(self.samples)} training inputs")
        quantiser = OnnxQuantiser(content, self.samples, sibling.rescaled)
        found = self.mixed["litert"]
        order = [str(row["block"]) for row in found.sensitivity]
        measure = self.measure("onnx", content, quantiser)
        self.keep("onnx", quantiser, follow(sibling.layers, found.high, order, measure, self.budget))
        if "fp16" in precisions:
            self.data["onnx", "fp16"] = to_onnx_fp16(content)

    def measure(self, runtime: str, content: bytes, quantiser: "LiteRtQuantiser | OnnxQuantiser") -> Measure:
        """How near an int8 file comes to the float one, by the layers that are kept high."""
        expected = [opened(content, runtime)(*check) for check in self.checks]

        def fidelity(high: frozenset[str]) -> Fidelity:
            found = parity(opened(quantiser.quantised(high), runtime), self.checks, expected)
            return Fidelity(found["psnr_db"], found["worst_psnr_db"])

        return fidelity

    def keep(self, runtime: str, quantiser: "LiteRtQuantiser | OnnxQuantiser", mixed: Mixed) -> None:
        """Take the int8 file that was found, and say which it is."""
        self.data[runtime, "int8"] = quantiser.quantised(mixed.high)
        self.mixed[runtime] = mixed
        kept = f"in float: {', '.join(mixed.high)}" if mixed.high else "nothing kept in float"
        found = f"{mixed.found.psnr_db} dB to float, worst {mixed.found.worst_psnr_db} dB"
        say(f"{runtime} int8: {found}; {kept}")
        if not mixed.held:
            wanted = f"min_psnr_db {self.budget.psnr_db} and min_worst_psnr_db {self.budget.worst_psnr_db}"
            say(f"{runtime} int8 does not hold the budget ({wanted}): this is the best found")


def opened(content: bytes, runtime: str) -> Function:
    """A file's bytes as a function on a sample's parts."""
    from models.runtimes import open_model

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model.{SUFFIXES[runtime]}"
        path.write_bytes(content)
        return open_model(path, runtime)


def describe(path: Path, runtime: str, precision: str, found: Mapping[str, float]) -> dict[str, Any]:
    """A file's line in exported.json; `found` is its parity to torch."""
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
    folder: Path, settings: Quantise, *, sizes: Sequence[int], threads: int, baked: Sequence[float] = ()
) -> None:
    """Make folder/exported from folder/student and folder/pairs; `sizes` are those claimed besides the student's own.

    Of a student with a slider, `baked` are the strengths that files are made of besides the full one.
    Raises a UserError for a float32 file that departs from torch, at the student's own size or one that it claims.
    """
    precisions, budget = settings.precisions, Budget(settings.min_psnr_db, settings.min_worst_psnr_db)
    tolerance = Tolerance(max_difference=settings.max_float_difference, min_psnr_db=settings.min_float_psnr_db)
    samples = evenly(folder / "pairs", "train", settings.calibration_samples)
    checks = evenly(folder / "pairs", "val", settings.parity_samples)
    refuse_shared(samples, checks)
    record = read_json(folder / "student" / "student.json")

    from models.controls import FULL, Controlled, bake
    from models.students import load_student
    from models.torch_setup import prepare_torch

    prepare_torch(threads)
    trained = load_student(folder / "student")
    slider = trained if isinstance(trained, Controlled) else None
    student = bake(slider, FULL) if slider else trained

    def make(student: Any, samples: "Sequence[Sample]" = samples, checks: "Sequence[Sample]" = checks) -> Files:
        files = Files(student, record["size"], samples, checks, threads, budget)
        files.onnx(precisions.onnx, files.litert(precisions.litert))
        return files

    with replacing_folder(folder / "exported") as exported:
        files = make(student)
        lines = write_files(files, exported, "student", precisions, tolerance)
        result = {
            "student": record["weights_sha256"],
            "files": lines,
            "sizes": supported(student, record["size"], lines, sizes, checks, tolerance),
            "calibration": {
                "samples": len(samples),
                "sha256": sha256_bytes(b"".join(one.tobytes() for (one,) in samples)),
            },
            "sensitivity": list(files.mixed["litert"].sensitivity),
        }
        if slider:
            say("with the strength as an input")
            given: list[Sample] = [(one, CALIBRATED[row % len(CALIBRATED)]) for row, (one,) in enumerate(samples)]
            judged: list[Sample] = [(one, STRENGTHS[row % len(STRENGTHS)]) for row, (one,) in enumerate(checks)]
            files = make(slider, given, judged)
            made_lines = write_files(files, exported, "student.strength", precisions, tolerance)
            control = [line | {"strength": None} for line in made_lines]
            for strength in baked:
                say(f"at strength {strength:g}")
                made, stem = make(bake(slider, strength)), f"student.at-{strength:g}"
                made_lines = write_files(made, exported, stem, precisions, tolerance)
                control += [line | {"strength": strength} for line in made_lines]
            result["control"] = control
        write_json(exported / "exported.json", result)


def write_files(
    files: Files, folder: Path, stem: str, precisions: Precisions, tolerance: Tolerance
) -> list[dict[str, Any]]:
    """Write STEM.PRECISION.SUFFIX, each held against torch; returns their lines in exported.json."""
    from models.runtimes import open_model

    expected = [torch_function(files.student)(*check) for check in files.checks]
    lines = []
    for (runtime, precision), data in in_order(files.data, precisions):
        path = folder / f"{stem}.{precision}.{SUFFIXES[runtime]}"
        write_bytes(path, data)
        line = describe(path, runtime, precision, parity(open_model(path, runtime), files.checks, expected))
        lines.append(line | (files.mixed[runtime].to_json() if precision == "int8" else {}))
        if precision == "fp32":
            check_float_file(files.student, path, runtime, line["parity"], files.checks, expected, tolerance)
    return lines


def supported(
    student: Any,
    size: int,
    lines: Sequence[Mapping[str, Any]],
    sizes: Sequence[int],
    checks: "Sequence[Sample]",
    tolerance: Tolerance,
) -> list[dict[str, Any]]:
    """The sizes that the student claims, its own first, with the parity of the float32 files of each by runtime."""
    own = {line["runtime"]: line["parity"] for line in lines if line["precision"] == "fp32"}
    found = [{"size": size, "parity": own}]
    for other in sizes:
        say(f"checking parity at {other} x {other} (about half a minute)")
        found.append({"size": other, "parity": parity_at(student, other, checks, tolerance)})
    return found


def in_order(data: Mapping[tuple[str, str], bytes], precisions: Precisions) -> list[tuple[tuple[str, str], bytes]]:
    """The files in the order of params.yaml."""
    wanted = [("litert", one) for one in precisions.litert] + [("onnx", one) for one in precisions.onnx]
    return [(key, data[key]) for key in wanted]


def quantise(params: Params, name: str, block: Student) -> None:
    """The stage: see the module's docstring."""
    export(STUDENTS / name, params.quantise, sizes=block.sizes, threads=params.train.threads, baked=block.control.baked)


if __name__ == "__main__":
    student_main("quantise", quantise)
