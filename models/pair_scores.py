"""Figures of a pair by which a bad one shows: edges, spectrum, burnt pixels, strokes, colours.

Each looks at the input and at the teacher's picture and asks for what an effect may not do, whatever it paints. Some
are bad in themselves, others only where the effect does not usually do so (tasks/effect_norm.py).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

Picture = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float32]
Box = tuple[int, int, int]  # left, top, side in pixels

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
FINE, COARSE, TINY = 256, 128, 32  # pixels to which larger pictures are brought
FLOOR = 1e-5  # of power: what rounding to 256 levels leaves of a plain picture
SLOW = 8  # waves a picture: what repeats less often is scenery
WIDE = 8  # neighbouring frequencies on either side of a cliff
FLAT = 9  # neighbouring frequencies whose median a spike stands out from
STROKE = 0.05  # of luma a pixel: an edge that is drawn
FAINT = 1e-4  # squared steepness of luma, a pixel of half size: below it an edge is noise
NEAR = 9  # pixels within which an edge of the input accounts for one of the target
RIM = 4  # pixels at the picture's rim, where a teacher pads
MIDDLE = 0.5  # of the side: what is not background where no face says better


@dataclass(frozen=True, slots=True)
class Side:
    """Luma in [0,1] of one of a pair's pictures, its steepness a pixel, and its spectrum; (S,S), (S,S), (2,S/2+1)."""

    luma: Values
    slope: Values
    spectrum: Values


def look_at(picture: Picture) -> Side:
    """Of (S,S,3)."""
    luma = shrink(np.asarray(picture, np.float32) @ (LUMA / np.float32(255)), FINE)
    slope = np.hypot(ndimage.sobel(luma, 0) / 8, ndimage.sobel(luma, 1) / 8)
    return Side(luma, slope, spectrum(luma))


def shrink(values: Values, side: int) -> Values:
    """(S,S,...) -> at least (side,side,...) by means of whole blocks; what is left over at the edges goes."""
    block = max(1, values.shape[0] // side)
    count = values.shape[0] // block
    if block == 1:
        return values
    cut = values[: count * block, : count * block]
    return cut.reshape(count, block, count, block, *values.shape[2:]).mean(axis=(1, 3), dtype=np.float32)


def spectrum(luma: Values) -> Values:
    """log10 of the power along rows and along columns of (S,S), averaged over the others: (2,S/2+1).

    Averaging over lines is what lets a faint pattern stand out from the scenery.
    """
    side = len(luma)
    window = np.hanning(side + 2)[1:-1].astype(np.float32)
    found = []
    for lines in (luma, luma.T):
        waves = fft.rfft((lines - lines.mean(axis=1, keepdims=True)) * window, axis=1)
        found.append(np.square(np.abs(waves)).mean(axis=0))
    return np.log10(np.array(found, np.float32) + np.float32(FLOOR))


def spikes(spectra: npt.NDArray[np.floating]) -> Values:
    """How far each frequency stands out from its neighbours, in decades: (...,F) -> (...,F-SLOW)."""
    level = np.asarray(spectra, np.float32)
    size = (1,) * (level.ndim - 1) + (FLAT,)
    return np.asarray(level - ndimage.median_filter(level, size))[..., SLOW:]


def cliffs(spectra: npt.NDArray[np.floating]) -> Values:
    """By how many decades the power falls at each frequency, from the WIDE before to those after: (...,F) -> (...,G).

    Where waves end at a stroke, edges are followed by ripples (Gibbs): careless scaling and decoders do so.
    """
    level = np.asarray(spectra, np.float32)
    means = ndimage.uniform_filter1d(level, WIDE, axis=-1)[..., WIDE // 2 : level.shape[-1] - WIDE // 2 + 1]
    return (means[..., :-WIDE] - means[..., WIDE:])[..., SLOW:]


def edges_lost(given: Values, target: Values, box: Box | None = None) -> tuple[float, float]:
    """(everywhere, in the background): 1 - agreement of the edges' directions, weighed by the strength of both.

    As in models/stability.py, of two (S,S) lumas at half size and slightly blurred: 0 for the same edges, about 1 for
    unrelated ones, up to 2. The background is what lies outside `box`, twice as wide, or outside the picture's middle.
    """
    scale = len(shrink(given, COARSE)) / len(given)
    down, right = np.gradient(ndimage.gaussian_filter(shrink(given, COARSE), 1.0))
    down_out, right_out = np.gradient(ndimage.gaussian_filter(shrink(target, COARSE), 1.0))
    both = np.hypot(down, right) * np.hypot(down_out, right_out)
    along = down * down_out + right * right_out
    doubled = np.divide(2 * along**2, both, out=np.zeros_like(both), where=both > 0) - both
    outside = ~inside(len(both), box, scale)
    return _lost(doubled, both), _lost(doubled[outside], both[outside])


def _lost(doubled: Values, both: Values) -> float:
    # Where there are hardly any edges, chance decides which way they run: of those nothing is lost.
    return float((both - doubled).sum()) / (float(both.sum()) + FAINT * max(both.size, 1))


def inside(count: int, box: Box | None, scale: float) -> npt.NDArray[np.bool_]:
    """(count,count): where the subject is, of a picture that was scaled by `scale` to `count` pixels."""
    left, top, side = (scale * value for value in box) if box else (count * (1 - MIDDLE) / 2,) * 2 + (count * MIDDLE,)
    if box:
        left, top, side = left - side / 2, top - side / 2, 2 * side
    at = np.arange(count)
    return ((at >= top) & (at < top + side))[:, None] & (at >= left) & (at < left + side)


def burnt(picture: Picture) -> float:
    """Share of the values of (S,S,3) that are at either end of the scale."""
    return float(((picture >= 254) | (picture <= 1)).mean())


def fresh_strokes(given: Values, target: Values) -> float:
    """Share of drawn edges without an edge of the input near by, where they are densest, over everywhere: 0..1.

    given, target: slopes (S,S). Writing lies in bands; brush strokes follow what is there or lie everywhere.
    """
    accounted = ndimage.maximum_filter(given, NEAR)
    fresh = ((target > STROKE) & (target > 1.5 * accounted))[RIM:-RIM, RIM:-RIM].astype(np.float32)
    bands = ndimage.uniform_filter(fresh, (max(3, len(fresh) // 10), max(3, len(fresh) // 3)))
    return float(bands.max() - fresh.mean())


def mean_colour(picture: Picture) -> Values:
    """Mean CIELAB of (S,S,3), (3,): L in 0..100, a and b about -100..100."""
    return np.asarray(_lab(picture)[0].mean(axis=(0, 1)), np.float32)


def palette(picture: Picture) -> Values:
    """(14,): from what an effect's mean colour can be foretold: means, spread, chroma and products of the colours."""
    lab, rgb = _lab(picture)
    chroma = np.hypot(lab[..., 1], lab[..., 2]).mean()
    flat = rgb.reshape(-1, 3)
    products = (flat.T @ flat / len(flat))[np.triu_indices(3)]
    means = lab.mean(axis=(0, 1)), [lab[..., 0].std(), chroma], flat.mean(axis=0)
    return np.concatenate([*means, products]).astype(np.float32)


def _lab(picture: Picture) -> tuple[Values, Values]:
    from skimage.color import rgb2lab

    small = shrink(np.asarray(picture, np.float32), TINY) / 255
    return rgb2lab(small), small
