"""How a classifier in training does on examples that it is not taught, as lines of the curve."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.validation import Check

BATCH = 256
Given = Callable[[slice], tuple[Tensor, ...]]  # what the student is given of some held-out rows


def logits_of(model: nn.Module, given: Given, count: int, device: torch.device) -> npt.NDArray[np.float32]:
    """(count,C) of a model in eval mode, BATCH examples at a time."""
    found: list[Any] = []
    with torch.inference_mode():
        for some in slices(count):
            found.append(model(*(part.to(device) for part in given(some))).float().cpu().numpy())
    return np.concatenate(found)


def slices(count: int) -> Iterator[slice]:
    """Rows by BATCH."""
    return (slice(start, min(start + BATCH, count)) for start in range(0, count, BATCH))


def on_labels(given: Given, labels: npt.NDArray[np.int64], teacher: npt.NDArray[np.float32]) -> Check:
    """The check on held-out examples: accuracy on labelled ones, agreement with the teacher's (N,C), divergence."""

    def check(model: nn.Module, device: torch.device) -> dict[str, float]:
        found = logits_of(model, given, len(labels), device)
        known = labels >= 0
        ours, theirs = (functional.log_softmax(torch.from_numpy(one), dim=1) for one in (found, teacher))
        told = {
            "val_agreement": float((found.argmax(axis=1) == teacher.argmax(axis=1)).mean()),
            "val_divergence": float(functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)),
        }
        if known.any():
            told["val_accuracy"] = float((found.argmax(axis=1) == labels)[known].mean())
        return told

    return check
