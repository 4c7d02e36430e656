"""Train the embedded diffusion teacher (models/teachers/restyler.py) on licence-clean pictures only.

The photographs that scikit-image and scikit-learn carry, but for HELD_OUT, and procedural pictures; what the styles
make of them is painted by models/teachers/painter.py. Writes a folder that diffusers loads. May be stopped with
Ctrl-C or killed: a later run with the same options goes on from the last checkpoint in data/.work/restyler/.
Command: python -m tasks.train_restyler --out FOLDER [--steps 20000] [--start FOLDER]
"""

import argparse
import copy
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from models.checkpoints import follow, restore_state, save_state
from models.errors import UserError
from models.files import replacing
from tasks.files import sha256_json
from tasks.pictures import Pixels, chroma, crop_and_resize, decode_picture, turn_hue
from tasks.progress import progress
from tasks.sources import library_sources
from tasks.stage import WORK, guarded

HELD_OUT = ("china", "coffee")  # the default effect's test photographs, which its teacher has not seen either
STYLES = ("oil", "sketch", "comic")
SIZE = 256
CROPS_A_PHOTO, COLLAGES, PROCEDURAL = 60, 200, 80
CROP, BATCH = 96, 16
LOSSES = {"pixel": 1.0, "structure": 0.5, "gradient": 1.0, "chroma": 0.5, "sharpness": 1.0}
LEARNING_RATE, WARMUP, AVERAGE = 1e-3, 100, 0.998
CHECKPOINT_S = 300.0


def photographs() -> list[Pixels]:
    """The libraries' colour photographs, without those that are held out."""
    sources = [source for name in ("scikit-image", "scikit-learn") for source in library_sources(name)]
    found = [(source.path.stem, decode_picture(source.path.read_bytes())) for source in sources]
    kept = [pixels for name, pixels in found if not any(name.startswith(held) for held in HELD_OUT)]
    return [pixels for pixels in kept if min(pixels.shape[:2]) >= SIZE and is_coloured(pixels)]


def is_coloured(pixels: Pixels) -> bool:
    """Whether a picture is more than shades of one colour."""
    return chroma(pixels) >= 4


def crops(seed: int) -> Pixels:
    """(n,SIZE,SIZE,3): random crops of the photographs, collages of such, and procedural pictures."""
    random = np.random.default_rng(seed)
    photos = photographs()
    made = [random_crop(pixels, SIZE, random, 0.4) for pixels in photos for _ in range(CROPS_A_PHOTO)]
    made += [collage(photos, random) for _ in range(COLLAGES)]
    made += [procedural(random) for _ in range(PROCEDURAL)]
    return np.stack(made)


def random_crop(pixels: Pixels, size: int, random: np.random.Generator, least: float) -> Pixels:
    """(size,size,3): a square of at least that share of the short side, every second one in turned hues."""
    side = round(min(pixels.shape[:2]) * random.uniform(least, 1))
    left = int(random.integers(pixels.shape[1] - side, endpoint=True))
    top = int(random.integers(pixels.shape[0] - side, endpoint=True))
    crop = crop_and_resize(pixels, (left, top, side), size)
    return turn_hue(crop, int(random.integers(30, 330))) if random.random() < 0.5 else crop


