"""What a student is taught on: its curated pairs, and older ones that it is not to forget (`train.replay`).

Rehearsal (Robins 1995; Rebuffi et al. 2017): a share of every batch is drawn from the older pairs. Their targets may be
the old student's own pictures (Li & Hoiem 2017), made by a teacher of kind `student`. Used by the stage train.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.errors import UserError
from tasks.files import check_sha256, read_json
from tasks.panel_inputs import check_not_taught, read_panel
from tasks.records import Verdict, read_records
from tasks.student_params import Student

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import nn

    from models.training import Line

SEED = 0  # of the clusters that batches are balanced by
BINS = 4  # of a property that they are balanced by
SEEN = 16  # pictures measured at a time


def check_pairs(folder: Path, block: Student) -> dict[str, Any]:
    """pairs.json, after every array it lists was found to have the sha256 it says."""
    pairs: dict[str, Any] = read_json(folder / "pairs.json")
    for file, digest in pairs["files"].items():
        check_sha256(folder / file, digest, "pairs (run dvc repro curate)")
    if pairs["size"] != block.pairs.size:
        raise UserError(f"the pairs are {pairs['size']} pixels wide, pairs.size says {block.pairs.size}: run dvc repro")
    return pairs


def replays(block: Student) -> Path | None:
    """The folder of the older pairs, None where the block names none; UserError where nothing is to be shared."""
    replay = block.train.replay
    if not read_json(Path(replay.pairs) / "pairs.json").get("none"):
        return Path(replay.pairs)
    if replay.share:
        raise UserError(
            f"train.replay: {replay.pairs} holds no pairs: name a folder of curated ones, or set share to 0"
        )
    return None


def check_replay(older: Path, own: Path) -> None:
    """Refuse older pairs whose training part holds an input of the own pairs' test side, or of the frozen panel.

    They come from an earlier run, whose split may have been another.
    """
    taught = {one.input for one in read_records(older / "kept.jsonl", Verdict) if one.split == "train"}
    check_not_taught(read_panel(), dict.fromkeys(taught, "train"), f"train.replay: {older}", "replay other pairs")
    held_out = {one.input for one in read_records(own / "kept.jsonl", Verdict) if one.split != "train" and one.input}
    both = sorted(taught & held_out)
    if both:
        raise UserError(
            f"train.replay: {older} trains on {len(both)} inputs that {own} holds out, such as {both[0][:12]}: replay "
            "other pairs, or make them again of today's data/inputs"
        )


def batching(block: Student) -> dict[str, Any]:
    """How the student's batches are drawn, as Batches takes it."""
    from models.batches import Replay, open_pairs
    from models.camera import Camera

    asked = block.train
    camera = Camera(**asked.camera.model_dump()) if asked.camera.degrades else None
    older = Replay(*open_pairs(Path(asked.replay.pairs), "train"), asked.replay.share) if asked.replay.share else None
    return {**asked.model_dump(include={"batch_size", "crop", "seed"}), "camera": camera, "replay": older}


def often(folder: Path, block: Student) -> "npt.NDArray[np.float64] | None":
    """How often an epoch shows each training pair (N,), so that slices are even; None where `train.balance` is none."""
    from tasks.clusters import even

    balance = block.train.balance
    if balance.by == "none":
        return None
    labels = slice_labels(folder, read_json(folder / "pairs.json")["digest"], balance.by)
    sizes = ", ".join(map(str, np.bincount(labels)))
    print(
        f"train: slices by {balance.by} of {sizes} pairs are drawn evenly, a pair up to {balance.cap:g} times an epoch"
    )
    return even(labels, balance.cap)


@cache
def slice_labels(folder: Path, digest: str, by: str) -> "npt.NDArray[np.int64]":
    """Which slice each training pair (N,) is in; `digest` is that of the pairs, of which this is asked once a phase."""
    from models.batches import open_pairs
    from tasks.clusters import Clusters, embedded, one_thread

    inputs, _ = open_pairs(folder, "train")
    with one_thread():  # the helper processes have to come to the same
        return Clusters(embedded(inputs), SEED).labels if by == "cluster" else _bins(inputs, by)


def _bins(inputs: "npt.NDArray[np.uint8]", by: str) -> "npt.NDArray[np.int64]":
    """(N,) which of BINS bins of equal width, between the extremes, each picture's figure is in."""
    from models import metrics

    values = metrics.join([metrics.scene(metrics.to_tensor(x)) for (x,) in metrics.batches([inputs], SEEN)])[by]
    if by == "detail":
        values = np.log(np.maximum(values, 1e-6))  # it spans decades
    inner = np.linspace(values.min(), values.max(), BINS + 1)[1:-1]
    return np.unique(np.digitize(values, inner), return_inverse=True)[1].astype(np.int64)


def left_of_replay(student: "nn.Module", older: Path) -> dict[str, float]:
    """How much of the older pairs' effect a student explains, on their validation split, as a line of the curve."""
    import torch

    from models.batches import open_pairs
    from models.validation import REPLAYED, validate

    found = validate(student, *open_pairs(older, "val"), torch.device("cpu"))
    return {REPLAYED: found["val_explained_effect"]}


def forgetting(curve: "list[Line]", replay: Mapping[str, Any], block: Student) -> dict[str, Any]:
    """What was spent on not forgetting the older pairs, and what was forgotten: explained effect before less after.

    `replay` is their pairs.json.
    """
    from models.validation import REPLAYED

    share, before, after = block.train.replay.share, curve[0][REPLAYED], curve[-1][REPLAYED]
    print(f"train: of the replayed pairs' effect {before:.3f} was explained before, {after:.3f} is now")
    told = {"pairs": replay["digest"], "share": share, "count": replay["counts"]["train"] if share else 0}
    return told | {"before": before, "after": after, "forgetting": before - after}
