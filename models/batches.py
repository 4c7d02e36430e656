"""Training batches from memory-mapped uint8 pairs; batch t is a pure function of (seed, t).

Nothing is decoded and no random state is carried along, so training can stop anywhere and go on with the
very batches it would have seen.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.camera import Camera

Array = npt.NDArray[np.uint8]

ORDER, PLACES, OLDER, STRENGTHS, SEEN, EXTRA = range(6)  # streams of random numbers, one for each thing that is drawn
AT_FULL = 0.25  # strengths that are exactly 1, over those below


def open_pairs(folder: Path, split: str) -> tuple[Array, Array]:
    """Memory-mapped (inputs, targets) of a split, each (N,S,S,3) uint8."""
    inputs = np.load(folder / f"{split}.inputs.npy", mmap_mode="r", allow_pickle=False)
    targets = np.load(folder / f"{split}.targets.npy", mmap_mode="r", allow_pickle=False)
    return inputs, targets


def to_tensor(images: Array) -> Tensor:
    """(B,H,W,3) uint8 -> (B,3,H,W) float32 in [0,1], already in channels_last memory order."""
    return to_floats(torch.from_numpy(np.require(images, requirements=["C", "W"])))


def to_floats(images: Tensor) -> Tensor:
    """(B,H,W,3) uint8 on any device -> (B,3,H,W) float32 in [0,1] there, in channels_last memory order."""
    return images.permute(0, 3, 1, 2).float().div_(255)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What a student is given, and what it is taught by, all of one length B."""

    inputs: Tensor
    targets: Tensor
    controls: tuple[Tensor, ...] = ()  # what the student takes besides: strengths, a mask of words
    about: Mapping[str, Tensor] = field(default_factory=dict)  # what terms may ask for by name: labels, rows


