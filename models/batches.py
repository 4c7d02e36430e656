"""Training batches from memory-mapped uint8 pairs; batch t is a pure function of (seed, t).

Nothing is decoded and no random state is carried along, so training can stop anywhere and go on with the
very batches it would have seen.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.camera import Camera

Array = npt.NDArray[np.uint8]

AT_FULL = 0.25  # strengths that are exactly 1, over those below


def open_pairs(folder: Path, split: str) -> tuple[Array, Array]:
    """Memory-mapped (inputs, targets) of a split, each (N,S,S,3) uint8."""
    inputs = np.load(folder / f"{split}.inputs.npy", mmap_mode="r", allow_pickle=False)
    targets = np.load(folder / f"{split}.targets.npy", mmap_mode="r", allow_pickle=False)
    return inputs, targets


def to_tensor(images: Array) -> Tensor:
    """(B,H,W,3) uint8 -> (B,3,H,W) float32 in [0,1], already in channels_last memory order."""
    return torch.from_numpy(np.require(images, requirements=["C", "W"])).permute(0, 3, 1, 2).float().div_(255)


class Batches:
    """Random crops of (input, target) pairs, mirrored half of the time; batch(t) depends on (seed, t) only.

    Inputs are seen through `camera` where there is one; targets never are.
    """

    def __init__(
        self, inputs: Array, targets: Array, *, batch_size: int, crop: int, seed: int, camera: Camera | None = None
    ) -> None:
        self.inputs, self.targets = inputs, targets
        self.batch_size, self.crop, self.seed, self.camera = batch_size, crop, seed, camera

    def rows(self, step: int) -> npt.NDArray[np.int64]:
        """Which pairs batch `step` holds: epochs are shuffled one by one, no pair waits for another's second turn."""
        count = len(self.inputs)
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        orders = {
            epoch: np.random.default_rng((self.seed, 0, epoch)).permutation(count) for epoch in set(places // count)
        }
        return np.array([orders[place // count][place % count] for place in places])

    def batch(self, step: int, share: slice = slice(None)) -> tuple[Tensor, ...]:
        """Two (B,3,crop,crop) tensors in [0,1]; `share` picks the rows of one process."""
        rng = np.random.default_rng((self.seed, 1, step))
        room = self.inputs.shape[1] - self.crop + 1
        corners = rng.integers(0, room, size=(self.batch_size, 2))
        mirror = rng.random(self.batch_size) < 0.5
        places = list(zip(self.rows(step), corners, mirror, strict=True))[share]
        inputs, targets = self._cut(self.inputs, places), self._cut(self.targets, places)
        if self.camera:
            for place, crop in zip(range(self.batch_size)[share], inputs, strict=True):
                crop[:] = self.camera(crop, np.random.default_rng((self.seed, 2, step, place)))
        return to_tensor(inputs), to_tensor(targets)

    def _cut(self, images: Array, places: list[tuple[int, npt.NDArray[np.int64], bool]]) -> Array:
        crops = np.empty((len(places), self.crop, self.crop, 3), np.uint8)
        for target, (row, (top, left), flip) in zip(crops, places, strict=True):
            piece = images[row, top : top + self.crop, left : left + self.crop]
            target[:] = piece[:, ::-1] if flip else piece
        return crops


class Graded(Batches):
    """Batches with a third tensor, (B,) in [0,1]: strengths of the effect, and targets that have just these.

    A picture at strength s is the input and s of what the teacher changed, so that no teacher is asked again.
    """

    def strengths(self, step: int) -> npt.NDArray[np.float32]:
        """(batch_size,): evenly over [0,1), some exactly 1; at 0, which is the input, there is nothing to learn."""
        drawn = np.random.default_rng((self.seed, 2, step)).random(self.batch_size, np.float32)
        return np.minimum((1 + AT_FULL) * drawn, 1)

    def batch(self, step: int, share: slice = slice(None)) -> tuple[Tensor, ...]:
        """As of the class it is of, and the strengths."""
        inputs, targets = super().batch(step, share)
        strengths = torch.tensor(self.strengths(step)[share])
        return inputs, torch.lerp(inputs, targets, strengths[:, None, None, None]), strengths
