"""What the commands share that train a first teacher from labels (train_picture_teacher.py, train_text_teacher.py)."""

from typing import TYPE_CHECKING, Any

import numpy as np

from models.errors import UserError
from tasks.classification.examples import ExampleSet, open_examples
from tasks.classification.taken import Taken
from tasks.records import SPLITS

if TYPE_CHECKING:
    from torch import Tensor, nn


def open_labelled(dataset: str, kind: str) -> ExampleSet:
    """A dataset of "images" or "texts"; UserError where it is of the other, or has a split without any label."""
    examples = open_examples(dataset)
    if examples.kind != kind:
        raise UserError(f"dataset {dataset} is of {examples.kind}: this teacher learns from {kind}")
    if not all((examples.splits[split].labels >= 0).any() for split in SPLITS):
        raise UserError(f"dataset {dataset}: without labels on each side nobody can be taught by them")
    return examples


def accuracies(network: "nn.Module", taken: Taken, examples: ExampleSet) -> dict[str, float]:
    """The share of each split's labelled examples, as they are, that it names rightly."""
    import torch

    from models.classification.validation import logits_of

    found: dict[str, float] = {}
    for split in SPLITS:
        held = examples.splits[split]
        rows = np.flatnonzero(held.labels >= 0)

        def given(some: slice, inputs: Any = held.inputs, rows: Any = rows) -> "tuple[Tensor, ...]":
            return taken.batch([inputs[row] for row in rows[some]])

        logits = logits_of(network, given, len(rows), torch.device("cpu"))
        found[split] = round(float((logits.argmax(axis=1) == held.labels[rows]).mean()), 4)
    return found
