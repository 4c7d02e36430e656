"""Train a small StyleGAN2 (models/teachers/stylegan2/) on random crops of one's own photographs.

Reads every picture in a folder; writes a folder that `kind: stylegan2` teachers take as `model`. A share of the photos
is never shown; their names are in held_out.json beside the weights. May be stopped with Ctrl-C or killed: a later run
with the same options goes on from data/.work/stylegan2/. For a picture a person would want, give it a GPU and a day;
there is no augmentation of the discriminator's view, so give it thousands of photos too.
Command: python -m tasks.train_stylegan2 --photos FOLDER --out FOLDER [--resolution 64] [--steps 20000]
"""

import argparse
import copy
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import UserError
from tasks.files import replacing_folder, sha256_bytes, sha256_json, write_json
from tasks.pictures import Pixels, Unfit, crop_and_resize, decode_picture
from tasks.progress import progress
from tasks.sources import walk
from tasks.stage import WORK, guarded

HELD_OUT_OF = 10  # one photo of so many is held out
CROPS_A_PHOTO = 12
BATCH = 16
LEARNING_RATE, R1_EVERY, PATH_EVERY = 0.002, 16, 4
PATH_WEIGHT, AVERAGE = 2.0, 0.998
CHECKPOINT_S = 300.0


def is_held_out(path: Path) -> bool:
    """Whether a photo is kept from training: by its name, so that a folder that grows keeps its split."""
    return int(sha256_bytes(path.name.encode()), 16) % HELD_OUT_OF == 0


