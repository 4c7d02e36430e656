"""Is one photograph cut out of another, or the other's twin? A perceptual hash cannot tell once a tenth is cut away.

Of like pictures (models/embedding.py, tasks/neighbours.py) the fit of one within the other is searched for, scale by
scale and mirrored, by normalised cross-correlation (Lewis 1995) of small grey pictures. Pure figures; used by
tasks/splits.py. How often it errs: docs/decisions/0020-coverage.md.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.embedding import SIDE, embed
from tasks.features import centre_square
from tasks.neighbours import Neighbours
from tasks.pictures import Pixels

Vectors = npt.NDArray[np.float32]

LONGER = 48  # pixels of the longer side of the picture that is searched in
SCALES = tuple(0.96**power for power in range(13))  # of the cut-out over the whole: down to 0.61
LEAST_CONTRAST = 2.0  # levels of 255; what is plainer fits anywhere
BATCH = 64


def vectors_of(photos: Sequence[Pixels]) -> Vectors:
    """What likeness is looked for by: vectors (N,C) of the photos' centre squares."""
    squares = [centre_square(photo, SIDE) for photo in photos]
    return embed(np.stack(squares[at : at + BATCH]) for at in range(0, len(squares), BATCH))


def likest(vectors: Vectors, mirrored: Vectors, others: Vectors, count: int) -> list[list[int]]:
    """For each of (N,C) the rows of `others` (M,C) to compare it with: the `count` nearest of it and of its mirror."""
    if len(others) <= max(2 * count, 2):
        return [list(range(len(others)))] * len(vectors)
    index = Neighbours(others)
    rows = np.hstack([index.nearest(some, count)[1] for some in (vectors, mirrored)])
    return [sorted(set(row)) for row in rows.tolist()]


def fit(first: Pixels, second: Pixels) -> float:
    """How well the one fits as a cut-out of the other, either way round: 1 is pixel for pixel, about 0 by chance."""
    return max(_fit_within(first, second), _fit_within(second, first))


def _fit_within(whole: Pixels, cut: Pixels) -> float:
    from skimage.feature import match_template

    place, best = _grey(whole, LONGER), -1.0
    for scale in SCALES:
        piece = _grey(cut, LONGER * scale)[: place.shape[0], : place.shape[1]]
        if piece.std() < LEAST_CONTRAST:
            continue
        for side in (piece, piece[:, ::-1]):
            best = max(best, float(match_template(place, side).max()))  # type: ignore[no-untyped-call]
    return best


def _grey(pixels: Pixels, longer: float) -> npt.NDArray[np.float32]:
    height, width = pixels.shape[:2]
    scale = longer / max(height, width)
    size = (max(4, round(width * scale)), max(4, round(height * scale)))
    return np.asarray(Image.fromarray(pixels).convert("L").resize(size, Image.Resampling.BOX), np.float32)
