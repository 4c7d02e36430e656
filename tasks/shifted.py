"""Pictures as a student is not meant to see them, made of held-out inputs so that all else is the same.

Night, noise, drawings, grey, extreme crops and the like; and line art and print that come with scikit-image. A detector
is measured on them (tasks/detector.py) and never fitted on them. Each takes and gives one (S,S,3) uint8 picture; what
is random comes from the picture's row.
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from models import camera
from tasks.pictures import crop_and_resize, expose

Pictures = npt.NDArray[np.uint8]
Shift = Callable[[Pictures, np.random.Generator], Pictures]

DARK_SHOT = 1.2e-2  # variance a unit of light, as in a dark room (models/camera.SHOT)
NIGHT_STOPS = -3.5
OUTLINED = 0.85  # share of the pixels that a drawing leaves white
PAPER, INK = 255, 20
CLOSE = 10  # of the picture's side is enlarged one part in so many
FAR = 4
LENS_CAP = 2  # level of 255 that is left
LUMA = (0.299, 0.587, 0.114)
DRAWN = ("horse", "page", "text")  # of skimage.data: a silhouette, print, handwriting
DRAWN_CROPS = 6  # of each


def dark_room(picture: Pictures, random: np.random.Generator) -> Pictures:
    """Noise of a sensor in a dark room."""
    return camera.noise(picture, DARK_SHOT, math.exp(camera.read_of(math.log(DARK_SHOT))), random)


def night(picture: Pictures, random: np.random.Generator) -> Pictures:
    """Too little light, a little out of focus, noisy."""
    dark = camera.blur(expose(picture, NIGHT_STOPS, 1.0), camera.disc(1.0))
    return camera.noise(dark, DARK_SHOT, 1e-5, random)


def static(picture: Pictures, random: np.random.Generator) -> Pictures:
    """Nothing but noise."""
    return random.integers(0, 256, picture.shape, dtype=np.uint8)


def covered(picture: Pictures, random: np.random.Generator) -> Pictures:
    """A hand or a pocket before the lens."""
    return camera.noise(np.full_like(picture, LENS_CAP), 1e-3, 1e-5, random)


def grey(picture: Pictures, random: np.random.Generator) -> Pictures:
    """Without colour."""
    return np.repeat(np.rint(picture @ np.array(LUMA))[..., None], 3, axis=2).astype(np.uint8)


def outlines(picture: Pictures, random: np.random.Generator) -> Pictures:
    """A drawing in ink: the strongest edges, black on white."""
    from scipy import ndimage

    luma = ndimage.gaussian_filter(picture @ np.array(LUMA), 1.0)
    edges = np.hypot(ndimage.sobel(luma, 0), ndimage.sobel(luma, 1))
    drawn = np.where(edges > np.quantile(edges, OUTLINED), INK, PAPER).astype(np.uint8)
    return np.repeat(drawn[..., None], 3, axis=2)


def flat_colours(picture: Pictures, random: np.random.Generator) -> Pictures:
    """A drawing in flat colours: four levels a channel, small things gone."""
    from scipy import ndimage

    plain: Pictures = ndimage.median_filter(picture, size=(7, 7, 1)) // 64 * 85
    return plain


def close(picture: Pictures, random: np.random.Generator) -> Pictures:
    """A tenth of the side, enlarged."""
    size = len(picture)
    side = max(1, size // CLOSE)
    left, top = (int(place) for place in random.integers(0, size - side + 1, 2))
    return crop_and_resize(picture, (left, top, side), size)


def far(picture: Pictures, random: np.random.Generator) -> Pictures:
    """A quarter of the side, with its mirror images around it."""
    size = len(picture)
    small = crop_and_resize(picture, (0, 0, size), size // FAR)
    before = (size - size // FAR) // 2
    after = size - size // FAR - before
    return np.pad(small, ((before, after), (before, after), (0, 0)), mode="symmetric")


def inverted(picture: Pictures, random: np.random.Generator) -> Pictures:
    """A negative."""
    return 255 - picture


def upside_down(picture: Pictures, random: np.random.Generator) -> Pictures:
    """Turned by half a turn: unusual to people, and little to a student."""
    return np.ascontiguousarray(picture[::-1, ::-1])


SHIFTS: dict[str, Shift] = {
    "night": night,
    "noise": dark_room,
    "static": static,
    "covered": covered,
    "grey": grey,
    "outlines": outlines,
    "flat_colours": flat_colours,
    "close": close,
    "far": far,
    "inverted": inverted,
    "upside_down": upside_down,
}
LINE_ART = "line_art"
SETS = (*SHIFTS, LINE_ART)


def shifted(name: str, pictures: Pictures) -> Pictures:
    """(N,S,S,3) under one of SHIFTS; row by row, the same every time."""
    shift = SHIFTS[name]
    return np.stack([shift(np.asarray(one), np.random.default_rng((0, row))) for row, one in enumerate(pictures)])


def line_art(size: int) -> tuple[Pictures, list[str]]:
    """Crops (N,size,size,3) of drawings and print that scikit-image carries, and of which each is."""
    import skimage.data

    random = np.random.default_rng(0)
    crops, names = [], []
    for name in DRAWN:
        drawn = np.asarray(getattr(skimage.data, name)())
        pixels = (drawn * 255 if drawn.dtype == bool else drawn).astype(np.uint8)
        pixels = np.repeat(pixels[..., None], 3, axis=2)
        height, width = pixels.shape[:2]
        for _ in range(DRAWN_CROPS):
            side = int(min(height, width) * random.uniform(0.6, 1.0))
            left, top = int(random.integers(0, width - side + 1)), int(random.integers(0, height - side + 1))
            crops.append(crop_and_resize(pixels, (left, top, side), size))
            names.append(name)
    return np.stack(crops), names
