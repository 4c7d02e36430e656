"""What a classifier is taught and measured on: its curated pairs opened, and the networks on both sides of them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.classification.views import Viewer
from models.errors import UserError
from tasks.classification.examples import Examples, ExampleSet, open_examples
from tasks.classification.generate import viewer
from tasks.classification.params import TEACHER, Classifier, TextClassifier
from tasks.classification.taken import Pictures, Taken, Texts, taught_texts
from tasks.files import check_sha256, read_json
from tasks.records import SPLITS, SplitName

if TYPE_CHECKING:
    from torch import nn

    from models.classification.batches import LabelBatches
    from models.classification.teachers import LabelTeacher

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
        logits: npt.NDArray[np.float32] = np.load(
            self.folder / f"{split}.logits.npy", mmap_mode="r", allow_pickle=False
        )
        return logits

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


def make_batches(pairs: LabelPairs, block: Classifier, taken: Taken, examples: int | None = None) -> "LabelBatches":
    """The training batches, of pictures in their views or of texts by their tokens.

    `examples` is how many are taught at most, the same ones whatever the student's seed.
    """
    from models.classification.batches import PictureBatches, TextBatches

    taught, rows = pairs.split("train"), pairs.rows("train")
    if examples is not None:  # drawn, as a dataset may be in the order of its classes
        rows = np.sort(np.random.default_rng(0).permutation(rows)[:examples])
    settings: dict[str, Any] = {
        "rows": rows,
        "labels": taught.labels,
        "logits": pairs.logits("train"),
        "pooled": pairs.pooled("train"),
        "batch_size": block.train.batch_size,
        "seed": block.train.seed,
    }
    if isinstance(taken, Texts):
        return TextBatches(*taken.tokens(taught.inputs), **settings)
    shown = viewer(taught, block, training=True)
    assert isinstance(shown, Viewer)
    return PictureBatches(shown, **settings)


def build(block: Classifier, pairs: LabelPairs, taken: Taken) -> "nn.Module":
    """An untrained student, by torch's global random numbers."""
    from models.classification.networks import build as build_network

    known = {"vocabulary": taken.tokens.vocabulary, "pad": taken.tokens.pad} if isinstance(taken, Texts) else {}
    return build_network(block.architecture.model_dump(), len(pairs.examples.classes), **known)


def first(
    block: Classifier, pairs: LabelPairs, taken: Taken, teacher: "Callable[[], LabelTeacher]"
) -> "tuple[nn.Module, dict[str, int]]":
    """The student as training begins, with the ranks of those layers that are two (models/compression.py).

    It has the weights of `init`, or none; those of its teacher are cut as the block says. Its tokeniser fits it.
    """
    from models.classification.networks import cut, load_network, load_weights
    from models.classification.transformer import check_tokens

    ranks: dict[str, int] = {}
    if block.init in ("", TEACHER):
        student = build(block, pairs, taken)
        if block.init == TEACHER:
            network = teacher().network
            if network is None:
                raise UserError("init: this teacher shows no weights to begin with: begin from scratch")
            load_weights(student, network.state_dict(), "init: teacher")
        if block.cut.cuts:
            ranks = cut(student, pairs.examples.size or 0, block.cut.prune, block.cut.low_rank)
    else:
        student = load_network(Path(block.init))
        ranks = read_json(Path(block.init) / "student.json").get("ranks", {})
    if isinstance(taken, Texts):
        check_tokens(student, taken.tokens, "architecture")  # type: ignore[arg-type]
    return student, ranks


def find_taken(block: Classifier, pairs: LabelPairs, teacher: Callable[[], Any]) -> Taken:
    """What the student is to take; texts of all splits fit in, or are cut, or refused in one line."""
    if not isinstance(block, TextClassifier):
        return Pictures()
    taken = taught_texts(block, teacher, pairs.split("train").inputs)
    taken.tokens.check_lengths([text for split in SPLITS for text in pairs.split(split).inputs], "architecture")
    return taken
