"""What a classifier is taught and measured on: its curated pairs opened, and the networks on both sides of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.classification.views import Viewer
from models.errors import UserError
from tasks.classification.examples import Examples, ExampleSet, open_examples
from tasks.classification.generate import viewer
from tasks.classification.params import Classifier, ImageClassifier
from tasks.files import check_sha256, read_json
from tasks.records import SplitName

if TYPE_CHECKING:
    from torch import nn

    from models.classification.batches import LabelBatches

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelPairs:
    """The curated pairs of one classifier."""

    folder: Path
    record: dict[str, Any]  # pairs.json
    examples: ExampleSet

    def rows(self, split: SplitName) -> Rows:
        """Which examples are kept, (M,)."""
        return np.asarray(np.load(self.folder / f"{split}.rows.npy", allow_pickle=False), np.int64)

    def logits(self, split: SplitName) -> npt.NDArray[np.float32]:
        """The teacher's, (N,V,C), of all examples, memory-mapped."""
        return np.load(self.folder / f"{split}.logits.npy", mmap_mode="r", allow_pickle=False)

    def pooled(self, split: SplitName) -> npt.NDArray[Any] | None:
        """What the teacher holds before its last layer, (N,V,D), where it was kept."""
        path = self.folder / f"{split}.pooled.npy"
        return np.load(path, mmap_mode="r", allow_pickle=False) if path.exists() else None

    def split(self, split: SplitName) -> Examples:
        """The examples themselves."""
        return self.examples.splits[split]


def open_pairs(folder: Path, dataset: str) -> LabelPairs:
    """The pairs in a student's folder, after every file was found to be what pairs.json says, of today's dataset."""
    record = read_json(folder / "pairs" / "pairs.json")
    for file, digest in record["files"].items():
        check_sha256(folder / "pairs" / file, digest, "pairs (run dvc repro curate)")
    examples = open_examples(dataset)
    if record["dataset_digest"] != examples.digest:
        raise UserError(f"{folder}/pairs are of another dataset than {dataset} is by now: run dvc repro")
    return LabelPairs(folder=folder / "pairs", record=record, examples=examples)


def make_batches(pairs: LabelPairs, block: Classifier, tokens: "Any | None" = None) -> "LabelBatches":
    """The training batches; `tokens` turns texts into (N,L) ids and masks."""
    from models.classification.batches import PictureBatches, TextBatches

    taught = pairs.split("train")
    settings: dict[str, Any] = {
        "rows": pairs.rows("train"),
        "labels": taught.labels,
        "logits": pairs.logits("train"),
        "pooled": pairs.pooled("train"),
        "batch_size": block.train.batch_size,
        "seed": block.train.seed,
    }
    if isinstance(block, ImageClassifier):
        shown = viewer(taught, block, training=True)
        assert isinstance(shown, Viewer)
        return PictureBatches(shown, **settings)
    assert tokens is not None
    ids, mask = tokens(taught.inputs)
    return TextBatches(ids, mask, **settings)


def build(block: Classifier, pairs: LabelPairs) -> "nn.Module":
    """The untrained student, by torch's global random numbers."""
    from models.classification.networks import build as build_network

    return build_network(block.architecture.model_dump(), len(pairs.examples.classes))
