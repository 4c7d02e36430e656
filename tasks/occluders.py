"""Things in front of the camera or the face, drawn into a crop before the teacher sees it; no picture files needed.

Fingers that reach in from an edge, glasses, bars and balls, each of simple form: lit from one side, with an edge as
soft as its distance from the focus and a shadow on what lies behind. What is drawn is a function of kind and seed.
Coordinates are x to the right and y down, in sides of the picture.
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tasks.pictures import Pixels

Floats = npt.NDArray[np.float32]
Random = np.random.Generator
Point = tuple[float, float]
Colour = npt.NDArray[np.float64]  # (3,) sRGB in [0,1]

SKIN = np.array([[245, 205, 180], [205, 145, 110], [140, 85, 55], [70, 42, 30]]) / 255  # a tone is drawn in between
FRAMES = np.array([[25, 22, 22], [96, 60, 35], [176, 148, 92], [140, 140, 145], [120, 25, 35]]) / 255


class Canvas:
    """What has been drawn so far: colour times cover (S,S,3) and cover (S,S), in [0,1]."""

    def __init__(self, size: int, random: Random, soft: tuple[float, float]) -> None:
        self.y, self.x = (np.mgrid[:size, :size].astype(np.float32) + 0.5) / size
        self.colour = np.zeros((size, size, 3), np.float32)
        self.cover = np.zeros((size, size), np.float32)
        self.soft = random.uniform(*soft)  # width of an edge
        angle = random.uniform(0, 2 * math.pi)
        self.light = 0.6 * math.cos(angle), 0.6 * math.sin(angle), 0.8  # towards the lamp; z is towards the camera

    def paint(self, distance: Floats, colour: Floats | Colour, opacity: float | Floats = 1.0) -> None:
        """Lay `colour` over what lies within the outline at distance 0, signed, negative inside."""
        share = np.clip(0.5 - distance / self.soft, 0, 1)
        cover = (share * share * (3 - 2 * share) * opacity)[..., None]
        self.colour += cover * (colour - self.colour)
        self.cover += cover[..., 0] * (1 - self.cover)

    def solid(self, colour: Colour, across: Floats, down: Floats) -> Floats:
        """(S,S,3): a round body's colour, its surface turned by (across, down), each -1 to 1 from edge to edge."""
        flat = np.minimum(across**2 + down**2, 1)
        lit = self.light[0] * across + self.light[1] * down + self.light[2] * np.sqrt(1 - flat)
        shade = (0.35 + 0.75 * np.maximum(lit, 0))[..., None]
        lit_colour: Floats = np.clip(colour * shade, 0, 1).astype(np.float32)
        return lit_colour


def limb(
    canvas: Canvas, start: Point, end: Point, radii: Point, colour: Colour, creases: tuple[float, ...] = ()
) -> None:
    """A rounded rod from `start` to `end`, its radius going from one to the other; creases at shares of its length."""
    (x, y), dx, dy = start, end[0] - start[0], end[1] - start[1]
    along = np.clip(((canvas.x - x) * dx + (canvas.y - y) * dy) / (dx * dx + dy * dy), 0, 1)
    radius = radii[0] + (radii[1] - radii[0]) * along
    across, down = canvas.x - x - along * dx, canvas.y - y - along * dy
    body = canvas.solid(colour, across / radius, down / radius)
    for place in creases:
        body *= 1 - 0.25 * np.exp(-(((along - place) / 0.02) ** 2))[..., None]
    canvas.paint(np.hypot(across, down) - radius, body)


def hand(canvas: Canvas, random: Random) -> None:
    """One to four fingers side by side, reaching in from an edge; some show their nails."""
    skin = _between(SKIN, random)
    angle = random.uniform(0, 2 * math.pi)  # the way they point
    ahead, aside = (math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))
    edge = 0.5 / max(abs(ahead[0]), abs(ahead[1]))  # from the middle of the picture to its border
    shift, count, radius = random.uniform(-0.3, 0.3), int(random.integers(1, 5)), random.uniform(0.045, 0.075)
    nails = random.random() < 0.5
    reach = random.uniform(0.25, 0.55)

    def at(forward: float, sideways: float) -> Point:
        return (
            0.5 + ahead[0] * (forward - edge) + aside[0] * sideways,
            0.5 + ahead[1] * (forward - edge) + aside[1] * sideways,
        )

    spread = random.uniform(0.0, 0.04)
    for number in random.permutation(count):
        place = number - (count - 1) / 2
        sideways = shift + place * 2 * radius
        length = reach * (1 - 0.12 * abs(place)) * random.uniform(0.9, 1.05)
        root, tip = at(-0.25, sideways), at(length, sideways + place * spread)
        limb(canvas, root, tip, (radius * 1.15, radius * 0.85), skin, (0.55, 0.8))
        if nails:
            bed, end = at(length - 0.3 * radius, sideways + place * spread), at(length + 0.35 * radius, sideways)
            limb(canvas, bed, end, (radius * 0.5, radius * 0.5), np.minimum(0.25 + 0.8 * skin, 1))
    limb(canvas, at(-0.3, shift - count * radius), at(-0.3, shift + count * radius), (0.3, 0.3), skin)


