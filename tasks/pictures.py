"""What the stages know about pictures: decoding, fitness, crops, digests and near-duplicates.

Pixels are uint8 RGB arrays (H,W,3) throughout. A picture that cannot be used raises Unfit with its kind
and the reason in words; what to do about it is the caller's business.
"""

import hashlib
import io
import warnings
from collections import Counter
from pathlib import Path

import imagehash
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError
from scipy.cluster.hierarchy import DisjointSet

from models.errors import UserError
from models.light import LIGHT, to_pixels

Pixels = npt.NDArray[np.uint8]
Hashes = npt.NDArray[np.uint64]

SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
# Pillow would also offer formats that start other programs (EPS runs Ghostscript).
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "F"})
HASH_SIDE = 32  # pixels; what imagehash.phash shrinks a picture to


class Unfit(Exception):
    """A picture or video that cannot be used: `kind` in one word, `detail` in words with the figures."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail


def decode_picture(data: bytes, *, grey: bool = False) -> Pixels:
    """Upright RGB pixels (H,W,3) of an image file's bytes; transparency becomes white.

    Raises Unfit: broken, animated, huge (a decompression bomb), or without colour channels, unless `grey` ones do.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata in pictures it decodes well
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                return _upright_rgb(image, grey)
        except Unfit:
            raise
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            limit = (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
            raise Unfit("huge", f"more than {limit} million pixels, taken for a decompression bomb") from None
        except UnidentifiedImageError:
            raise Unfit("broken", "not an image that can be read (JPEG, PNG, WebP, BMP, TIFF, GIF)") from None
        except Exception as error:  # noqa: BLE001 on broken bytes a decoder may raise anything
            raise Unfit(
                "broken", f"cannot be decoded ({' '.join(str(error).split()) or type(error).__name__})"
            ) from None


def _upright_rgb(image: Image.Image, grey: bool) -> Pixels:
    # MPO is what many phones write as .jpg: a photo with a preview behind it, so no animation.
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise Unfit("animated", f"{frames} frames or pages; give the one you mean as a still picture")
    if not grey and (image.mode in GREY_MODES or image.mode.startswith("I;")):
        raise Unfit("grey", f"no colour channels (mode {image.mode})")
    upright = ImageOps.exif_transpose(image)
    if "A" in upright.getbands() or "transparency" in upright.info:
        layered = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered)
    return np.asarray(upright.convert("RGB"))


