"""Training steps for `make bench`: our loop beside the plain one, in turn, in one process.

The plain loop is what one writes first: a DataLoader that decodes a pair of PNGs for every sample, the
reference UNet in contiguous memory, Adam, and the same losses. Ours is models/training.py with the student's own
settings, which also keeps an average of the weights, in as many processes as `train.processes` says; each helper runs
`python -m tasks.bench_training --student NAME --pairs FOLDER`.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.bench_device import REFERENCE
from tasks.helpers import beside
from tasks.params import load_params
from tasks.stage import die_with_parent
from tasks.stage_params import TrainShared
from tasks.student_params import Student
from tasks.taught import batching

Pictures = npt.NDArray[np.uint8]
WARMUP, BLOCKS, STEPS = 2, 4, 4
PAIRS = 96  # pairs both loops draw from


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the comparison gave."""

    ours_per_s: float
    reference_per_s: float
    step_s: float
    wait_s: float
    data: str


def compare(name: str, block: Student, pairs: Path, work: Path, shared: TrainShared) -> Found:
    """Time both loops in blocks of a few steps; `pairs` are used if made, else crops of photographs."""
    import torch

    inputs, targets, data = open_or_make(pairs, block.pairs.size)
    threads, each = shared.threads, max(1, shared.threads // shared.processes)
    our_times: list[tuple[float, float]] = []
    plain_s: list[float] = []
    arguments = ["--student", name, "--pairs", str(pairs)]
    with (
        beside(shared.processes, "tasks.bench_training", arguments, work / "helpers.log", threads=each),
        our_step(block, inputs, targets) as ours,
    ):
        plain = plain_step(block, inputs, targets, work)
        for number in range(BLOCKS + 1):
            steps = STEPS if number else WARMUP
            torch.set_num_threads(each)
            our_times += [ours() for _ in range(steps)]
            torch.set_num_threads(threads)
            plain_s += [timed(plain) for _ in range(steps)]
    our_times, plain_s = our_times[WARMUP:], plain_s[WARMUP:]
    wait_s, step_s = (float(np.median(column)) for column in zip(*our_times, strict=True))
    batch = block.train.batch_size
    note = f"{data}, {shared.processes} processes, {threads} threads, median of {BLOCKS} blocks of {STEPS} steps"
    per_s = {"ours_per_s": batch / step_s, "reference_per_s": batch / float(np.median(plain_s))}
    return Found(**per_s, step_s=step_s, wait_s=wait_s, data=note)


def open_or_make(pairs: Path, size: int) -> tuple[Pictures, Pictures, str]:
    """Training pairs (N,S,S,3), from the student's arrays or cut from photographs, and which it was."""
    from models.batches import open_pairs

    if (pairs / "pairs.json").exists():
        inputs, targets = open_pairs(pairs, "train")
        return inputs[:PAIRS], targets[:PAIRS], "its own pairs"
    from skimage import data

    photo: Pictures = data.astronaut()  # type: ignore[no-untyped-call]
    corners = np.random.default_rng(0).integers(0, photo.shape[0] - size + 1, size=(PAIRS, 2))
    inputs = np.stack([photo[top : top + size, left : left + size] for top, left in corners])
    return inputs, 255 - inputs, "crops of a photograph (no pairs are made yet)"


@contextmanager
def our_step(block: Student, inputs: Pictures, targets: Pictures) -> Iterator[Callable[[], tuple[float, float]]]:
    """While open, a step of models/training.py; each call returns seconds waited for data and seconds in all."""
    from accelerate import Accelerator

    from models.batches import Batches
    from models.students import build_student
    from models.training import Recipe, ahead, begin, train_step
    from tasks.learning import make_terms

    settings = block.train
    chosen = settings.model_dump(include={"steps", "learning_rate", "weight_decay", "warmup_steps", "ema_decay"})
    recipe = Recipe(**chosen, checkpoint_every=settings.steps, validate_every=settings.steps)
    accelerator = Accelerator()
    student = build_student(block.architecture.model_dump(), block.pairs.size)
    training = begin(student, recipe, make_terms(block, student))
    training.student.train()
    mine = slice(accelerator.process_index, None, accelerator.num_processes)
    with ahead(Batches(inputs, targets, **batching(block)), 0, mine, accelerator.device) as following:

        def step() -> tuple[float, float]:
            started = time.perf_counter()
            batch = next(following)
            waited = time.perf_counter() - started
            train_step(training, batch, recipe, accelerator)
            return waited, time.perf_counter() - started

        yield step


def plain_step(block: Student, inputs: Pictures, targets: Pictures, work: Path) -> Callable[[], None]:
    """A step of the plain loop over PNGs written to `work`."""
    import torch

    from models.losses import total
    from models.students import build_student

    write_pngs(inputs, targets, work)
    student = build_student(REFERENCE, block.pairs.size).train()
    optimizer = torch.optim.Adam(student.parameters(), lr=block.train.learning_rate)
    batches = endless(len(inputs), block, work)

    def step() -> None:
        torch.use_deterministic_algorithms(False)  # a plain loop would not ask for it
        picture, target = next(batches)
        loss = total(student(picture), target, block.train.losses)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        torch.use_deterministic_algorithms(True)

    return step


def endless(count: int, block: Student, work: Path) -> Iterator[Any]:
    """Batches of (B,3,crop,crop) pairs, a pair of PNGs decoded and cropped for every sample."""
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    crop = block.train.crop

    class Pngs(Dataset[Any]):
        def __len__(self) -> int:
            return count

        def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
            top, left = torch.randint(0, block.pairs.size - crop + 1, (2,)).tolist()
            return tuple(  # type: ignore[return-value]
                torch.from_numpy(np.array(Image.open(work / f"{row}.{kind}.png").convert("RGB")))
                .permute(2, 0, 1)
                .float()[:, top : top + crop, left : left + crop]
                / 255
                for kind in ("input", "target")
            )

    while True:
        yield from DataLoader(Pngs(), batch_size=block.train.batch_size, shuffle=True, num_workers=0, drop_last=True)


def write_pngs(inputs: Pictures, targets: Pictures, work: Path) -> None:
    """Write every pair as two PNGs."""
    from PIL import Image

    for row, pair in enumerate(zip(inputs, targets, strict=True)):
        for kind, picture in zip(("input", "target"), pair, strict=True):
            Image.fromarray(np.asarray(picture)).save(work / f"{row}.{kind}.png")


def timed(step: Callable[[], None]) -> float:
    """Seconds one call takes."""
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def help_out(name: str, pairs: Path) -> None:
    """What a helper process does: its part of as many steps of ours as `compare` takes."""
    from models.torch_setup import prepare_torch

    die_with_parent()
    prepare_torch(int(os.environ["OMP_NUM_THREADS"]))
    block = load_params().student(name)
    inputs, targets, _ = open_or_make(pairs, block.pairs.size)
    with our_step(block, inputs, targets) as step:
        for _ in range(WARMUP + BLOCKS * STEPS):
            step()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tasks.bench_training")
    parser.add_argument("--student", required=True)
    parser.add_argument("--pairs", type=Path, required=True)
    asked = parser.parse_args()
    help_out(asked.student, asked.pairs)
