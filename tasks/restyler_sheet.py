"""A contact sheet of the embedded diffusion teacher on photographs it never saw: every style, and growing strength.

Rows are photographs, or crops of them. Columns: the photo, the weightless painter's oil, the teacher's oil at several
strengths, its other styles. Also prints how near each style is to the painter's, beside what the photo itself would be.
Command: python -m tasks.restyler_sheet --out PICTURE [--model FOLDER] [--photos FOLDER] [--count 4]
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tasks.files import sha256_bytes
from tasks.pictures import Pixels, crop_and_resize, decode_picture
from tasks.sources import library_sources, walk
from tasks.stage import guarded
from tasks.train_restyler import HELD_OUT, SIZE, STYLES, paint

SHIPPED = Path("models/teachers/weights/restyler")
STRENGTHS = (0.25, 0.5, 0.75, 1.0)
STEPS = 2


def held_out(count: int) -> list[Pixels]:
    """Crops of the photographs that the training left out, at two scales."""
    sources = [source for name in ("scikit-learn", "scikit-image") for source in library_sources(name)]
    photos = [decode_picture(source.path.read_bytes()) for source in sources if source.path.stem.startswith(HELD_OUT)]
    return [_middle(pixels, share) for share in (1.0, 0.55) for pixels in photos][:count]


def from_folder(folder: Path, count: int) -> list[Pixels]:
    """Square crops of photos in a folder, always the same ones."""
    paths = sorted(walk(folder), key=lambda path: sha256_bytes(path.name.encode()))[:count]
    return [_middle(decode_picture(path.read_bytes()), 1.0) for path in paths]


def _middle(pixels: Pixels, share: float) -> Pixels:
    """The square in the middle, of a share of the short side."""
    side = round(min(pixels.shape[:2]) * share)
    left, top = (pixels.shape[1] - side) // 2, (pixels.shape[0] - side) // 2
    return crop_and_resize(pixels, (left, top, side), SIZE)


def restyled(pipeline: Any, photo: Pixels, style: str, strength: float) -> Pixels:
    """What the teacher makes of a photo, with the noise of seed 0."""
    import torch

    made = pipeline(
        Image.fromarray(photo),
        style,
        strength=strength,
        num_inference_steps=STEPS,
        generator=torch.Generator().manual_seed(0),
    )
    return np.asarray(made.images[0])


def psnr(a: Pixels, b: Pixels) -> float:
    """In dB, of pictures (H,W,3) with values in 0..255."""
    import torch

    from models.metrics import psnr_db

    one, other = (torch.from_numpy(each / np.float32(255)).permute(2, 0, 1)[None].float() for each in (a, b))
    return float(psnr_db(one, other))


def main(out: Path, model: Path, photos: Path | None, count: int) -> None:
    """Write the sheet and print the table."""
    from models.teachers import restyler

    pipeline: Any = restyler.RestylePipeline
    pipeline = pipeline.from_pretrained(model, use_safetensors=True, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    rows, near = [], []
    for photo in held_out(count) if photos is None else from_folder(photos, count):
        wanted = paint(photo)
        oils = [restyled(pipeline, photo, STYLES[0], strength) for strength in STRENGTHS]
        others = [restyled(pipeline, photo, style, 1.0) for style in STYLES[1:]]
        rows.append(np.concatenate([photo, wanted[0], *oils, *others], axis=1))
        near.append([(psnr(made, at), psnr(photo, at)) for made, at in zip([oils[-1], *others], wanted, strict=True)])
    Image.fromarray(np.concatenate(rows)).save(out, quality=90)
    for place, style in enumerate(STYLES):
        made, plain = np.mean([each[place] for each in near], axis=0)
        print(f"{style}: {made:.1f} dB from the painter's, the photo itself {plain:.1f} dB (mean of {len(near)})")
    print(f"{out}: photo, painter's oil, oil at strength {', '.join(map(str, STRENGTHS))}, {', '.join(STYLES[1:])}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=SHIPPED)
    parser.add_argument("--photos", type=Path, help="a folder; left out, the libraries' held-out photographs")
    parser.add_argument("--count", type=int, default=4)
    asked = parser.parse_args()
    guarded("restyler_sheet", lambda: main(asked.out, asked.model, asked.photos, asked.count))
