"""Augmented views of labelled pictures: a pure function of seed, row and view, so that a teacher is asked only once.

A view is the picture padded by its mirror image, cut back to its size at a random place, and mirrored half of the time
where that is allowed (He et al. 2016). View 0 of held-out pictures is the picture itself.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Pictures = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """What is done to each of `count` pictures in each of `views` ways."""

    count: int
    views: int
    pad: int  # pixels
    flip: bool
    seed: int

    def places(self) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.bool_]]:
        """Where each view is cut, (count,views,2) in [0,2*pad], and whether it is mirrored, (count,views).

        A row's views do not hang on how many rows or views there are after it.
        """
        corners = np.empty((self.count, self.views, 2), np.int16)
        mirrored = np.zeros((self.count, self.views), bool)
        for view in range(self.views):
            random = np.random.default_rng((self.seed, view))
            corners[:, view] = random.integers(0, 2 * self.pad + 1, (self.count, 2))
            mirrored[:, view] = random.random(self.count) < (0.5 if self.flip else 0.0)
        return corners, mirrored


class Viewer:
    """Pictures (N,S,S,3) uint8, perhaps memory-mapped, as their views show them."""

    def __init__(self, pictures: Pictures, views: Views | None) -> None:
        self.pictures, self.views = pictures, views
        self._corners, self._mirrored = views.places() if views else (None, None)

    def __call__(self, rows: Rows, views: Rows) -> Pictures:
        """(B,) and (B,) -> (B,S,S,3): view `views[i]` of picture `rows[i]`; the pictures themselves without views."""
        chosen = np.stack([self.pictures[row] for row in rows]) if len(rows) else self.pictures[:0]
        if self.views is None or self._corners is None or self._mirrored is None:
            return chosen
        size, pad = chosen.shape[1], self.views.pad
        shown = np.empty_like(chosen)
        padded = np.pad(chosen, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect") if pad else chosen
        for place, (row, view) in enumerate(zip(rows, views, strict=True)):
            top, left = self._corners[row, view]
            piece = padded[place, top : top + size, left : left + size]
            shown[place] = piece[:, ::-1] if self._mirrored[row, view] else piece
        return shown
