"""Whether a target computes what this machine does: its outputs on validation pictures against those made here.

Outputs are pictures, or a classifier's logits, as the file's record says (`gives`).

Another processor or WebAssembly adds up in another order, so float outputs may differ in their last bits. Whole
numbers differ by more: ONNX Runtime's kernels for processors with AVX2 and no VNNI saturate, where WebAssembly's and
LiteRT's do not (docs/decisions/0011-targets.md). Beyond the tolerances below it is another function.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from models.errors import UserError
from tasks.parity import logits_parity, parity
from tasks.target import Images, Job, Json

MAX_FLOAT_DIFFERENCE = 1e-3  # a quarter of a step of 8-bit colour, as tasks/quantise.py asks of the exporters
# fp16 has 11 bits for a value in [0,1], and carries the rounding of every layer.
MAX_HALF_DIFFERENCE = 2e-2
MIN_WHOLE_AGREEMENT = 0.5  # int8 logits: the share of pictures of which the same class is said
MIN_WHOLE_PSNR_DB = 30.0  # int8, on the worst picture: 37 dB with kernels that saturate, below 20 for another picture

Function = Callable[[Images], Images]


def compare(job: Job, outputs: Images, expected: Sequence[Images]) -> dict[str, float]:
    """Parity of outputs, one for each of the job's pictures: (N,S,S,3), or logits (N,C)."""
    if outputs.ndim == 2:
        return logits_parity([one[None] for one in outputs], expected)
    given = iter(outputs)
    return parity(lambda _: next(given)[None], [(one,) for one in job.pictures], list(expected))


def made_here(job: Job, record: Json) -> list[Images]:
    """What a file makes of the job's pictures on this machine's runtime."""
    from models.runtimes import open_model

    model = open_model(job.exported / record["file"], record["runtime"], 1, record.get("gives", "picture"))
    return [model(picture) for picture in job.pictures]


def parity_here(job: Job, record: Json, outputs: Any) -> dict[str, float]:
    """A target's outputs of a file against the same file here; a UserError where they are of another form."""
    expected = made_here(job, record)
    shape = (len(job.pictures), *expected[0].shape[1:])
    if getattr(outputs, "shape", None) != shape or outputs.dtype != np.float32 or not np.isfinite(outputs).all():
        what = "pictures" if len(shape) == 4 else "logits"
        raise UserError(f"{record['file']} gave no {what} there (wanted {list(shape)} of float32, finite)")
    return compare(job, outputs, expected)


def beyond(precision: str, found: Json, reference: str) -> str:
    """How a file's parity lies beyond its tolerance, in words; empty where it does not."""
    limits = {"fp32": MAX_FLOAT_DIFFERENCE, "fp16": MAX_HALF_DIFFERENCE}
    of_logits = "agreement" in found
    if precision in limits:
        worst, limit = found["max_relative" if of_logits else "max_abs"], limits[precision]
        return "" if worst <= limit else f"its outputs differ from {reference} by up to {worst:g}, more than {limit:g}"
    if of_logits:
        share = found["agreement"]
        return "" if share >= MIN_WHOLE_AGREEMENT else f"it says {reference} class of {share:.0%} of the pictures only"
    psnr = found["worst_psnr_db"]
    if psnr >= MIN_WHOLE_PSNR_DB:
        return ""
    return f"its outputs differ from {reference} by {psnr:g} dB (PSNR of the worst), less than {MIN_WHOLE_PSNR_DB:g}"
