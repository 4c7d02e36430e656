"""What kept answers save: steps of training on the logits kept with the pairs, beside steps that ask the teacher first.

Both are steps of models/training.py with the block's own losses, student and batches, in one process, in turn. The
second asks the teacher's network about each batch, without gradient and in eval mode, in the memory order in which the
student learns; nothing else differs. Beside samples a second it tells the share of a step that is spent waiting for the
next batch. Writes OUT (default: data/bench-answers.json).

Command: python -m tasks.classification.bench_answers --student NAME [--steps 40] [--out FILE]
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import median, quantiles

from models.errors import UserError
from tasks.classification.params import Classifier
from tasks.classification.taught import LabelPairs, find_taken, first, make_batches, open_pairs
from tasks.classification.train import make_recipe, make_terms
from tasks.files import write_json
from tasks.machine_state import machine
from tasks.params import ClassifierBlock, Params, load_params
from tasks.stage import STUDENTS, guarded

OUT = Path("data/bench-answers.json")
WARMUP = 3
Step = Callable[[], tuple[float, float]]  # one more step: seconds waited for its batch, seconds in all


def bench(name: str, steps: int, out: Path) -> None:
    """Time `steps` steps of each, print what came of it and write `out`."""
    from models.torch_setup import prepare_torch

    params = load_params()
    block = params.block(name)
    if not isinstance(block, ClassifierBlock):
        raise UserError(f"{name} is no classifier; there are: {', '.join(params.classifiers) or 'none'}")
    prepare_torch(params.train.threads)
    pairs = open_pairs(STUDENTS / name, block.dataset)
    with ExitStack() as stack:
        each = [stack.enter_context(stepping(params, block, pairs, asks=asks)) for asks in (False, True)]
        for _ in range(WARMUP):
            for step in each:
                step()
        rows = [[step() for step in each] for _ in range(steps)]
    kept, asked = (figures([row[place] for row in rows], block.train.batch_size) for place in (0, 1))
    low, middle, high = quantiles([row[1][1] / row[0][1] for row in rows], n=4)
    about = {"student": name, "steps": steps, "threads": params.train.threads, "machine": machine()}
    write_json(out, about | {"kept": kept, "asked": asked, "times_as_fast": middle, "quartiles": [low, high]})
    print(
        f"kept answers: {kept['samples_per_s']:.0f} samples/s, the teacher asked in every step: "
        f"{asked['samples_per_s']:.0f}: {middle:.2f} times as fast ({low:.2f} to {high:.2f}); waiting for batches "
        f"{kept['waiting']:.2%} of a step"
    )


def figures(times: Sequence[tuple[float, float]], batch_size: int) -> dict[str, float]:
    """What some steps took, each seconds waited and seconds in all."""
    waits, seconds = zip(*times, strict=True)
    middle = median(seconds)
    return {"samples_per_s": batch_size / middle, "step_ms": 1000 * middle, "waiting": sum(waits) / sum(seconds)}


@contextmanager
def stepping(params: Params, block: Classifier, pairs: LabelPairs, *, asks: bool) -> Iterator[Step]:
    """While open, a training of the block by single steps; with `asks` the teacher answers each batch anew."""
    import torch
    from accelerate import Accelerator
    from accelerate.utils import set_seed

    from models.classification.teachers import load_teacher
    from models.training import ahead, begin, train_step

    teacher = cache(lambda: load_teacher(block.teacher.model_dump()))
    network = teacher().network
    if network is None:
        raise UserError(f"teacher {block.teacher.name}: it has no network of its own that could run in every step")
    set_seed(block.train.seed)
    taken = find_taken(block, pairs, teacher)
    student, _ = first(block, pairs, taken, teacher)
    batches, recipe = make_batches(pairs, block, taken), make_recipe(params, block)
    accelerator = Accelerator()
    training = begin(student, recipe, make_terms(block, pairs, student, taken, batches, recipe, teacher))
    training.student.train()
    with ahead(batches, 0, slice(None), accelerator.device) as following:

        def step() -> tuple[float, float]:
            began = time.perf_counter()
            batch = next(following)
            waited = time.perf_counter() - began
            if asks:
                with torch.no_grad():
                    batch = replace(batch, targets=network(batch.inputs, *batch.controls))
            train_step(training, batch, recipe, accelerator)
            return waited, time.perf_counter() - began

        yield step


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tasks.classification.bench_answers")
    parser.add_argument("--student", required=True, help="a name under `classifiers:` in params.yaml, curated")
    parser.add_argument("--steps", type=int, default=40, help="that are timed of each")
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    guarded("bench_answers", lambda: bench(asked.student, asked.steps, asked.out), asked.student)