def glasses(canvas: Canvas, random: Random) -> None:
    """A frame of two lenses with a bridge and the beginning of its temples; clear or dark, with a reflection."""
    angle, width = random.uniform(-0.35, 0.35), random.uniform(0.16, 0.4)  # half the width of the whole frame
    middle = random.uniform(0.3, 0.7), random.uniform(0.3, 0.6)
    turned, offset = (math.cos(angle), math.sin(angle)), (canvas.x - middle[0], canvas.y - middle[1])
    u = (offset[0] * turned[0] + offset[1] * turned[1]) / width
    v = (offset[1] * turned[0] - offset[0] * turned[1]) / width
    frame = FRAMES[random.integers(len(FRAMES))]
    tall, power = random.uniform(0.3, 0.42), random.uniform(2.0, 4.0)  # half a lens's height; 2 is round, 4 a box
    thick = random.uniform(0.02, 0.06)
    dark = random.random() < 0.5
    tint = random.uniform(0.02, 0.15) + random.uniform(0, 0.06, 3) if dark else np.ones(3)
    lens = ((np.abs(np.abs(u) - 0.55) / 0.42) ** power + (np.abs(v) / tall) ** power) ** (1 / power) - 1
    lens *= min(0.42, tall)
    glass = np.clip(tint + 0.25 * (dark * np.maximum(v / tall, 0))[..., None], 0, 1).astype(np.float32)
    canvas.paint(lens * width, glass, random.uniform(0.75, 0.97) if dark else 0.06)
    streak = np.abs(u % 1.1 + 0.6 * v - random.uniform(0.3, 0.8)) - random.uniform(0.03, 0.1)
    canvas.paint(np.maximum(lens + thick, streak) * width, np.ones(3), random.uniform(0.1, 0.4))
    bridge = np.maximum(np.abs(v + 0.1) - thick, np.abs(u) - 0.16)
    temples = np.maximum(np.abs(v + 0.5 * tall) - thick, np.abs(np.abs(u) - 1.05) - 0.1)
    rim = np.abs(lens) - thick
    for part, roundness in ((bridge, (v + 0.1) / thick), (temples, (v + 0.5 * tall) / thick), (rim, lens / thick)):
        canvas.paint(part * width, canvas.solid(frame, np.zeros_like(u), np.clip(roundness, -1, 1)))


def bar(canvas: Canvas, random: Random) -> None:
    """A rod or a plank from edge to edge, near enough to be out of focus."""
    angle, away = random.uniform(0, math.pi), random.uniform(-0.35, 0.35)
    ahead = math.cos(angle), math.sin(angle)
    middle = 0.5 - away * ahead[1], 0.5 + away * ahead[0]
    radius = random.uniform(0.02, 0.1)
    ends = [(middle[0] + side * ahead[0], middle[1] + side * ahead[1]) for side in (-1.2, 1.2)]
    limb(canvas, ends[0], ends[1], (radius, radius * random.uniform(0.8, 1.25)), random.uniform(0.1, 0.95, 3))


def ball(canvas: Canvas, random: Random) -> None:
    """An ellipsoid that may lie half outside the picture."""
    angle, (x, y) = random.uniform(0, math.pi), random.uniform(0.05, 0.95, 2)
    wide, tall = random.uniform(0.08, 0.22, 2)
    across, down = canvas.x - x, canvas.y - y
    u = (across * math.cos(angle) + down * math.sin(angle)) / wide
    v = (down * math.cos(angle) - across * math.sin(angle)) / tall
    nx, ny = u * math.cos(angle) - v * math.sin(angle), u * math.sin(angle) + v * math.cos(angle)
    body = canvas.solid(random.uniform(0.1, 0.95, 3), nx, ny)
    canvas.paint((np.hypot(u, v) - 1) * np.float32(min(wide, tall)), body)


# What is drawn by name, and how soft its edges are, in sides of the picture.
KINDS: dict[str, tuple[Callable[[Canvas, Random], None], tuple[float, float]]] = {
    "hand": (hand, (0.008, 0.03)),
    "glasses": (glasses, (0.005, 0.012)),
    "bar": (bar, (0.005, 0.06)),
    "ball": (ball, (0.005, 0.06)),
}


def occlude(pixels: Pixels, kind: str, seed: int) -> Pixels:
    """(S,S,3) uint8 with one of KINDS drawn into it; "" leaves it as it is."""
    from scipy.ndimage import gaussian_filter, shift

    if not kind:
        return pixels
    size, random = len(pixels), np.random.default_rng(seed)
    draw, soft = KINDS[kind]
    canvas = Canvas(size, random, soft)
    draw(canvas, random)
    away, depth = random.uniform(0.01, 0.04) * size, random.uniform(0.1, 0.45)
    fallen = shift(canvas.cover, (-away * canvas.light[1], -away * canvas.light[0]), order=1, mode="nearest")
    shadow = 1 - depth * gaussian_filter(fallen, 0.6 * away)
    behind = pixels / np.float32(255) * shadow[..., None]
    seen = behind * (1 - canvas.cover[..., None]) + canvas.colour
    whole: Pixels = np.rint(np.clip(seen, 0, 1) * 255).astype(np.uint8)
    return whole


def _between(colours: npt.NDArray[np.float64], random: Random) -> Colour:
    """A colour somewhere on the way through `colours`."""
    place = random.uniform(0, len(colours) - 1)
    return np.array([np.interp(place, range(len(colours)), column) for column in colours.T])