def scale_down(pixels: Pixels, max_side: int) -> Pixels:
    """The picture with its longer side at most `max_side` pixels (Lanczos); unchanged if it is already."""
    height, width = pixels.shape[:2]
    longer = max(height, width)
    if longer <= max_side:
        return pixels
    size = (max(1, round(width * max_side / longer)), max(1, round(height * max_side / longer)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def chroma(pixels: Pixels) -> float:
    """Mean distance from grey: the largest minus the smallest channel, 0..255, averaged over the pixels."""
    return float((pixels.max(axis=2) - pixels.min(axis=2)).mean())


def check_fit(pixels: Pixels, min_side: int, min_chroma: float) -> None:
    """Raise Unfit for a picture that is too small or has (almost) no colour."""
    short = min(pixels.shape[:2])
    if short < min_side:
        raise Unfit("tiny", f"short side is {short} pixels, below min_side {min_side}")
    found = chroma(pixels)
    if found < min_chroma:
        raise Unfit("grey", f"mean chroma is {found:.2f} of 255, below min_chroma {min_chroma:g}")


def crop_and_resize(pixels: Pixels, crop: tuple[int, int, int], size: int) -> Pixels:
    """The square `crop` (left, top, side in pixels) scaled to (size,size,3) with Lanczos."""
    left, top, side = crop
    height, width = pixels.shape[:2]
    if left < 0 or top < 0 or side < 1 or left + side > width or top + side > height:
        raise ValueError(f"crop {crop} does not lie in a picture of {width}x{height}")
    cut = np.ascontiguousarray(pixels[top : top + side, left : left + side])
    return np.asarray(Image.fromarray(cut).resize((size, size), Image.Resampling.LANCZOS))


def turn_hue(pixels: Pixels, degrees: int) -> Pixels:
    """(H,W,3) RGB with every hue turned by `degrees`; light and saturation stay."""
    if degrees % 360 == 0:
        return pixels
    hsv = np.array(Image.fromarray(pixels).convert("HSV"))
    hsv[..., 0] += np.uint8(round(degrees % 360 * 256 / 360) % 256)  # a byte wraps round as hue does
    return np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"))


def expose(pixels: Pixels, stops: float, gamma: float) -> Pixels:
    """(H,W,3) RGB as with 2^stops times the light, then to the power of `gamma`; what gets too bright is clipped.

    In linear light. 0 stops and a gamma of 1 leave every pixel as it is.
    """
    return to_pixels(np.clip(LIGHT * 2.0**stops, 0, 1) ** gamma)[pixels]


def pixel_digest(pixels: Pixels) -> str:
    """Hex sha256 over the shape and the pixels: equal pictures, whatever the file format, give one digest."""
    height, width, channels = pixels.shape
    digest = hashlib.sha256(f"{height}x{width}x{channels}:".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def write_input(folder: Path, digest: str, pixels: Pixels) -> None:
    """Write folder/DIGEST.png; level 1 takes a third of the default's time for 6 % more bytes."""
    Image.fromarray(pixels).save(folder / f"{digest}.png", compress_level=1)


def read_input(folder: Path, digest: str) -> Pixels:
    """Read folder/DIGEST.png as (H,W,3) and check the pixels against the digest."""
    path = folder / f"{digest}.png"
    try:
        pixels = decode_picture(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"missing {path}: run dvc repro ingest") from None
    except Unfit as error:
        raise UserError(f"{path} is damaged ({error}): delete data/inputs and run dvc repro ingest") from None
    if pixel_digest(pixels) != digest:
        raise UserError(f"{path} does not hold the pixels it is named for: delete data/inputs and run dvc repro ingest")
    return pixels


def _bits(hashed: imagehash.ImageHash) -> int:
    return int.from_bytes(np.packbits(hashed.hash).tobytes(), "big")


def perceptual_hashes(pixels: Pixels) -> tuple[int, int]:
    """64-bit pHash of the picture and of its mirror image; near pictures differ in few bits.

    imagehash.phash works on 32x32 grey pixels: shrinking once serves both.
    """
    small = Image.fromarray(pixels).convert("L").resize((HASH_SIDE, HASH_SIDE), Image.Resampling.LANCZOS)
    return _bits(imagehash.phash(small)), _bits(imagehash.phash(ImageOps.mirror(small)))


def near(hashes: Hashes, hashed: int, bits: int) -> npt.NDArray[np.intp]:
    """Indices of the `hashes` (N,) that differ from `hashed` in at most `bits` bits."""
    return np.flatnonzero(np.bitwise_count(hashes ^ np.uint64(hashed)) <= bits)


def groups(keys: list[str], hashes: list[tuple[int, int]], bits: int) -> list[str]:
    """One group name per picture: pictures with one key, or near each other up to a mirroring, share it.

    keys: what a picture comes from (all frames of a video have one); hashes: perceptual_hashes of each.
    The name is the smallest key in the group, so it is no matter in which order pictures come, and a
    picture that is near no other keeps its own key whatever else is added.
    """
    sets: DisjointSet = DisjointSet(keys)
    plain, mirror = np.array(hashes, dtype=np.uint64).reshape(-1, 2).T
    for index, (hashed, mirrored) in enumerate(hashes):
        # Both ways round, or the order would matter: mirroring moves the median that a hash is cut at.
        sides = ((plain, hashed), (plain, mirrored), (mirror, hashed))
        for twin in {keys[i] for earlier, side in sides for i in near(earlier[:index], side, bits)}:
            sets.merge(keys[index], twin)
    smallest = {key: min(subset) for subset in sets.subsets() for key in subset}
    return [smallest[key] for key in keys]


def count_kinds(reasons: list[str]) -> dict[str, int]:
    """How many reasons there are of each kind (the word before the colon), sorted by kind."""
    return dict(sorted(Counter(reason.split(":", 1)[0] for reason in reasons).items()))
