"""What a camera does to a picture on its way to the student: blur, sensor noise, JPEG compression.

For training batches (models/batches.py): the student alone sees what the camera made of a crop, its target stays the
teacher's picture of the clean crop. Nothing here moves a pixel, so the pair stays aligned. Each degradation takes and
gives (H,W,3) uint8 sRGB; blur and noise happen in linear light, as in a lens and on a sensor.
"""

import io
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.light import to_light, to_pixels

Pixels = npt.NDArray[np.uint8]
Kernel = npt.NDArray[np.float32]

# What is drawn from; tasks/robustness.py measures at fixed points of these ranges.
RADIUS = (0.7, 3.0)  # pixels: of the disc that a point becomes out of focus
LENGTH = (3.0, 12.0)  # pixels: of the line that a point becomes when the camera moves
SHOT = (1e-4, 1.2e-2)  # variance a unit of light, as Brooks et al. 2019 draw it (log-uniform)
QUALITY = (15, 75)  # of JPEG


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """The shares of the pictures that are blurred, noisy and compressed, drawn apart; each share in [0,1]."""

    blur: float
    noise: float
    compression: float

    def __call__(self, pixels: Pixels, random: np.random.Generator) -> Pixels:
        """(H,W,3) uint8 -> the same shape, in the order of a camera: lens, sensor, file."""
        blurred, noisy, compressed = random.random(3) < (self.blur, self.noise, self.compression)
        if blurred:
            focus = random.random() < 0.5
            pixels = blur(pixels, disc(random.uniform(*RADIUS)) if focus else draw_motion(random))
        if noisy:
            pixels = noise(pixels, *draw_noise(random), random)
        if compressed:
            pixels = compress(pixels, int(random.integers(*QUALITY, endpoint=True)))
        return pixels


def draw_motion(random: np.random.Generator) -> Kernel:
    """A line of random length and direction."""
    return line(random.uniform(*LENGTH), random.uniform(0, math.pi))


def draw_noise(random: np.random.Generator) -> tuple[float, float]:
    """Variances of shot noise (a unit of light) and of read noise, as in real cameras' raw files.

    Brooks et al., Unprocessing images for learned raw denoising, CVPR 2019.
    """
    log_shot = random.uniform(*np.log(SHOT))
    return math.exp(log_shot), math.exp(read_of(log_shot) + 0.26 * random.standard_normal())


def read_of(log_shot: float) -> float:
    """The logarithm of the read noise's variance that goes with a shot noise's (Brooks et al. 2019)."""
    return 2.18 * log_shot + 1.2


def disc(radius: float) -> Kernel:
    """Defocus: a point becomes a disc; its border takes a share of the pixels it cuts."""
    reach = math.ceil(radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    kernel = np.clip(radius + 0.5 - np.hypot(x, y), 0, 1)
    return (kernel / kernel.sum()).astype(np.float32)


def line(length: float, angle: float) -> Kernel:
    """Motion: a point becomes a line of `length` pixels at `angle` radians, shared by the pixels it runs between."""
    reach = math.ceil(length / 2) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    along = np.linspace(-length / 2, length / 2, 8 * math.ceil(length) + 1)
    x, y = reach + along * math.cos(angle), reach + along * math.sin(angle)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    for right in (0, 1):
        for below in (0, 1):
            share = np.abs(1 - right - (x - left)) * np.abs(1 - below - (y - top))
            np.add.at(kernel, (top + below, left + right), share)
    return (kernel / kernel.sum()).astype(np.float32)


def blur(pixels: Pixels, kernel: Kernel) -> Pixels:
    """Spread every point by the kernel (odd sides, sum 1); beyond the border the picture is mirrored."""
    reach, (height, width) = len(kernel) // 2, pixels.shape[:2]
    light = np.pad(to_light(pixels), ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    spread = np.zeros(pixels.shape, np.float32)
    # Most of a kernel is zeros: at these sizes a sum of shifted pictures takes less time than Fourier, or than torch.
    for down, across in np.argwhere(kernel > 0):
        spread += kernel[down, across] * light[down : down + height, across : across + width]
    return to_pixels(spread)


def noise(pixels: Pixels, shot: float, read: float, random: np.random.Generator) -> Pixels:
    """Sensor noise: Gaussian with variance `shot` x light + `read`, light in [0,1] (Foi et al. 2008)."""
    light = to_light(pixels)
    grain = random.standard_normal(light.shape, np.float32)
    return to_pixels(light + grain * np.sqrt(np.float32(shot) * light + np.float32(read)))


def compress(pixels: Pixels, quality: int) -> Pixels:
    """The picture after JPEG at `quality` (1 to 95), with colour at half the resolution as phones save it."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))
