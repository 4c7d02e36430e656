"""quantise, of classifiers: LiteRT and ONNX in float32 and int8, each compared with torch on validation examples.

Reads student/ and pairs/ of one student; writes data/students/NAME/exported: the files and exported.json. int8 files
are calibrated on training examples. A float32 file whose logits lie further from torch's than
`quantise.max_float_difference` of their spread is refused. What int8 costs in accuracy is measured by evaluate.

The command is that of tasks/quantise.py.
"""

import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.errors import UserError
from models.spread import spread
from tasks.classification.params import Classifier
from tasks.classification.taught import LabelPairs, open_pairs
from tasks.files import read_json, replacing_folder, sha256_bytes, write_bytes, write_json
from tasks.params import Params
from tasks.quantise import LAYOUTS, SUFFIXES
from tasks.stage import STUDENTS

Images = npt.NDArray[np.float32]
Function = Callable[[Images], Images]  # (1,S,S,3) in [0,1] -> logits (1,C)


def quantise(params: Params, name: str, block: Classifier) -> None:
    """Make data/students/NAME/exported."""
    from models.classification.networks import load_network
    from models.torch_setup import prepare_torch

    prepare_torch(params.train.threads)
    folder, settings = STUDENTS / name, params.quantise
    pairs = open_pairs(folder, block.dataset)
    record = read_json(folder / "student" / "student.json")
    if record["pairs"] != pairs.record["digest"]:
        raise UserError(f"{folder}/student was trained on other pairs than {folder}/pairs: run dvc repro")
    samples = evenly(pairs, "train", settings.calibration_samples)
    checks = evenly(pairs, "val", settings.parity_samples)
    student = load_network(folder / "student")
    expected = [torch_function(student)(one) for one in checks]
    lines = []
    with replacing_folder(folder / "exported") as exported:
        for (runtime, precision), data in make_files(student, pairs.examples.size or 0, samples, params):
            path = exported / f"student.{precision}.{SUFFIXES[runtime]}"
            write_bytes(path, data)
            found = parity(opened(data, runtime), checks, expected)
            say(f"{path.name}: {found['agreement']:.0%} of torch's classes, logits off by {found['max_abs']} at most")
            if precision == "fp32":
                check_float(path.name, found, settings.max_float_difference)
            lines.append(describe(path, runtime, precision, found))
        result = {
            "student": record["weights_sha256"],
            "files": lines,
            "calibration": {
                "samples": len(samples),
                "sha256": sha256_bytes(b"".join(one.tobytes() for one in samples)),
            },
        }
        write_json(exported / "exported.json", result)


def evenly(pairs: LabelPairs, split: Any, count: int) -> list[Images]:
    """At most `count` kept examples of a split, evenly over their order, each (1,S,S,3) in [0,1]."""
    rows, inputs = pairs.rows(split), pairs.split(split).inputs
    return [inputs[rows[at]][None].astype(np.float32) / np.float32(255) for at in spread(len(rows), count)]


def make_files(
    student: Any, size: int, samples: Sequence[Images], params: Params
) -> list[tuple[tuple[str, str], bytes]]:
    """The files' bytes by runtime and precision."""
    from models.litert import classifier_to_litert
    from models.litert_int8 import LiteRtQuantiser, to_litert_fp16
    from models.onnx_export import to_onnx
    from models.onnx_int8 import OnnxQuantiser, to_onnx_fp16

    shown = [(one,) for one in samples]
    say("converting to LiteRT")
    litert = classifier_to_litert(student, size)
    say(f"calibrating LiteRT int8 on {len(samples)} training examples")
    quantiser = LiteRtQuantiser(litert, shown, params.train.threads, [name for name, _ in student.named_modules()])
    say("converting to ONNX, and calibrating int8")
    onnx = to_onnx(student, size)
    made: dict[tuple[str, str], Callable[[], bytes]] = {
        ("litert", "fp32"): lambda: litert,
        ("litert", "fp16"): lambda: to_litert_fp16(litert),
        ("litert", "int8"): quantiser.quantised,
        ("onnx", "fp32"): lambda: onnx,
        ("onnx", "fp16"): lambda: to_onnx_fp16(onnx),
        ("onnx", "int8"): OnnxQuantiser(onnx, shown, quantiser.rescaled).quantised,
    }
    wanted = [("litert", one) for one in params.quantise.precisions.litert if ("litert", one) in made]
    wanted += [("onnx", one) for one in params.quantise.precisions.onnx]
    return [(key, made[key]()) for key in wanted]


def torch_function(student: Any) -> Function:
    """A torch classifier as a function on (1,S,S,3) arrays."""
    import torch

    def run(pictures: Images) -> Images:
        with torch.inference_mode():
            logits: Images = student(torch.from_numpy(pictures).permute(0, 3, 1, 2)).numpy()
        return logits

    return run


def opened(content: bytes, runtime: str) -> Function:
    """A file's bytes as a function."""
    from models.runtimes import open_model

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model.{SUFFIXES[runtime]}"
        path.write_bytes(content)
        return open_model(path, runtime, gives="logits")


def parity(candidate: Function, checks: Sequence[Images], expected: Sequence[Images]) -> dict[str, float]:
    """How far a file's logits lie from torch's: the largest difference, that over their spread, and agreement."""
    ours, theirs = np.concatenate([candidate(one) for one in checks]), np.concatenate(list(expected))
    largest = float(np.abs(ours - theirs).max())
    return {
        "max_abs": float(f"{largest:.3g}"),
        "max_relative": float(f"{largest / max(float(theirs.std()), 1e-6):.3g}"),
        "agreement": float((ours.argmax(axis=1) == theirs.argmax(axis=1)).mean()),
    }


def check_float(file: str, found: Mapping[str, float], allowed: float) -> None:
    """Refuse a float32 file that computes something else."""
    if not found["max_relative"] <= allowed:
        raise UserError(
            f"{file} differs from torch by {found['max_relative']} of the logits' spread, where "
            f"quantise.max_float_difference allows {allowed}: use another layer (architecture in params.yaml)"
        )


def describe(path: Path, runtime: str, precision: str, found: Mapping[str, float]) -> dict[str, Any]:
    """A file's line in exported.json."""
    data = path.read_bytes()
    return {
        "file": path.name,
        "runtime": runtime,
        "precision": precision,
        "sha256": sha256_bytes(data),
        "bytes": len(data),
        "layout": LAYOUTS[runtime],
        "gives": "logits",
        "parity": dict(found),
    }


def say(line: str) -> None:
    """Show what is being done."""
    print(f"quantise: {line}", file=sys.stderr, flush=True)
