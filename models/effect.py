"""What a teacher did to a picture, in eight numbers that have names; and what kind of picture it was, in six.

Small enough to compare a hundred thousand pairs by, and each can be told to a person: a pair whose colours are half of
what pairs like it have was answered wrongly, or is another kind of picture (tasks/usual.py says which are so).
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Pictures = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]

SIDE = 128  # pixels, about: to which pictures are shrunk by whole factors
CELL = 4  # of those pixels, in which edges are told where they are
LUMA = np.array([0.299, 0.587, 0.114], np.float32)

SCENE = ("luma", "contrast", "detail", "chroma", "warmth", "green")
EFFECT = (*SCENE, "change", "structure")
# Of each number of an effect: what it is called when there is less of it than usual, and when there is more.
WORDS = {
    "luma": ("darker", "brighter"),
    "contrast": ("with less contrast", "with more contrast"),
    "detail": ("smoother", "with more fine detail"),
    "chroma": ("greyer", "more colourful"),
    "warmth": ("cooler in colour", "warmer in colour"),
    "green": ("more magenta", "greener"),
    "change": ("changed less", "changed more"),
    "structure": ("with the input's edges less in place", "with the input's edges more in place"),
}


def describe(inputs: Iterable[Pictures], outputs: Iterable[Pictures]) -> tuple[Values, Values]:
    """N of (S,S,3) uint8 both, taken one by one -> SCENE of the inputs (N,6), EFFECT of what became of them (N,8).

    Contrast, detail, chroma and change are logarithms, so that an effect is a factor; structure is the correlation of
    both pictures' edges, cell by cell, by Fisher's transformation.
    """
    rows = [_pair(given, made) for given, made in zip(inputs, outputs, strict=True)]
    scenes, effects = ([row[side] for row in rows] for side in (0, 1))
    return np.array(scenes).reshape(-1, len(SCENE)), np.array(effects).reshape(-1, len(EFFECT))


def _pair(given: Pictures, made: Pictures) -> tuple[list[float], list[float]]:
    before, after = shrunk(given), shrunk(made)
    (scene, edges), (other, moved) = _figures(before), _figures(after)
    change = np.log(np.abs(after - before).mean() + 0.002)
    # Of a picture without edges nothing is in place.
    same = np.corrcoef(edges, moved)[0, 1] if edges.std() and moved.std() else 0.0
    effect = [theirs - own for own, theirs in zip(scene, other, strict=True)]
    return scene, [*effect, float(change), float(np.arctanh(np.clip(same, -0.99, 0.99)))]


def shrunk(picture: Pictures) -> Floats:
    """(S,S,3) uint8 -> (s,s,3) in [0,1], about SIDE wide, each pixel the mean of a square."""
    step = max(1, len(picture) // SIDE)
    side = len(picture) // step
    whole = picture[: side * step, : side * step].astype(np.float32)
    # Added up by strides: numpy's own mean over axes so short takes eight times as long, for the same bits.
    rows = np.add.reduce([whole[first::step] for first in range(step)])
    small: Floats = np.add.reduce([rows[:, first::step] for first in range(step)]) / np.float32(step * step) / 255
    return small


def _figures(picture: Floats) -> tuple[list[float], Values]:
    """SCENE of a picture (s,s,3), and its edges by cell, flat."""
    y = picture @ LUMA
    laplacian = y[:-2, 1:-1] + y[2:, 1:-1] + y[1:-1, :-2] + y[1:-1, 2:] - 4 * y[1:-1, 1:-1]
    colours = [picture[..., channel] for channel in range(3)]
    red, green, blue = (float(colour.mean()) for colour in colours)
    chroma = np.maximum.reduce(colours) - np.minimum.reduce(colours)  # by planes, as along the last axis it takes long
    scene = [
        float(y.mean()),
        float(np.log(y.std() + 0.01)),
        float(np.log(np.square(laplacian).mean() + 1e-5)),
        float(np.log(chroma.mean() + 0.01)),
        red - blue,
        green - (red + blue) / 2,
    ]
    edges = np.hypot(np.diff(y, axis=1)[:-1], np.diff(y, axis=0)[:, :-1])
    side = len(edges) // CELL
    cells = edges[: side * CELL, : side * CELL].reshape(side, CELL, side, CELL).mean(axis=(1, 3))
    return scene, cells.astype(np.float64).ravel()
