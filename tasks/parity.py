"""How far a model file's pictures lie from torch's, on real inputs. Called by tasks/quantise.py.

A float32 file that lies further away than the tolerances of params.yaml is refused with the first layer at which it
departs. The sizes that a student claims besides its own are checked the same way, on files made for that.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.errors import UserError

if TYPE_CHECKING:
    from models.runtimes import Sample

Images = npt.NDArray[np.float32]
Function = Callable[..., Images]  # called on a sample's parts: (1,S,S,3) in [0,1], and a strength if it takes one


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far a float32 file may lie from torch; values in [0,1]."""

    max_difference: float  # of any value
    min_psnr_db: float  # of the worst picture

    def holds(self, found: Mapping[str, float]) -> bool:
        """Whether what `parity` found is within it; NaN is not."""
        return found["max_abs"] <= self.max_difference and found["worst_psnr_db"] >= self.min_psnr_db


def torch_function(student: Any) -> Function:
    """A torch student as a function on (1,S,S,3) arrays, and a strength if it has a slider."""
    import torch

    def run(images: Images, *strength: float) -> Images:
        with torch.inference_mode():
            pictures = torch.from_numpy(images).permute(0, 3, 1, 2)
            output = student(pictures, *(torch.tensor([one], dtype=torch.float32) for one in strength))
        made: Images = output.permute(0, 2, 3, 1).numpy()
        return made

    return run


def parity(candidate: Function, samples: "Sequence[Sample]", expected: Sequence[Images]) -> dict[str, float]:
    """How far a file's output lies from torch's: largest difference, mean and worst PSNR over the samples."""
    from models.metrics import psnr_db, to_tensor

    outputs = [candidate(*sample) for sample in samples]
    pairs = list(zip(outputs, expected, strict=True))
    ratios = [float(psnr_db(to_tensor(output), to_tensor(wanted))) for output, wanted in pairs]
    largest = max(float(np.abs(output - wanted).max()) for output, wanted in pairs)
    return {
        "max_abs": float(f"{largest:.3g}"),
        "psnr_db": round(sum(ratios) / len(ratios), 2),
        "worst_psnr_db": round(min(ratios), 2),
    }


def logits_parity(outputs: Sequence[Images], expected: Sequence[Images]) -> dict[str, float]:
    """How far logits, each (1,C), lie from others: the largest difference, that over their spread, and agreement."""
    ours, theirs = np.concatenate(list(outputs)), np.concatenate(list(expected))
    largest = float(np.abs(ours - theirs).max())
    return {
        "max_abs": float(f"{largest:.3g}"),
        "max_relative": float(f"{largest / max(float(theirs.std()), 1e-6):.3g}"),
        "agreement": float((ours.argmax(axis=1) == theirs.argmax(axis=1)).mean()),
    }


def check_float_file(
    student: Any,
    path: Path,
    runtime: str,
    found: Mapping[str, float],
    samples: "Sequence[Sample]",
    expected: Sequence[Images],
    tolerance: Tolerance,
) -> None:
    """Raise a UserError that names the first layer at fault if a float32 file is not within the tolerance."""
    if tolerance.holds(found):
        return
    from models.departure import first_departure
    from models.runtimes import open_model

    model = open_model(path, runtime)
    errors = [np.nan_to_num(np.abs(model(*x) - y), nan=np.inf).max() for x, y in zip(samples, expected, strict=True)]
    worst, *strength = samples[int(np.argmax(errors))]
    if strength:
        where = f"most at strength {strength[0]:g}"
    else:
        place = first_departure(student, path.read_bytes(), runtime, worst)
        where = f"first at {place}" if place else f"in no single layer: {runtime} departs when it joins them"
    raise UserError(
        f"{path.name} differs from torch by {found['max_abs']} (worst picture {found['worst_psnr_db']} dB), where "
        f"quantise allows {tolerance.max_difference} and {tolerance.min_psnr_db:g} dB; {where}. Use another layer "
        "there (architecture in params.yaml), or another version of the converter"
    )


def resized(samples: "Sequence[Sample]", size: int) -> list[Images]:
    """The samples' pictures at another size, (1,size,size,3) in [0,1]."""
    import torch
    from torch.nn.functional import interpolate

    tensors = (torch.from_numpy(sample[0]).permute(0, 3, 1, 2) for sample in samples)
    scaled = (interpolate(one, size=(size, size), mode="bicubic", antialias=True).clamp(0, 1) for one in tensors)
    return [np.ascontiguousarray(one.permute(0, 2, 3, 1).numpy()) for one in scaled]


def parity_at(
    student: Any, size: int, samples: "Sequence[Sample]", tolerance: Tolerance
) -> dict[str, dict[str, float]]:
    """Parity of the float32 files for pictures of another size, by runtime; raises as `check_float_file` does.

    The files are made for the check and not kept: an app that wants another size exports it from the same weights.
    """
    from models.litert import to_litert
    from models.onnx_export import to_onnx
    from models.runtimes import open_model

    pictures: list[Sample] = [(one,) for one in resized(samples, size)]
    expected = [torch_function(student)(*picture) for picture in pictures]
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for runtime, convert, suffix in (("litert", to_litert, "tflite"), ("onnx", to_onnx, "onnx")):
            path = Path(folder) / f"student.fp32.{size}.{suffix}"
            path.write_bytes(convert(student, size))
            found[runtime] = parity(open_model(path, runtime), pictures, expected)
            check_float_file(student, path, runtime, found[runtime], pictures, expected, tolerance)
    return found
