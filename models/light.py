"""8-bit sRGB to linear light and back (IEC 61966-2-1): exposure, lenses and sensors work on light, not on its code."""

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Light = npt.NDArray[np.float32]

_CODE = np.arange(256) / 255
LIGHT = np.where(_CODE <= 0.04045, _CODE / 12.92, ((_CODE + 0.055) / 1.055) ** 2.4).astype(np.float32)


def to_light(pixels: Pixels) -> Light:
    """uint8 sRGB of any shape -> linear light in [0,1]."""
    return LIGHT[pixels]


def to_pixels(light: Light) -> Pixels:
    """Linear light of any shape -> uint8 sRGB; what lies outside [0,1] is clipped, as a sensor does."""
    light = np.clip(light, 0, 1)
    code = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(code * 255).astype(np.uint8)
