"""How far a model file's pictures lie from torch's, on real inputs. Called by tasks/quantise.py."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.float32]
Function = Callable[[Images], Images]


def torch_function(student: Any) -> Function:
    """A torch student as a function on (1,S,S,3) arrays."""
    import torch

    def run(images: Images) -> Images:
        with torch.inference_mode():
            output: Images = student(torch.from_numpy(images).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
        return output

    return run


def parity(candidate: Function, samples: list[Images], expected: list[Images]) -> dict[str, float]:
    """How far a file's output lies from torch's: largest difference, mean and worst PSNR over the samples."""
    from models.metrics import psnr_db, to_tensor

    outputs = [candidate(sample) for sample in samples]
    pairs = list(zip(outputs, expected, strict=True))
    ratios = [float(psnr_db(to_tensor(output), to_tensor(wanted))) for output, wanted in pairs]
    largest = max(float(np.abs(output - wanted).max()) for output, wanted in pairs)
    return {
        "max_abs": float(f"{largest:.3g}"),
        "psnr_db": round(sum(ratios) / len(ratios), 2),
        "worst_psnr_db": round(min(ratios), 2),
    }