def collage(photos: Sequence[Pixels], random: np.random.Generator) -> Pixels:
    """Four crops at half the size: the few photographs there are hold less fine detail than others do."""
    chosen = random.integers(len(photos), size=4)
    one, two, three, four = (random_crop(photos[at], SIZE // 2, random, 0.6) for at in chosen)
    return np.concatenate([np.concatenate([one, two]), np.concatenate([three, four])], axis=1)


def procedural(random: np.random.Generator) -> Pixels:
    """A picture of nothing: a smooth ground, soft and hard shapes, cloud-like texture, in random colours."""
    from scipy import ndimage

    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    ground, other = random.random(3), random.random(3)
    angle = random.uniform(0, 2 * np.pi)
    ramp = np.clip(x * np.cos(angle) + y * np.sin(angle) + random.uniform(0, 0.5), 0, 1)[..., None]
    image = ground + (other - ground) * ramp
    for _ in range(random.integers(3, 14)):
        u, v = x - random.random(), y - random.random()
        turn = random.uniform(0, np.pi)
        u, v = u * np.cos(turn) + v * np.sin(turn), v * np.cos(turn) - u * np.sin(turn)
        radii = random.uniform(0.03, 0.35, 2)
        power = random.choice([2, 2, 8])  # an ellipse, or a box with round corners
        distance = (np.abs(u / radii[0]) ** power + np.abs(v / radii[1]) ** power) ** (1 / power) - 1
        soft = random.choice([0.01, 0.02, 0.3])
        cover = 1 / (1 + np.exp(np.clip(distance / soft, -50, 50)))
        shade = 1 + random.uniform(-0.5, 0.5) * v / radii[1]
        image += (random.random(3) * shade[..., None] - image) * cover[..., None]
    for sigma in (1, 3, 9):
        noise = ndimage.gaussian_filter(random.standard_normal((SIZE, SIZE)), sigma)
        image += (random.uniform(0, 0.06) * noise / noise.std())[..., None]
    made: Pixels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return made


def paint(photo: Pixels) -> Pixels:
    """(len(STYLES),SIZE,SIZE,3): what the styles make of one photo."""
    from models.teachers import painter

    values = (photo / np.float32(255)).astype(np.float32)
    return np.stack([np.rint(painter.STYLES[style](values) * 255).astype(np.uint8) for style in STYLES])


def painted(seed: int) -> tuple[Pixels, Pixels]:
    """Photos (n,SIZE,SIZE,3) and their styles (n,len(STYLES),SIZE,SIZE,3); kept in data/.work once painted."""
    photos = crops(seed)
    key = sha256_json([STYLES, seed, str(photos.shape), int(photos.sum(dtype=np.int64))])
    file = WORK / "restyler" / f"painted-{key[:16]}.npy"
    if not file.exists():
        print(f"painting {len(photos)} pictures in {len(STYLES)} styles", file=sys.stderr)
        with ProcessPoolExecutor(2) as pool:
            made = np.stack(list(pool.map(paint, photos, chunksize=4)))
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary, temporary.open("wb") as out:
            np.save(out, made)
    return photos, np.load(file)


def batch(photos: Pixels, styles: Pixels, random: np.random.Generator) -> tuple[Any, Any, Any, Any]:
    """Photo and change (B,3,CROP,CROP), style labels (B,), strengths (B,): crops at random places."""
    import torch

    rows = random.integers(len(photos), size=BATCH)
    labels = random.integers(len(STYLES), size=BATCH)
    # The ends of the range matter most: the whole style, and the photo as it is.
    strengths = np.select([random.random(BATCH) < 0.5, random.random(BATCH) < 0.1], [1.0, 0.0], random.random(BATCH))
    x, y = [], []
    for row, label in zip(rows, labels, strict=True):
        top, left = random.integers(SIZE - CROP, size=2, endpoint=True) // 2 * 2
        window = np.s_[top : top + CROP, left : left + CROP]
        aside = slice(None, None, -1 if random.random() < 0.5 else 1)  # no style has a left and a right
        x.append(photos[row][window][:, aside])
        y.append(styles[row, label][window][:, aside])
    photo, style = (torch.from_numpy(np.stack(part)).permute(0, 3, 1, 2).float() / 127.5 - 1 for part in (x, y))
    strength = torch.from_numpy(strengths).float()
    return photo, (style - photo) * strength.reshape(-1, 1, 1, 1), torch.from_numpy(labels), strength


def loss_of(unet: Any, photo: Any, change: Any, labels: Any, strength: Any, generator: Any) -> Any:
    """What a student is taught by, between the picture that follows from the change said and the one wanted.

    At random times; early ones, which decide most, come more often.
    """
    import torch
    from torch.nn import functional

    from models.losses import total
    from models.teachers.restyler import CHANGE_SCALE, FOLD, network_input

    noise = torch.randn(change.shape, generator=generator)
    t = 1 - torch.rand(len(change), generator=generator) ** 2
    mixed = torch.lerp(change * CHANGE_SCALE, noise, t.reshape(-1, 1, 1, 1))
    asked = network_input(mixed, photo, strength).contiguous(memory_format=torch.channels_last)
    said = functional.pixel_shuffle(unet(asked, t * 1000, class_labels=labels).sample, FOLD) / CHANGE_SCALE
    made, wanted = ((photo + each + 1) / 2 for each in (said, change))
    return total(made, wanted, LOSSES)


def train(out: Path, steps: int, start: Path | None, seed: int) -> None:
    """Train for so many steps and write `out`; the learning rate falls to 0 over them.

    Every step draws from a generator of its own, so that a run that was stopped ends as one that was not.
    """
    import torch

    from models.teachers.restyler import new_unet

    if start and not (start / "model_index.json").exists():
        raise UserError(f"{start} holds no restyler to start from: name a folder that this command made")
    photos, styles = painted(seed)
    torch.manual_seed(seed)
    unet: Any = new_unet(len(STYLES))
    unet.to(memory_format=torch.channels_last)
    if start:
        unet.load_state_dict(load(start))
    average: Any = copy.deepcopy(unet)
    optimiser = torch.optim.AdamW(unet.parameters(), LEARNING_RATE, weight_decay=0.01)
    networks, optimisers = {"unet": unet, "average": average}, {"adamw": optimiser}
    key = sha256_json([str(start), steps, seed, STYLES, len(photos)])
    checkpoint = WORK / "restyler" / f"checkpoint-{key[:16]}.safetensors"
    done = restore_state(checkpoint, networks, optimisers)
    if done:
        print(f"restyler: going on at step {done}", file=sys.stderr)
    losses: list[float] = []
    saved = time.monotonic()
    with progress("restyler", (steps - done) * BATCH, "crops") as advance:
        for step in range(done, steps):
            random = np.random.default_rng([seed, step])
            generator = torch.Generator().manual_seed(int(random.integers(2**62)))
            loss = loss_of(unet, *batch(photos, styles, random), generator)
            rate = LEARNING_RATE * min(1, (step + 1) / WARMUP) * 0.5 * (1 + np.cos(np.pi * step / steps))
            take_step(loss, rate, unet, optimiser)
            follow(average, unet, min(AVERAGE, (step + 1) / (step + 11)))
            losses.append(float(loss.detach()))
            advance(BATCH, f"loss {np.mean(losses[-200:]):.4f}")
            if time.monotonic() - saved > CHECKPOINT_S:
                save_state(checkpoint, step + 1, networks, optimisers)
                saved = time.monotonic()
    write(out, average.state_dict())
    checkpoint.unlink(missing_ok=True)
    print(f"restyler: {steps} steps of {BATCH} crops, loss {np.mean(losses[-1000:]):.5f}; {out}")


def take_step(loss: Any, rate: float, unet: Any, optimiser: Any) -> None:
    """One step of the optimiser."""
    import torch

    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
    optimiser.step()


def load(folder: Path) -> dict[str, Any]:
    """The weights of a trained folder, as float32."""
    from models.teachers import restyler

    pipeline: Any = restyler.RestylePipeline
    found = pipeline.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    return dict(found.unet.float().state_dict())


def write(out: Path, weights: dict[str, Any]) -> None:
    """The folder that diffusers loads; the weights in half precision."""
    from models.teachers import restyler

    unet: Any = restyler.new_unet(len(STYLES))
    unet.load_state_dict(weights)
    pipeline: Any = restyler.new_pipeline(unet.half(), STYLES)
    pipeline.save_pretrained(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--start", type=Path, help="a folder to start from")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    guarded("train_restyler", lambda: train(options.out, options.steps, options.start, options.seed))
