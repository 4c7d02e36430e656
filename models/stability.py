"""How steady a student is, asked of it alone: no teacher and no video are needed.

- flicker: a hand-held camera moves by a few pixels from frame to frame, and a picture that follows the motion
  exactly does not flicker. Stills are shifted by whole pixels, which loses nothing, so whatever differs once the
  output is shifted back is the student's own doing: its strides, its borders, its quantisation.
- structure kept: whether edges of the input run the same way in the output. It survives changes of tone, contrast
  and colour, and compares students of different teachers.

Both take the student as a function over batches, as an exported file is run.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from models.losses import LUMA
from models.spread import spread

Pictures = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Model = Callable[[Pictures], Floats]  # (B,S,S,3) uint8 -> (B,S,S,3) in [0,1]

# (down, right) of each frame in pixels: a drift and a jerk back, odd and even steps, as no stride divides them all.
PATH = ((0, 1), (1, 2), (2, 4), (3, 5), (1, 3), (-1, 0), (-3, -2), (-5, -4))
REACH = max(abs(step) for offset in PATH for step in offset)
MARGIN_SHARE = 8  # an eighth of the side is left out all around: there a moving picture shows other things


def flicker(model: Model, pictures: Pictures, count: int = 8) -> float:
    """Root mean square change of the output under camera motion, beyond the motion, in levels of 255.

    Measured on at most `count` of the (N,S,S,3) pictures, evenly over their order. 0 is a student that follows
    every shift exactly, as identity and any colour map do.
    """
    squares = [_follows(model, np.asarray(pictures[row])) for row in spread(len(pictures), count)]
    return 255 * float(np.sqrt(np.mean(squares)))


def _follows(model: Model, picture: Pictures) -> float:
    """Mean squared difference of the shifted-back outputs of one (S,S,3) picture to the output at rest."""
    padded = np.pad(picture, ((REACH, REACH), (REACH, REACH), (0, 0)), mode="reflect")
    rest = model(picture[None])[0]
    margin = max(REACH, len(picture) // MARGIN_SHARE)
    squares = []
    for down, right in PATH:
        moved = model(window(padded, REACH + down, REACH + right, len(picture))[None])[0]
        inner = len(picture) - 2 * margin
        back = window(moved, margin - down, margin - right, inner)
        squares.append(np.square(back - window(rest, margin, margin, inner), dtype=np.float64).mean())
    return float(np.mean(squares))


def window(picture: npt.NDArray[Any], top: int, left: int, side: int) -> npt.NDArray[Any]:
    """The (side,side,3) part of a picture that begins at (top, left)."""
    return picture[top : top + side, left : left + side]


def structure_kept(model: Model, pictures: Pictures) -> float:
    """Agreement of the edges' directions of (N,S,S,3) inputs and outputs, weighed by the strength of both.

    sum(m_in m_out cos 2(a_in - a_out)) / sum(m_in m_out) over all pixels, with m the magnitude and a the angle of
    luma's gradient: 1 for the same edges, -1 for edges across them, about 0 for unrelated ones, 0 for none at all.
    """
    agreement = weight = 0.0
    for row in range(len(pictures)):
        picture = np.asarray(pictures[row : row + 1])
        down, right = np.gradient(to_luma(picture[0] / np.float32(255)))
        down_out, right_out = np.gradient(to_luma(model(picture)[0]))
        both = np.hypot(down, right) * np.hypot(down_out, right_out)
        along = down * down_out + right * right_out
        # m cos 2d = 2 (m cos d)^2 / m - m, and along = m cos d.
        doubled = np.divide(2 * along**2, both, out=np.zeros_like(both), where=both > 0) - both
        agreement, weight = agreement + float(doubled.sum()), weight + float(both.sum())
    return agreement / weight if weight else 0.0


def to_luma(picture: Floats) -> npt.NDArray[np.float64]:
    """(S,S,3) in [0,1] -> (S,S)."""
    return picture.astype(np.float64) @ np.asarray(LUMA)
