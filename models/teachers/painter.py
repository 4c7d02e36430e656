"""A weightless teacher: photographs repainted by image processing, slow on purpose and the same every time.

`oil` smooths along the flow of the picture and keeps edges crisp (generalised Kuwahara filter: Papari,
Petkov & Campisi 2007; structure tensor flow and shock filter: Kyprianidis & Kang 2011), lays tones into a
few bands as a painter mixes a few values, splits light into warm and shadow into cool, draws dark contours
(XDoG: Winnemoeller, Kyprianidis & Olsen 2012) and lights the paint as if it stood off the canvas.
`sketch` draws the same contours as graphite on warm paper over a thin watercolour wash; `comic` lays flat, strong
colours below thick lines.

Nothing is drawn at random and nothing depends on where a pixel lies, so a convolutional student can learn it.
Raise its number in models/teachers/digests.py when the output changes.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.signal import oaconvolve
from skimage import color

from models.teachers.digests import teacher_digest

Image = npt.NDArray[np.float32]

SECTORS = 8


class Painter:
    """The `painter` teacher: style "oil", "sketch" or "comic"."""

    def __init__(self, *, style: str, name: str, version: int) -> None:
        self.paint = STYLES[style]
        self.digest = teacher_digest({"kind": "painter", "style": style, "name": name, "version": version})

    def __call__(self, inputs: npt.NDArray[np.uint8], seeds: Sequence[int]) -> npt.NDArray[np.float32]:
        """(B,H,W,3) uint8 RGB -> (B,H,W,3) float32 in [0,1]; `seeds` are not used, nothing is random."""
        return np.stack([self.paint(image.astype(np.float32) / 255) for image in inputs])


def paint_oil(image: Image) -> Image:
    """(H,W,3) in [0,1] -> the same scene in oils."""
    scale = min(image.shape[:2]) / 256
    strokes = kuwahara(image, radius=5.0 * scale)
    strokes = shock(along_flow(strokes, length=4.0 * scale), sigma=1.2 * scale)
    lab = color.rgb2lab(strokes).astype(np.float32)
    light = bands(lab[..., 0] / 100, count=6, softness=0.2)
    lab[..., 0] = 100 * curve(light)
    warmth = light - 0.45
    lab[..., 1] = vivid(lab[..., 1], 1.7) + 16 * warmth
    lab[..., 2] = vivid(lab[..., 2], 1.6) + 44 * warmth
    paint = color.lab2rgb(lab).astype(np.float32)
    lines = contours(luma(ndimage.gaussian_filter(image, (0.8 * scale, 0.8 * scale, 0))), sigma=1.1 * scale)
    paint *= (1 - 0.75 * lines)[..., None]
    relief = emboss(luma(strokes), sigma=0.7 * scale)
    return finish(paint * (1 + 0.5 * relief[..., None]), scale)


def draw_sketch(image: Image) -> Image:
    """(H,W,3) in [0,1] -> graphite lines and a thin colour wash on warm paper."""
    scale = min(image.shape[:2]) / 256
    wash = kuwahara(image, radius=4.0 * scale)
    lab = color.rgb2lab(wash).astype(np.float32)
    tone = lab[..., 0] / 100
    lab[..., 0] = 100 * (0.62 + 0.36 * bands(tone, count=4, softness=0.15))
    lab[..., 1:] *= 1.1
    paint = color.lab2rgb(lab).astype(np.float32) * np.array([1.0, 0.98, 0.93], np.float32)
    grey = luma(image)
    lines = contours(ndimage.gaussian_filter(grey, 0.6 * scale), sigma=0.9 * scale)
    # Colour dodge of the picture by its blurred negative is the classic pencil shade.
    blurred = ndimage.gaussian_filter(grey, 4.0 * scale)
    shade = np.clip(grey / (blurred + 0.03), 0, 1)
    dark = np.clip(1 - tone * 1.9, 0, 1) * 0.45
    graphite = np.clip((1 - 0.85 * lines) * (0.35 + 0.65 * shade) * (1 - dark), 0, 1)[..., None]
    ink = np.array([0.16, 0.15, 0.2], np.float32)
    return finish(ink + (paint - ink) * graphite, scale)


def paint_comic(image: Image) -> Image:
    """(H,W,3) in [0,1] -> the same scene in flat, strong colours with thick black lines, as a comic is inked."""
    scale = min(image.shape[:2]) / 256
    flat = kuwahara(image, radius=4.0 * scale)
    lab = color.rgb2lab(flat).astype(np.float32)
    lab[..., 0] = 100 * curve(bands(lab[..., 0] / 100, count=4, softness=0.1))
    lab[..., 1:] = vivid(lab[..., 1:], 2.4)
    paint = color.lab2rgb(lab).astype(np.float32)
    grey = luma(ndimage.gaussian_filter(image, (1.2 * scale, 1.2 * scale, 0)))
    paint *= (1 - 0.85 * contours(grey, sigma=1.5 * scale))[..., None]
    return finish(paint, scale)


def finish(image: Image, scale: float) -> Image:
    """Take the stair-steps off the edges and keep the values in [0,1]."""
    sigma = 0.5 * scale
    return np.clip(ndimage.gaussian_filter(image, (sigma, sigma, 0)), 0, 1).astype(np.float32)


def luma(image: Image) -> Image:
    """(H,W,3) -> (H,W) Rec. 601 luma."""
    return (image @ np.array([0.299, 0.587, 0.114], np.float32)).astype(np.float32)


def vivid(channel: Image, gain: float) -> Image:
    """Raise the chroma of a Lab channel, muted colours more than strong ones."""
    return (80 * np.tanh(channel * gain / 80)).astype(np.float32)


def curve(light: Image) -> Image:
    """A gentle S: deeper darks, brighter lights, values in [0,1] stay there."""
    smooth = light * light * (3 - 2 * light)
    return (0.06 + 0.90 * (0.45 * light + 0.55 * smooth)).astype(np.float32)


def bands(light: Image, count: int, softness: float) -> Image:
    """Pull values in [0,1] towards the middles of `count` bands with soft steps (Winnemoeller et al. 2006)."""
    position = light * count
    nearest = np.floor(position) + 0.5
    return ((nearest + 0.5 * np.tanh((position - nearest) / softness * 0.35)) / count).astype(np.float32)


def structure_tensor(grey: Image, sigma: float) -> tuple[Image, Image, Image]:
    """Smoothed products of gradients (E, F, G), each (H,W)."""
    gx, gy = ndimage.sobel(grey, axis=1) / 8, ndimage.sobel(grey, axis=0) / 8
    return tuple(ndimage.gaussian_filter(product, sigma) for product in (gx * gx, gx * gy, gy * gy))  # type: ignore[return-value]


def tangent(grey: Image, sigma: float) -> tuple[Image, Image]:
    """Unit vectors (x, y) along the edges: the minor eigenvector of the structure tensor."""
    e, f, g = structure_tensor(grey, sigma)
    angle = 0.5 * np.arctan2(2 * f, e - g) + np.pi / 2
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def kuwahara(image: Image, radius: float) -> Image:
    """Generalised Kuwahara filter: the mean of the calmest sectors around each pixel; (H,W,3) -> same."""
    pad = int(np.ceil(radius)) + 1
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
    total = np.zeros_like(image)
    weight_sum = np.zeros(image.shape[:2], np.float32)
    for kernel in sector_kernels(radius, pad):
        mean = oaconvolve(padded, kernel[..., None], mode="valid", axes=(0, 1))
        square = oaconvolve(padded * padded, kernel[..., None], mode="valid", axes=(0, 1))
        deviation = np.sqrt(np.clip(square - mean * mean, 0, None)).sum(axis=2) * 255
        weight = 1 / (1 + (deviation / 3) ** 8)
        total += weight[..., None] * mean
        weight_sum += weight
    return (total / np.maximum(weight_sum, 1e-12)[..., None]).astype(np.float32)


def sector_kernels(radius: float, pad: int) -> list[Image]:
    """Normalised weights of `SECTORS` overlapping pie slices of a Gaussian disc, each (2 pad + 1)^2."""
    y, x = np.mgrid[-pad : pad + 1, -pad : pad + 1].astype(np.float32)
    disc = np.exp(-(x * x + y * y) / (2 * (0.5 * radius) ** 2)) * (np.hypot(x, y) <= radius + 0.5)
    kernels = []
    for sector in range(SECTORS):
        turn = np.angle(np.exp(1j * (np.arctan2(y, x) - 2 * np.pi * sector / SECTORS)))
        slice_weight = np.clip(np.cos(turn * SECTORS / 4), 0, None) * (np.abs(turn) <= 2 * np.pi / SECTORS)
        slice_weight[pad, pad] = 1 / SECTORS
        kernel = disc * slice_weight
        kernels.append((kernel / kernel.sum()).astype(np.float32))
    return kernels


def along_flow(image: Image, length: float) -> Image:
    """Average each pixel with those up and down its stroke (line integral convolution, 1 pixel a step)."""
    tx, ty = tangent(luma(image), sigma=2.0)
    height, width = tx.shape
    y0, x0 = np.mgrid[0:height, 0:width].astype(np.float32)
    total, weight_sum = image.copy(), 1.0
    for direction in (1.0, -1.0):
        x, y, dx, dy = x0.copy(), y0.copy(), direction * tx, direction * ty
        for step in range(1, int(np.ceil(length)) + 1):
            x, y = x + dx, y + dy
            at = np.stack([y, x])
            weight = float(np.exp(-(step**2) / (2 * (length / 2) ** 2)))
            for channel in range(3):
                total[..., channel] += weight * sample(image[..., channel], at)
            weight_sum += weight
            nx, ny = sample(tx, at), sample(ty, at)
            # A tangent has no sign: keep walking the way we came.
            sign = np.where(nx * dx + ny * dy < 0, -1.0, 1.0).astype(np.float32)
            dx, dy = nx * sign, ny * sign
    return (total / weight_sum).astype(np.float32)


def sample(plane: Image, at: npt.NDArray[np.float32]) -> Image:
    """Bilinear values of (H,W) `plane` at (2,H,W) coordinates (row, column)."""
    return ndimage.map_coordinates(plane, at, order=1, mode="nearest")


def shock(image: Image, sigma: float) -> Image:
    """Sharpen across the flow: dilate where the second derivative is negative, erode where positive."""
    grey = ndimage.gaussian_filter(luma(image), sigma)
    sign = ndimage.gaussian_laplace(grey, sigma)
    push = np.tanh(sign * 200)[..., None]
    dilated = ndimage.maximum_filter(image, size=(3, 3, 1))
    eroded = ndimage.minimum_filter(image, size=(3, 3, 1))
    return np.where(push < 0, image + (dilated - image) * -push, image + (eroded - image) * push).astype(np.float32)


def contours(grey: Image, sigma: float) -> Image:
    """Lines of an extended difference of Gaussians, (H,W) in [0,1]: 1 on a dark contour."""
    narrow, wide = ndimage.gaussian_filter(grey, sigma), ndimage.gaussian_filter(grey, 1.6 * sigma)
    difference = narrow - 0.98 * wide - 0.004
    return np.where(difference >= 0, 0, np.tanh(-55 * difference)).astype(np.float32)


def emboss(height: Image, sigma: float) -> Image:
    """Light from above on a height field: slope towards the light, in [-1,1].

    Light from a side would make a mirrored picture's painting differ from the painting's mirror image,
    and mirrored pairs could not be used in training.
    """
    smooth = ndimage.gaussian_filter(height, sigma)
    return np.tanh(6 * ndimage.sobel(smooth, axis=0) / 8).astype(np.float32)


STYLES = {"oil": paint_oil, "sketch": draw_sketch, "comic": paint_comic}
