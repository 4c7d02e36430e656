"""quantise, of classifiers: LiteRT and ONNX in float32 and int8, each compared with torch on validation examples.

Reads student/ and pairs/ of one student; writes data/students/NAME/exported: the files and exported.json. int8 files
of pictures are calibrated on training examples; those of texts have int8 weights and round activations as they come,
which is usual of transformers and wants no calibration. A float32 file whose logits lie further from torch's than
`quantise.max_float_difference` of their spread is refused. What int8 costs in accuracy is measured by evaluate.

The command is that of tasks/quantise.py.
"""

import sys
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.errors import UserError
from models.runtimes import OF_TOKENS
from models.spread import spread
from tasks.classification.params import Classifier
from tasks.classification.taken import Taken, Texts, student_takes
from tasks.classification.taught import LabelPairs, open_pairs
from tasks.files import read_json, replacing_folder, sha256_bytes, write_bytes, write_json
from tasks.params import Params
from tasks.parity import logits_parity
from tasks.quantise import LAYOUTS, SUFFIXES
from tasks.stage import STUDENTS

Logits = npt.NDArray[np.float32]
Function = Callable[[Any], Logits]  # what a file takes of one example -> logits (1,C)
Files = list[tuple[tuple[str, str], bytes]]  # by runtime and precision


def quantise(params: Params, name: str, block: Classifier) -> None:
    """Make data/students/NAME/exported."""
    export(STUDENTS / name, open_pairs(STUDENTS / name, block.dataset), params)


def export(folder: Path, pairs: LabelPairs, params: Params) -> None:
    """Make exported/ of the student in a folder, by pairs that may lie elsewhere."""
    from models.classification.networks import load_network
    from models.torch_setup import prepare_torch

    prepare_torch(params.train.threads)
    settings = params.quantise
    record = read_json(folder / "student" / "student.json")
    if record["pairs"] != pairs.record["digest"]:
        raise UserError(f"{folder}/student was trained on other pairs than {pairs.folder}: run dvc repro")
    student, taken = load_network(folder / "student"), student_takes(folder / "student")
    checks = evenly(pairs, "val", settings.parity_samples)
    shown = [taken.sample(one) for one in checks]
    expected = [torch_function(student, taken)(one) for one in checks]
    samples = (
        []
        if isinstance(taken, Texts)
        else [taken.sample(one) for one in evenly(pairs, "train", settings.calibration_samples)]
    )
    lines = []
    with replacing_folder(folder / "exported") as exported:
        made = text_files(student, taken.tokens.max_tokens, params) if isinstance(taken, Texts) else None
        for (runtime, precision), data in made or picture_files(student, pairs.examples.size or 0, samples, params):
            path = exported / f"student.{precision}.{SUFFIXES[runtime]}"
            write_bytes(path, data)
            file = opened(data, runtime, taken.gives)
            found = logits_parity([file(one) for one in shown], expected)
            say(f"{path.name}: {found['agreement']:.0%} of torch's classes, logits off by {found['max_abs']} at most")
            if precision == "fp32":
                check_float(path.name, found, settings.max_float_difference)
            lines.append(describe(path, runtime, precision, taken.gives, found))
        write_json(
            exported / "exported.json",
            {
                "student": record["weights_sha256"],
                "files": lines,
                "calibration": {
                    "samples": len(samples),
                    "sha256": sha256_bytes(b"".join(one.tobytes() for one in samples)),
                },
            },
        )


def evenly(pairs: LabelPairs, split: Any, count: int) -> list[Any]:
    """At most `count` kept examples of a split, evenly over their order."""
    rows, inputs = pairs.rows(split), pairs.split(split).inputs
    return [inputs[rows[at]] for at in spread(len(rows), count)]


def picture_files(student: Any, size: int, samples: Sequence[Any], params: Params) -> Files:
    """The files of a classifier of pictures, which are calibrated on `samples`."""
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
    return [(key, made[key]()) for key in wanted(params, made)]


def text_files(student: Any, max_tokens: int, params: Params) -> Files:
    """The files of a classifier of texts: LiteRT takes rows of max_tokens, ONNX any up to that."""
    from models.litert import text_classifier_to_litert
    from models.litert_int8 import LINEAR, to_litert_fp16, to_litert_w8
    from models.onnx_export import text_classifier_to_onnx
    from models.onnx_int8 import to_onnx_fp16, to_onnx_w8

    say("converting to LiteRT")
    litert = text_classifier_to_litert(student, max_tokens)
    say("converting to ONNX")
    onnx = text_classifier_to_onnx(student, max_tokens)
    made: dict[tuple[str, str], Callable[[], bytes]] = {
        ("litert", "fp32"): lambda: litert,
        ("litert", "fp16"): lambda: to_litert_fp16(litert, LINEAR),
        ("litert", "int8"): lambda: to_litert_w8(litert),
        ("onnx", "fp32"): lambda: onnx,
        ("onnx", "fp16"): lambda: to_onnx_fp16(onnx),
        ("onnx", "int8"): lambda: to_onnx_w8(onnx),
    }
    return [(key, made[key]()) for key in wanted(params, made)]


def wanted(params: Params, made: Collection[tuple[str, str]]) -> list[tuple[str, str]]:
    """Which files are made, of those that can be."""
    asked = params.quantise.precisions
    keys: list[tuple[str, str]] = [("litert", one) for one in asked.litert]
    keys += [("onnx", one) for one in asked.onnx]
    for runtime, precision in keys:
        if (runtime, precision) not in made:
            say(f"{precision} is not made of classifiers, {runtime} goes without")
    return [key for key in keys if key in made]


def torch_function(student: Any, taken: Taken) -> Function:
    """A torch classifier as a function of one example."""
    import torch

    def run(one: Any) -> Logits:
        with torch.inference_mode():
            logits: Logits = student(*taken.batch([one])).numpy()
        return logits

    return run


def opened(content: bytes, runtime: str, gives: Any) -> Function:
    """A file's bytes as a function of what it takes."""
    from models.runtimes import open_model

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model.{SUFFIXES[runtime]}"
        path.write_bytes(content)
        return open_model(path, runtime, gives=gives)


def check_float(file: str, found: Mapping[str, float], allowed: float) -> None:
    """Refuse a float32 file that computes something else."""
    if not found["max_relative"] <= allowed:
        raise UserError(
            f"{file} differs from torch by {found['max_relative']} of the logits' spread, where "
            f"quantise.max_float_difference allows {allowed}: use another layer (architecture in params.yaml)"
        )


def describe(path: Path, runtime: str, precision: str, gives: str, found: Mapping[str, float]) -> dict[str, Any]:
    """A file's line in exported.json."""
    data = path.read_bytes()
    return {
        "file": path.name,
        "runtime": runtime,
        "precision": precision,
        "sha256": sha256_bytes(data),
        "bytes": len(data),
        **({} if gives == OF_TOKENS else {"layout": LAYOUTS[runtime]}),
        "gives": gives,
        "parity": dict(found),
    }


def say(line: str) -> None:
    """Show what is being done."""
    print(f"quantise: {line}", file=sys.stderr, flush=True)
