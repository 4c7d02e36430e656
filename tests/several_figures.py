"""What a student forgets, with and without replay; what an assistant and an earlier self are worth. A table.

Command: python tests/several_figures.py PAIRS OTHER_PAIRS OUT [STEPS CROP]

PAIRS and OTHER_PAIRS are curated pairs of two teachers on the same inputs, as in data/students/NAME/pairs. Each student
is trained for STEPS (200) steps by the recipe of params.yaml but for its crops of CROP (64) pixels, on one thread, from
ROWS of the training pairs, and measured on TESTED of the test pairs: the share of the teacher's change that it
explains. Finished students are kept in OUT.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from accelerate import Accelerator
from accelerate.utils import set_seed

from models.batches import Batches, Replay, open_pairs
from models.students import build_student, load_student
from models.teachers.folders import folder_sha256
from models.teachers.student import StudentTeacher
from models.terms import Pictures
from models.torch_setup import prepare_torch
from models.training import begin, run
from models.validation import on_pairs, validate
from tasks.learning import make_recipe, publish
from tasks.params import load_params

ROWS, TESTED = 500, 48
BIG = {"encoder": "patches2_32_64_128_192", "decoder_channels": [128, 64, 32]}
Pixels = npt.NDArray[np.uint8]
Pairs = tuple[Pixels, Pixels]


@dataclass(frozen=True, slots=True)
class Bench:
    """Where finished students lie, and how long each learns."""

    out: Path
    steps: int
    crop: int

    def learn(self, name: str, pairs: Pairs, *, init: str = "", replay: Replay | None = None, big: bool = False) -> str:
        """Train a student, from the weights of `init` if that is named; returns its name."""
        if (self.out / name).exists():
            return name
        params = load_params()
        block = params.student("oil")
        architecture = block.architecture.model_dump() | (BIG if big else {})
        set_seed(0)
        student = load_student(self.out / init) if init else build_student(architecture, block.pairs.size)
        recipe = make_recipe(
            params, block.model_copy(update={"train": block.train.model_copy(update={"steps": self.steps})})
        )
        batches = Batches(*pairs, batch_size=block.train.batch_size, crop=self.crop, seed=0, replay=replay)
        training = begin(student, recipe, [Pictures(block.train.losses)])
        checkpoint = self.out / f"{name}.checkpoint.safetensors"
        few = pairs[0][:4], pairs[1][:4]  # the validation in between is not what is told
        trained = run(training, batches, on_pairs(few), recipe, Accelerator(cpu=True), checkpoint, lambda *_: None)
        checkpoint.unlink()
        publish(self.out / name, trained, {"architecture": architecture, "size": block.pairs.size}, training.curve)
        return name

    def explained(self, name: str, pairs: Pairs) -> float:
        """Of the change in these pairs, by a student."""
        import torch

        return validate(load_student(self.out / name), *pairs, torch.device("cpu"))["val_explained_effect"]

    def painted(self, name: str, inputs: Pixels) -> npt.NDArray[np.float32]:
        """What a student makes of the inputs, in [0,1], as a teacher."""
        kept = self.out / f"{name}.npy"
        if not kept.exists():
            folder = self.out / name
            teacher = StudentTeacher(path=str(folder), sha256=folder_sha256(folder), name=name, version=1)
            np.save(kept, teacher(inputs, [0] * len(inputs)))
        return np.load(kept)

    def told(self, what: str, name: str, *tests: Pairs) -> None:
        """A row of the table."""
        print(f"| {what} | " + " | ".join(f"{self.explained(name, test):.3f}" for test in tests) + " |", flush=True)


def rows(pairs: Pairs, count: int) -> Pairs:
    """So many of the pairs, spread over all, in memory."""
    chosen = np.linspace(0, len(pairs[0]) - 1, count).astype(np.intp)
    return np.asarray(pairs[0][chosen]), np.asarray(pairs[1][chosen])


def by_brightness(pairs: Pairs, middle: float) -> tuple[Pairs, Pairs]:
    """The pairs whose inputs are darker than `middle` in the mean, and the others."""
    bright = pairs[0].mean(axis=(1, 2, 3)) >= middle
    return (pairs[0][~bright], pairs[1][~bright]), (pairs[0][bright], pairs[1][bright])


def mixed(inputs: Pixels, targets: Pixels, painted: npt.NDArray[np.float32], share: float) -> Pairs:
    """Pairs of a teacher, of which `share` of each pixel is what a student painted."""
    values = (1 - share) * targets + share * 255 * painted
    return inputs, np.rint(values).astype(np.uint8)


def main(first: Path, second: Path, out: Path, steps: int, crop: int) -> None:
    """Print the three tables."""
    prepare_torch(1)
    bench = Bench(out, steps, crop)
    one, other = (rows(open_pairs(folder, "train"), ROWS) for folder in (first, second))
    ours, theirs = (rows(open_pairs(folder, "test"), TESTED) for folder in (first, second))
    print("| taught | the first | the second |\n|---|---|---|")
    bench.told("first", bench.learn("first", one), ours, theirs)
    for share in (0.0, 0.25):
        name = bench.learn(f"second-{share}", other, init="first", replay=Replay(*one, share))
        bench.told(f"first, then second, replay {share:g}", name, ours, theirs)

    middle = float(np.median(one[0].mean(axis=(1, 2, 3))))
    (dark, bright), tests = by_brightness(one, middle), by_brightness(ours, middle)
    print(f"\n| taught | dark ({len(tests[0][0])}) | bright ({len(tests[1][0])}) |\n|---|---|---|")
    bench.told("dark", bench.learn("dark", dark), *tests)
    for share in (0.0, 0.25):
        name = bench.learn(f"bright-{share}", bright, init="dark", replay=Replay(*dark, share))
        bench.told(f"dark, then bright, replay {share:g}", name, *tests)
    both = Bench(out, 2 * steps, crop).learn("both", one)
    bench.told("both at once, for as long as one after the other", both, *tests)

    print("\n| taught by | explained |\n|---|---|")
    bench.told("the teacher", "first", ours)
    bench.told("(assistant: twice as wide, by the teacher)", bench.learn("big", one, big=True), ours)
    longer = Bench(out, 3 * steps, crop).learn("big-longer", one, big=True)
    bench.told("(assistant, three times as long)", longer, ours)
    assistants = (("big", "the assistant"), (longer, "the assistant that learnt longer"))
    for whose, label in (*assistants, ("first", "its earlier self")):
        painted = bench.painted(whose, one[0])
        for share, how in ((1.0, label), (0.5, f"half the teacher, half {label}")):
            bench.told(how, bench.learn(f"by-{whose}-{share}", mixed(*one, painted, share)), ours)


if __name__ == "__main__":
    steps, crop = (int(word) for word in sys.argv[4:6] or ("200", "64"))
    main(*(Path(word) for word in sys.argv[1:4]), steps, crop)
