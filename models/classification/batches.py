"""Training batches of classifiers: examples with the teacher's answers to the very view that is shown.

Batch t is a pure function of (seed, t), so training can stop anywhere and go on with the very batches it would have
seen (as in models/batches.py).
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.batches import Batch, to_floats
from models.classification.views import Viewer

Rows = npt.NDArray[np.int64]
ORDER, VIEW = range(2)  # streams of random numbers


class LabelBatches:
    """Rows of a training set in shuffled epochs; which view of each is drawn anew every time.

    `rows` (M,) are the examples that are taught; `labels` (N,), `logits` (N,V,C) and `pooled` (N,V,D) are of all.
    """

    def __init__(
        self,
        *,
        rows: Rows,
        labels: Rows,
        logits: npt.NDArray[Any],
        pooled: npt.NDArray[Any] | None,
        batch_size: int,
        seed: int,
    ) -> None:
        self.taught, self.labels, self.logits, self.pooled = rows, labels, logits, pooled
        self.batch_size, self.seed = batch_size, seed

    def rows(self, step: int) -> tuple[Rows, Rows]:
        """Which examples batch `step` holds, and which view of each."""
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        count = len(self.taught)
        orders = {
            epoch: np.random.default_rng((self.seed, ORDER, epoch)).permutation(count) for epoch in set(places // count)
        }
        rows = self.taught[[orders[place // count][place % count] for place in places]]
        views = np.random.default_rng((self.seed, VIEW, step)).integers(0, self.logits.shape[1], self.batch_size)
        return rows, views

    def shown(self, rows: Rows, views: Rows) -> tuple[Tensor, ...]:
        """The inputs of a batch, as bytes where they are pictures."""
        raise NotImplementedError

    def raw(self, step: int, share: slice = slice(None)) -> tuple[Tensor, ...]:
        """Inputs, logits, labels, rows, and pooled features where they are kept."""
        rows, views = (every[share] for every in self.rows(step))
        answers = [self.logits] + ([self.pooled] if self.pooled is not None else [])
        logits, *pooled = (torch.from_numpy(np.asarray(one[rows, views], np.float32)) for one in answers)
        labels = torch.from_numpy(self.labels[rows])
        return *self.shown(rows, views), logits, labels, torch.from_numpy(rows), *pooled

    def batch(self, step: int, share: slice = slice(None)) -> tuple[Tensor, ...]:
        """The same with pictures in [0,1]."""
        return self.made_of(self.raw(step, share))

    def made_of(self, raw: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The batch that `raw` is the bytes of."""
        return raw

    def parts(self, batch: tuple[Tensor, ...]) -> Batch:
        """Which tensor is what."""
        raise NotImplementedError

    def about(self, rest: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """What terms may ask for, of the tensors behind the logits."""
        return dict(zip(("labels", "rows", "pooled"), rest, strict=False))


class PictureBatches(LabelBatches):
    """Of pictures."""

    def __init__(self, shown: Viewer, **settings: Any) -> None:
        super().__init__(**settings)
        self.viewer = shown

    def shown(self, rows: Rows, views: Rows) -> tuple[Tensor, ...]:
        """(B,S,S,3) bytes."""
        return (torch.from_numpy(np.ascontiguousarray(self.viewer(rows, views))),)

    def made_of(self, raw: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Pictures (B,3,S,S) in [0,1]; the rest as it is."""
        pictures, *rest = raw
        return to_floats(pictures), *rest

    def parts(self, batch: tuple[Tensor, ...]) -> Batch:
        """Pictures, logits, and what terms may ask for."""
        pictures, logits, *rest = batch
        return Batch(inputs=pictures, targets=logits, about=self.about(tuple(rest)))


class TextBatches(LabelBatches):
    """Of texts as tokens (N,L), with their masks (N,L)."""

    def __init__(self, ids: Rows, mask: Rows, **settings: Any) -> None:
        super().__init__(**settings)
        self.ids, self.mask = ids, mask

    def shown(self, rows: Rows, views: Rows) -> tuple[Tensor, ...]:
        """Tokens and masks, cut to the longest of them."""
        longest = max(1, int(self.mask[rows].sum(axis=1).max(initial=1)))
        return torch.from_numpy(self.ids[rows, :longest]), torch.from_numpy(self.mask[rows, :longest])

    def parts(self, batch: tuple[Tensor, ...]) -> Batch:
        """Tokens, the mask as what the student takes besides, logits, and what terms may ask for."""
        ids, mask, logits, *rest = batch
        return Batch(inputs=ids, targets=logits, controls=(mask,), about=self.about(tuple(rest)))