class Source(Protocol):
    """Where the training loop has its batches from."""

    batch_size: int

    def batch(self, step: int, share: slice = slice(None)) -> tuple[Tensor, ...]:
        """The tensors of a step on the CPU, a pure function of the step; `share` picks the rows of one process."""
        ...

    def raw(self, step: int, share: slice = slice(None)) -> tuple[Tensor, ...]:
        """The same as bytes, as they cross to a GPU."""
        ...

    def made_of(self, raw: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The batch that `raw` is the bytes of, on the device these are on."""
        ...

    def parts(self, batch: tuple[Tensor, ...]) -> Batch:
        """Which tensor is what."""
        ...


@dataclass(frozen=True, slots=True)
class Replay:
    """Older pairs (N,S,S,3), of which a share of every batch is drawn (Rebuffi et al. 2017 keep some for it)."""

    inputs: Array
    targets: Array
    share: float

    def before(self, step: int, batch_size: int) -> int:
        """How many of them the batches before `step` held; where a batch's share is no whole number, two take turns."""
        return math.floor(step * batch_size * self.share + 1e-9)  # 3 * 10 * 0.1 is a hair below 3 in floats


class Batches:
    """Random crops of (input, target) pairs, mirrored half of the time; batch(t) depends on (seed, t) only.

    Inputs are seen through `camera` where there is one; targets never are. Of every batch a share is of `replay`.
    `often` (N,) says how often, at least once, an epoch shows each pair; None is once each.
    """

    def __init__(
        self,
        inputs: Array,
        targets: Array,
        *,
        batch_size: int,
        crop: int,
        seed: int,
        camera: Camera | None = None,
        replay: Replay | None = None,
        often: npt.NDArray[np.float64] | None = None,
    ) -> None:
        self.inputs, self.targets, self.camera, self.replay = inputs, targets, camera, replay
        self.batch_size, self.crop, self.seed = batch_size, crop, seed
        self.often = often
        self.epoch = len(inputs) if often is None else round(float(often.sum()))  # pairs shown

    def rows(self, step: int) -> npt.NDArray[np.int64]:
        """Which pairs batch `step` holds: epochs are shuffled one by one, no pair waits for another's second turn."""
        first, last = (at * self.batch_size - self._replayed(at) for at in (step, step + 1))
        places = np.arange(first, last)
        if self.often is None:
            return self._order(ORDER, len(self.inputs), places)
        order = self._order(ORDER, self.epoch, places)
        shown = {epoch: self._shown(epoch) for epoch in set(places // self.epoch)}
        return np.array([shown[place // self.epoch][at] for place, at in zip(places, order, strict=True)], np.int64)

    def _shown(self, epoch: int) -> npt.NDArray[np.int64]:
        """The pairs of an epoch: each as often as is whole of `often`, and some once more by what is left of it."""
        assert self.often is not None
        left = np.cumsum(self.often % 1)
        # Systematic sampling: one draw, and every pair's chance of one more is what its number has after the point.
        steps = np.floor(left + np.random.default_rng((self.seed, EXTRA, epoch)).random())
        more = np.diff(steps, prepend=0.0)
        rows = np.repeat(np.arange(len(self.often)), (np.floor(self.often) + more).astype(np.int64))
        return np.resize(rows, self.epoch)  # the sum may be off by one

    def replayed_rows(self, step: int) -> npt.NDArray[np.int64]:
        """Which of the older pairs it holds besides, in epochs of their own."""
        count = len(self.replay.inputs) if self.replay else 1
        return self._order(OLDER, count, np.arange(self._replayed(step), self._replayed(step + 1)))

    def _replayed(self, step: int) -> int:
        return self.replay.before(step, self.batch_size) if self.replay else 0

    def _order(self, stream: int, count: int, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        orders = {
            epoch: np.random.default_rng((self.seed, stream, epoch)).permutation(count)
            for epoch in set(places // count)
        }
        return np.array([orders[place // count][place % count] for place in places], np.int64)

    def batch(self, step: int, share: slice = slice(None)) -> tuple[Tensor, ...]:
        """Two (B,3,crop,crop) tensors in [0,1]; `share` picks the rows of one process."""
        return self.made_of(self.raw(step, share))

    def made_of(self, raw: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The batch that `raw` is the bytes of, on the device these are on."""
        inputs, targets = raw
        return to_floats(inputs), to_floats(targets)

    def parts(self, batch: tuple[Tensor, ...]) -> Batch:
        """Inputs and targets, and the strength if there is one."""
        inputs, targets, *controls = batch
        return Batch(inputs=inputs, targets=targets, controls=tuple(controls))

    def raw(self, step: int, share: slice = slice(None)) -> tuple[Tensor, ...]:
        """Two (B,crop,crop,3) tensors of bytes, which cross to a GPU in a quarter of the time that floats take."""
        rng = np.random.default_rng((self.seed, PLACES, step))
        room = self.inputs.shape[1] - self.crop + 1
        corners = rng.integers(0, room, size=(self.batch_size, 2))
        mirror = rng.random(self.batch_size) < 0.5
        rows, older = self.rows(step), self.replayed_rows(step)
        inputs, targets = ([images[row] for row in rows] for images in (self.inputs, self.targets))
        if self.replay:
            inputs += [self.replay.inputs[row] for row in older]
            targets += [self.replay.targets[row] for row in older]
        places = list(zip(corners, mirror, strict=True))[share]
        seen, wanted = self._cut(inputs[share], places), self._cut(targets[share], places)
        if self.camera:
            for place, crop in zip(range(self.batch_size)[share], seen, strict=True):
                crop[:] = self.camera(crop, np.random.default_rng((self.seed, SEEN, step, place)))
        return torch.from_numpy(seen), torch.from_numpy(wanted)

    def _cut(self, images: list[Array], places: list[tuple[npt.NDArray[np.int64], bool]]) -> Array:
        crops = np.empty((len(places), self.crop, self.crop, 3), np.uint8)
        for target, image, ((top, left), flip) in zip(crops, images, places, strict=True):
            piece = image[top : top + self.crop, left : left + self.crop]
            target[:] = piece[:, ::-1] if flip else piece
        return crops


class Graded(Batches):
    """Batches with a third tensor, (B,) in [0,1]: strengths of the effect, and targets that have just these.

    A picture at strength s is the input and s of what the teacher changed, so that no teacher is asked again.
    """

    def strengths(self, step: int) -> npt.NDArray[np.float32]:
        """(batch_size,): evenly over [0,1), some exactly 1; at 0, which is the input, there is nothing to learn."""
        drawn = np.random.default_rng((self.seed, STRENGTHS, step)).random(self.batch_size, np.float32)
        return np.minimum((1 + AT_FULL) * drawn, 1)

    def raw(self, step: int, share: slice = slice(None)) -> tuple[Tensor, ...]:
        """As of the class it is of, and the strengths."""
        return *super().raw(step, share), torch.tensor(self.strengths(step)[share])

    def made_of(self, raw: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """As of the class it is of, and the strengths."""
        *pictures, strengths = raw
        inputs, targets = super().made_of(tuple(pictures))
        return inputs, torch.lerp(inputs, targets, strengths[:, None, None, None]), strengths