def crops(paths: list[Path], size: int, each: int, seed: int) -> Pixels:
    """(n,size,size,3): random square crops of the photos, at least half as wide as these; unfit files are left out."""
    random = np.random.default_rng(seed)
    made = []
    for path in paths:
        try:
            pixels = decode_picture(path.read_bytes())
        except Unfit:
            continue
        short = min(pixels.shape[:2])
        for _ in range(each if short >= size else 0):
            side = int(random.integers(max(size, short // 2), short, endpoint=True))
            left = int(random.integers(pixels.shape[1] - side, endpoint=True))
            top = int(random.integers(pixels.shape[0] - side, endpoint=True))
            crop = crop_and_resize(pixels, (left, top, side), size)
            made.append(crop[:, ::-1] if random.random() < 0.5 else crop)
    return np.stack(made) if made else np.empty((0, size, size, 3), np.uint8)


def channels_of(resolution: int, most: int) -> list[int]:
    """Channels from 4x4 up: `most` to 16x16, then half as many at each doubling."""
    levels = resolution.bit_length() - 2
    if resolution != 2 ** (levels + 1) or levels < 2:
        raise UserError(f"resolution {resolution} is no power of 2 from 8 up")
    return [max(16, min(most, most * 16 // 2 ** (level + 2))) for level in range(levels)]


def train(photos: Path, out: Path, *, resolution: int, steps: int, channels: int, r1: float, seed: int) -> None:
    """Train for so many steps of BATCH crops and write `out`."""
    import torch

    from models.checkpoints import follow, restore_state, save_state
    from models.teachers.stylegan2 import network
    from models.teachers.stylegan2.discriminator import Discriminator

    wide = channels_of(resolution, channels)
    known = sorted(walk(photos)) if photos.is_dir() else []
    real = crops([path for path in known if not is_held_out(path)], resolution, CROPS_A_PHOTO, seed)
    if len(real) < BATCH:
        raise UserError(f"{photos} holds too few photos of at least {resolution} pixels: {len(real)} crops were cut")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(seed)
    config = {"z_dim": 128, "w_dim": 128, "mapping_layers": 4, "channels": wide}
    generator: Any = network.Generator(**config).to(device)  # type: ignore[arg-type]
    judge: Any = Discriminator(channels=wide).to(device)
    parts = Parts(generator, judge, copy.deepcopy(generator).requires_grad_(False), device)
    key = sha256_json([config, BATCH, steps, r1, seed, sha256_bytes(real.tobytes())])
    checkpoint = WORK / "stylegan2" / f"checkpoint-{key[:16]}.safetensors"
    done = restore_state(checkpoint, parts.networks, parts.optimisers)
    if done:
        print(f"stylegan2: going on at step {done}", file=sys.stderr)
    saved, losses = time.monotonic(), []
    with progress("stylegan2", (steps - done) * BATCH, "crops") as advance:
        for step in range(done, steps):
            losses.append(parts.step(step, real, r1, seed))
            follow(parts.average, generator, min(AVERAGE, (step + 1) / (step + 11)))
            recent = np.mean(losses[-200:], axis=0)
            advance(BATCH, f"losses {recent[0]:.3f} {recent[1]:.3f}")
            if time.monotonic() - saved > CHECKPOINT_S:
                save_state(checkpoint, step + 1, parts.networks, parts.optimisers)
                saved = time.monotonic()
    with replacing_folder(out) as folder:
        network.save(parts.average.cpu(), folder)
        write_json(folder / "held_out.json", [path.name for path in known if is_held_out(path)])
    checkpoint.unlink(missing_ok=True)
    print(f"stylegan2: {steps} steps of {BATCH} crops of {resolution}x{resolution}; {out}")


class Parts:
    """What training changes, and one step of it."""

    def __init__(self, generator: Any, judge: Any, average: Any, device: Any) -> None:
        import torch

        self.generator, self.judge, self.average, self.device = generator, judge, average, device
        # Lazy regularisation counts as further steps, which the rates and moments make up for (appendix B).
        self.optimisers = {
            "adam-g": self._adam(generator, PATH_EVERY / (PATH_EVERY + 1)),
            "adam-d": self._adam(judge, R1_EVERY / (R1_EVERY + 1)),
        }
        self.usual_length: Any = torch.nn.Module()
        self.usual_length.register_buffer("mean", torch.zeros((), device=device))
        self.networks = {"g": generator, "d": judge, "average": average, "path": self.usual_length}

    @staticmethod
    def _adam(network: Any, share: float) -> Any:
        import torch

        return torch.optim.Adam(network.parameters(), LEARNING_RATE * share, betas=(0.0, 0.99**share), eps=1e-8)

    def step(self, number: int, real: Pixels, r1: float, seed: int) -> tuple[float, float]:
        """Both networks learn once, of draws that depend on the step's number alone; their losses."""
        import torch

        from models.teachers.stylegan2 import training

        random = np.random.default_rng([seed, number])
        source = torch.Generator().manual_seed(int(random.integers(2**62)))
        shown = real[random.integers(len(real), size=BATCH)]
        pictures = torch.from_numpy(shown).permute(0, 3, 1, 2).to(self.device).float() / 127.5 - 1
        g, d = self.optimisers["adam-g"], self.optimisers["adam-d"]
        self.judge.requires_grad_(False)
        of_g = training.step(g, training.generator_loss(self.generator, self.judge, BATCH, source))
        if number % PATH_EVERY == 0:
            mean = self.usual_length.mean
            penalty = training.path_length_penalty(self.generator, max(1, BATCH // 4), mean, source)
            training.step(g, penalty * PATH_WEIGHT * PATH_EVERY)
        self.judge.requires_grad_(True)
        of_d = training.step(d, training.judge_loss(self.generator, self.judge, pictures, source))
        if number % R1_EVERY == 0:
            training.step(d, training.gradient_penalty(self.judge, pictures) * r1 * R1_EVERY)
        return of_g, of_d


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--channels", type=int, default=128, help="of the layers up to 16x16")
    parser.add_argument("--r1", type=float, default=0.5, help="weight of the gradient penalty")
    parser.add_argument("--seed", type=int, default=0)
    chosen = vars(parser.parse_args())
    guarded("train_stylegan2", lambda: train(chosen.pop("photos"), chosen.pop("out"), **chosen))
