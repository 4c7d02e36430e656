"""Faults planted into good pairs, to measure what the rules of curation find and what they cost.

Each takes a pair, another pair's target and a generator of random numbers, and gives the target a fault of the kind
that teachers have; all (S,S,3) uint8.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy import fft

from tasks.faces import Box, find_faces
from tasks.pictures import Pixels

Fault = Callable[[Pixels, Pixels, Pixels, np.random.Generator], Pixels | None]
GRID_LEVELS = 12  # of 255, to either side
CUT_OFF = 0.12  # cycles a pixel
CAST_LEVELS = 25
CONTRAST = 3.0
OPACITY = 0.6


def to_pixels(values: npt.NDArray[np.floating]) -> Pixels:
    """Rounded and clipped to 0..255."""
    return np.asarray(np.rint(np.clip(values, 0, 255)), np.uint8)


def shifted(given: Pixels, target: Pixels, other: Pixels, random: np.random.Generator) -> Pixels:
    """Everything lies a thirtieth of the picture further down and to the right."""
    by = max(2, len(target) // 32)
    return np.ascontiguousarray(np.pad(target, ((by, 0), (by, 0), (0, 0)), mode="edge")[:-by, :-by])


def swapped(given: Pixels, target: Pixels, other: Pixels, random: np.random.Generator) -> Pixels:
    """The answer to another input."""
    return other


def other_background(given: Pixels, target: Pixels, other: Pixels, random: np.random.Generator) -> Pixels:
    """Another picture's round the middle of this one."""
    side = len(target)
    at = (np.arange(side) - side / 2) / side
    outside = np.clip((np.hypot(at[:, None], at) - 0.28) / 0.06, 0, 1)[..., None]
    return to_pixels(target * (1 - outside) + other * outside)


def other_face(given: Pixels, target: Pixels, other: Pixels, random: np.random.Generator) -> Pixels | None:
    """Another person's face, in the light and size of the one there; None where there is none."""
    boxes = find_faces(given)
    if not boxes:
        return None
    return with_face(target, boxes[0], random)


@cache
def strangers() -> npt.NDArray[np.floating]:
    """(100,25,25) faces of Labelled Faces in the Wild, as scikit-image carries them."""
    from skimage.data import lfw_subset

    return np.asarray(lfw_subset()[:100])  # type: ignore[no-untyped-call]


def with_face(target: Pixels, box: Box, random: np.random.Generator) -> Pixels:
    """The target with a stranger's face blended into the box."""
    left, top, side = box
    face = strangers()[int(random.integers(100))]
    drawn = np.asarray(Image.fromarray(np.float32(face)).resize((side, side), Image.Resampling.BICUBIC))[..., None]
    there = target[top : top + side, left : left + side].astype(np.float64)
    at = (np.arange(side) - side / 2) / side
    inside = np.clip((0.5 - np.hypot(at[:, None], at)) / 0.1, 0, 1)[..., None]
    lit = (drawn - drawn.mean()) / max(float(drawn.std()), 1e-3) * there.std() + there.mean(axis=(0, 1))
    changed = target.copy()
    changed[top : top + side, left : left + side] = to_pixels(there * (1 - inside) + lit * inside)
    return changed


def grid(given: Pixels, target: Pixels, other: Pixels, random: np.random.Generator) -> Pixels:
    """A chequered pattern, such as strided layers leave."""
    period = int(random.choice([4, 8, 16]))
    wave = np.sin(2 * np.pi * np.arange(len(target)) / period + 0.5)
    return to_pixels(target + GRID_LEVELS * np.outer(wave, wave)[..., None])


def ringing(given: Pixels, target: Pixels, other: Pixels, random: np.random.Generator) -> Pixels:
    """Ripples beside the edges, as careless scaling leaves: all that is finer than CUT_OFF is gone at a stroke."""
    kept = np.abs(fft.fftfreq(len(target))) < CUT_OFF
    kept = kept[:, None] & kept
    waves = fft.fft2(target.astype(np.float64), axes=(0, 1)) * kept[..., None]
    return to_pixels(fft.ifft2(waves, axes=(0, 1)).real)


def cast(given: Pixels, target: Pixels, other: Pixels, random: np.random.Generator) -> Pixels:
    """A tint over all of it."""
    hue = random.uniform(0, 2 * np.pi) + np.array([0, 2, 4]) * np.pi / 3
    return to_pixels(target + CAST_LEVELS * np.cos(hue))


def clipping(given: Pixels, target: Pixels, other: Pixels, random: np.random.Generator) -> Pixels:
    """Three times the contrast: lights burn out, shadows go black."""
    return to_pixels((target - target.mean()) * CONTRAST + target.mean())


def overlay(given: Pixels, target: Pixels, other: Pixels, random: np.random.Generator) -> Pixels:
    """A word across it, half transparent."""
    side = len(target)
    picture = Image.fromarray(target)
    written = picture.copy()
    place = int(random.integers(0, side // 5)), int(random.integers(side // 8, side * 3 // 4))
    ink = (255, 255, 255) if target.mean() < 140 else (0, 0, 0)
    ImageDraw.Draw(written).text(place, "PREVIEW 0123", fill=ink, font=ImageFont.load_default(size=side // 9))
    return np.asarray(Image.blend(picture, written, OPACITY))


# By the name of the rule that is to find it, or of what happened.
FAULTS: dict[str, Fault] = {
    "shifted": shifted,
    "swapped": swapped,
    "other-face": other_face,
    "other-background": other_background,
    "grid": grid,
    "ringing": ringing,
    "cast": cast,
    "clipping": clipping,
    "overlay": overlay,
}
