"""Train start weights for the default student on licence-clean pictures: a body that has seen many effects at once.

Inputs are those of the embedded teacher's training (tasks/train_restyler.py: the photographs that scikit-image and
scikit-learn carry, but for the default effect's test photographs, collages of them, and procedural pictures). One body,
a head for each of EFFECTS: the painter's three styles, the picture as it is, and plain filters, drawn in turn for every
sample. What is kept is the body, with the head of the picture as it is. Writes a folder that `init` may name. May be
stopped with Ctrl-C or killed: a later run with the same options goes on from its checkpoint in data/.work/start.

Command: python -m tasks.train_start --out models/start/effects [--student oil] [--steps 4000]
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.files import sha256_json
from tasks.params import Student, load_params
from tasks.pictures import Pixels
from tasks.progress import progress
from tasks.stage import WORK, guarded
from tasks.train_restyler import STYLES, painted

if TYPE_CHECKING:
    from torch import Tensor, nn

FILTERS = ("as it is", "negative", "grey", "outlines", "few colours", "soft")
EFFECTS = (*STYLES, *FILTERS)
BATCH, CROP, LEARNING_RATE, WARMUP, AVERAGE = 8, 192, 6e-3, 100, 0.998
CHECKPOINT_EVERY = 200


def filtered(name: str, x: "Tensor") -> "Tensor":
    """What a plain filter makes of (B,3,H,W) in [0,1]."""
    from torch.nn import functional

    from models.losses import luma

    if name == "negative":
        return 1 - x
    if name == "grey":
        return luma(x).expand_as(x)
    if name == "outlines":
        soft = functional.avg_pool2d(luma(x), 5, 1, 2, count_include_pad=False)
        return (1 - 6 * (luma(x) - soft).abs()).clamp(0, 1).expand_as(x)
    if name == "few colours":
        return (x * 4).round() / 4
    if name == "soft":
        return functional.avg_pool2d(x, 9, 1, 4, count_include_pad=False)
    return x


def batch(photos: Pixels, styles: Pixels, step: int, seed: int) -> "tuple[Tensor, Tensor, Tensor]":
    """Inputs and targets (BATCH,3,CROP,CROP) in [0,1], and the number of each one's effect; of step and seed alone."""
    import torch

    from models.batches import to_tensor

    random = np.random.default_rng((seed, step))
    rows, effects = random.integers(len(photos), size=BATCH), random.integers(len(EFFECTS), size=BATCH)
    inputs = np.empty((BATCH, CROP, CROP, 3), np.uint8)
    painted_ones = np.empty_like(inputs)
    for place, (row, effect) in enumerate(zip(rows, effects, strict=True)):
        top, left = random.integers(photos.shape[1] - CROP + 1, size=2)
        window = np.s_[top : top + CROP, left : left + CROP]
        aside = slice(None, None, -1 if random.random() < 0.5 else 1)
        inputs[place] = photos[row][window][:, aside]
        painted_ones[place] = styles[row, min(effect, len(STYLES) - 1)][window][:, aside]
    x, y = to_tensor(inputs), to_tensor(painted_ones)
    for place, effect in enumerate(effects):
        if effect >= len(STYLES):
            y[place] = filtered(EFFECTS[effect], x[place : place + 1])[0]
    return x, y, torch.from_numpy(effects)


def with_heads(student: "nn.Module") -> "nn.Module":
    """The student in place with a head for each effect instead of its own, one after another in the channels."""
    from torch import nn

    one: Any = student.head
    many = nn.Conv2d(one.in_channels, len(EFFECTS) * one.out_channels, one.kernel_size, padding=one.padding)
    nn.init.constant_(many.bias, 0.5)  # type: ignore[arg-type]
    student.head = many
    return student


def made_of(student: "nn.Module", x: "Tensor", effects: "Tensor") -> "Tensor":
    """What each sample's head makes of it: (B,3,H,W)."""
    import torch
    from torch.nn import functional

    said = student.head(student.features(x))  # type: ignore[operator]
    own = said.unflatten(1, (len(EFFECTS), -1))[torch.arange(len(x)), effects]
    return functional.pixel_shuffle(own, student.block)  # type: ignore[arg-type]


def train(block: Student, steps: int, seed: int) -> "nn.Module":
    """The averaged student with its head of the picture as it is, after so many steps; goes on from a checkpoint."""
    import copy
    import math

    import torch
    from accelerate.utils import set_seed

    from models.checkpoints import follow, restore_state, save_state
    from models.losses import total
    from models.students import build_student

    photos, styles = painted(seed)
    set_seed(seed)
    student = with_heads(build_student(block.architecture.model_dump(), block.pairs.size))
    student = student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(student)
    optimiser = torch.optim.AdamW(student.parameters(), lr=LEARNING_RATE, weight_decay=0.01, fused=True)
    networks, optimisers = {"student": student, "average": average}, {"optimiser": optimiser}
    key = sha256_json([block.architecture.model_dump(), block.train.losses, EFFECTS, BATCH, CROP, steps, seed])
    checkpoint = WORK / "start" / f"{key[:16]}.safetensors"
    done = restore_state(checkpoint, networks, optimisers)
    with progress("start weights", steps - done, "steps") as advance:
        for step in range(done, steps):
            share = (step + 1) / WARMUP if step < WARMUP else 0.5 * (1 + math.cos(math.pi * step / steps))
            for group in optimiser.param_groups:
                group["lr"] = LEARNING_RATE * share
            x, y, effects = batch(photos, styles, step, seed)
            loss = total(made_of(student.train(), x, effects), y, block.train.losses)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            follow(average, student, min(AVERAGE, (step + 1) / (step + 11)))
            if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == steps:
                save_state(checkpoint, step + 1, networks, optimisers)
            advance(1, f"loss {loss.item():.4f}")
    return with_one_head(average, EFFECTS.index("as it is"))


def with_one_head(student: "nn.Module", effect: int) -> "nn.Module":
    """The student in place with the head of one effect for its own."""
    import torch
    from torch import nn

    many: Any = student.head
    count = many.out_channels // len(EFFECTS)
    one = nn.Conv2d(many.in_channels, count, many.kernel_size, padding=many.padding)
    mine = slice(effect * count, (effect + 1) * count)
    with torch.no_grad():
        one.weight.copy_(many.weight[mine])
        one.bias.copy_(many.bias[mine])  # type: ignore[union-attr]
    student.head = one
    return student.eval()


def make(out: Path, name: str, steps: int, seed: int) -> None:
    """Write the folder, whole or not at all."""
    from models.torch_setup import prepare_torch
    from tasks.learning import publish

    params = load_params()
    block = params.student(name)
    prepare_torch(params.train.threads)
    student = train(block, steps, seed)
    record = {
        "architecture": block.architecture.model_dump(),
        "size": block.pairs.size,
        "made_by": f"python -m tasks.train_start --steps {steps} --seed {seed}",
        "pictures": "photographs that scikit-image and scikit-learn carry, and procedural ones",
    }
    publish(out, student, record, [])
    print(f"start weights: {out}, {(out / 'weights.safetensors').stat().st_size / 1e6:.2f} MB", file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tasks.train_start")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--student", default="oil", help="whose architecture and losses to take from params.yaml")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    guarded("start weights", lambda: make(asked.out, asked.student, asked.steps, asked.seed))
