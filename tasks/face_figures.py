"""What can be told of the faces in a picture without a download: size, pose, whether the eyes are seen, tone of skin.

Tone is the individual typology angle (Chardon et al. 1991), atan((L* - 50) / b*) in degrees, in the median over what is
coloured like skin (Chai & Ngan 1999, YCbCr). It is the tone as it was photographed: light and white balance move it by
as much as a bin, so bins are coarse and small ones are not judged. Faces that are turned away or covered from the nose
down are mostly not found, and therefore not told of (docs/decisions/0021-faces.md). Used by tasks/coverage.py.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from tasks.faces import POSES, Box, count_eyes, find_faces, find_posed
from tasks.pictures import Pixels

TILT = 25  # degrees at which faces are looked for where none is upright
TILTED = "tilted"  # by about TILT either way, and frontal then
ALL_POSES = (*POSES, TILTED)
SEEN_FROM_THE_FRONT = ("frontal", TILTED)
EYES = ("neither seen", "one seen", "both seen")
# Lower ends in degrees. Chardon's six classes: very light and light, intermediate, tan, brown and dark.
TONES = {"light": 41.0, "intermediate": 28.0, "tan": 10.0, "dark": -90.0}
SIZES = {"small": 0.0, "middling": 0.4, "large": 0.6}  # lower ends, in sides of the picture
SKIN_CB, SKIN_CR = (77, 127), (133, 173)
INNER = (0.2, 0.8, 0.25, 0.9)  # left, right, top, bottom of the box: brows to chin, without hair and background
LEAST_SKIN = 0.3  # of it; below, the cascade has most likely found something else
SHOWN_LIGHT = (15.0, 97.0)  # L* of pixels that tell a colour at all


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceFigures:
    """The largest face of a picture."""

    count: int  # faces found
    size: str  # of SIZES
    pose: str  # of ALL_POSES
    eyes: str  # of EYES; "" of a face in profile
    tone: str  # of TONES
    angle: float  # typology angle in degrees


def measure_faces(square: Pixels) -> FaceFigures | None:
    """The figures of (S,S,3); None where no face with enough skin is found, upright or tilted."""
    for degrees in (0, -TILT, TILT):
        turned = square if not degrees else _turned(square, degrees)
        # One in profile that is seen in a turned picture alone is most likely none, so it is not looked for.
        poses = {face.box: face.pose for face in find_posed(turned)} if not degrees else _tilted(turned)
        angles = {box: tone_angle(turned, box) for box in poses}
        faces = [box for box, angle in angles.items() if not np.isnan(angle)]  # a vase has a face's shadows too
        if faces:
            largest = faces[0]
            pose = poses[largest]
            return FaceFigures(
                count=len(faces),
                size=_class(largest[2] / len(square), SIZES),
                pose=pose,
                eyes=EYES[count_eyes(turned, largest)] if pose in SEEN_FROM_THE_FRONT else "",
                tone=_class(angles[largest], dict(reversed(TONES.items()))),
                angle=angles[largest],
            )
    return None


def _tilted(turned: Pixels) -> dict[Box, str]:
    """Faces of a turned picture; only those with an eye, as most others are none."""
    return {box: TILTED for box in find_faces(turned) if count_eyes(turned, box)}


def _turned(square: Pixels, degrees: int) -> Pixels:
    return np.asarray(Image.fromarray(square).rotate(degrees, Image.Resampling.BILINEAR))


def _class(value: float, lower: dict[str, float]) -> str:
    """The last of the classes, by rising lower ends, that the value reaches."""
    return [name for name, end in lower.items() if value >= end][-1]


def tone_angle(pixels: Pixels, box: Box) -> float:
    """Median typology angle of a face's skin in degrees; NaN where LEAST_SKIN of it is not coloured like skin."""
    from skimage.color import rgb2lab

    left, top, side = box
    x0, x1, y0, y1 = (round(side * part) for part in INNER)
    inner = pixels[top + y0 : top + y1, left + x0 : left + x1]
    lab = rgb2lab(inner)
    skin = skin_like(inner) & (lab[..., 0] > SHOWN_LIGHT[0]) & (lab[..., 0] < SHOWN_LIGHT[1])
    if not inner.size or skin.mean() < LEAST_SKIN:
        return float("nan")
    return float(np.degrees(np.arctan2(np.median(lab[skin][:, 0]) - 50, np.median(lab[skin][:, 2]))))


def skin_like(pixels: Pixels) -> npt.NDArray[np.bool_]:
    """(H,W): which pixels have the chroma of skin, of whatever tone."""
    ycbcr = np.asarray(Image.fromarray(pixels).convert("YCbCr"))
    cb, cr = ycbcr[..., 1], ycbcr[..., 2]
    return (cb >= SKIN_CB[0]) & (cb <= SKIN_CB[1]) & (cr >= SKIN_CR[0]) & (cr <= SKIN_CR[1])
