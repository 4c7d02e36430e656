"""Small classifiers of pictures and texts, a source of batches for them, and looks at a step."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from models.batches import Batch
from models.terms import Look, Term, inner_outputs
from models.training import Recipe, Training, begin, resume, run

CLASSES, EXAMPLES = 4, 24


def pictures_net(width: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, stride=2), nn.BatchNorm2d(width), nn.ReLU())
    parts = {"stem": stem, "block": nn.Conv2d(width, width, 3, padding=1), "pool": nn.AdaptiveAvgPool2d(1)}
    return nn.Sequential(OrderedDict(parts | {"flat": nn.Flatten(), "head": nn.Linear(width, CLASSES)}))


class Layer(nn.Module):
    """Gives its states as transformers' encoders do: in a mapping."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inside = nn.Linear(width, width)

    def forward(self, states: Tensor) -> OrderedDict[str, Tensor]:
        return OrderedDict(last_hidden_state=self.inside(states).tanh())


class TextsNet(nn.Module):
    def __init__(self, width: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(11, width)
        self.layer = Layer(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        states = self.layer(self.embedding(tokens))["last_hidden_state"]
        kept = mask[..., None].float()
        said: Tensor = self.head((states * kept).sum(1) / kept.sum(1))
        return said


def tokens(count: int = 5) -> tuple[Tensor, Tensor]:
    """Ids (B,6) and a mask that leaves out the last two of the first."""
    ids = torch.randint(0, 11, (count, 6), generator=torch.Generator().manual_seed(4))
    mask = torch.ones(count, 6, dtype=torch.int64)
    mask[0, 4:] = 0
    return ids, mask


class Source:
    """Batches of the examples in turn, with what a classifier's pairs say of them."""

    def __init__(self, batch_size: int = 6) -> None:
        random = torch.Generator().manual_seed(8)
        self.batch_size = batch_size
        self.labels = torch.arange(EXAMPLES) % CLASSES
        self.inputs = torch.rand(EXAMPLES, 3, 8, 8, generator=random) + 0.2 * self.labels.view(-1, 1, 1, 1)
        teacher = pictures_net(12, 90).eval()
        with torch.no_grad(), inner_outputs(teacher, ["flat"]) as found:
            self.logits = 3 * teacher(self.inputs) + 4 * nn.functional.one_hot(self.labels, CLASSES)
        self.pooled = found["flat"]

    def batch(self, step: int, share: slice = slice(None)) -> tuple[Tensor, ...]:
        rows = (torch.arange(self.batch_size) + step * self.batch_size)[share] % EXAMPLES
        return self.inputs[rows], self.logits[rows], self.labels[rows], rows, self.pooled[rows]

    raw = batch

    def made_of(self, raw: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return raw

    def parts(self, batch: tuple[Tensor, ...]) -> Batch:
        inputs, targets, *about = batch
        names = ("labels", "rows", "pooled")
        return Batch(inputs=inputs, targets=targets, about=dict(zip(names, about, strict=True)))

    def one(self, step: int = 0) -> Batch:
        return self.parts(self.batch(step))


def look_at(student: nn.Module, batch: Batch, *paths: str, step: int = 0, share: float = 0.5, **more: Any) -> Look:
    with inner_outputs(student, paths) as inner:
        output = student(batch.inputs, *batch.controls)
    settings = {"targets": batch.targets, "about": batch.about, "output": output.float()} | more
    return Look(
        student=student,
        inputs=batch.inputs,
        controls=batch.controls,
        inner=dict(inner),
        step=step,
        share=share,
        **settings,
    )


def recipe(steps: int = 8, rate: float = 0.05) -> Recipe:
    return Recipe(
        steps=steps,
        learning_rate=rate,
        weight_decay=5e-4,
        warmup_steps=1,
        ema_decay=0.9,
        checkpoint_every=3,
        validate_every=4,
        optimizer="sgd",
        milestones=(0.75,),
    )


def train(
    folder: Path,
    student: nn.Module,
    terms: list[Term],
    *,
    steps: int = 8,
    stop_after: int = 0,
    rate: float = 0.05,
) -> Training:
    settings = recipe(steps, rate)
    training = begin(student, settings, terms)
    resume(training, folder / "checkpoint.safetensors")

    def show(training: Training, line: Any) -> None:
        if training.step == stop_after:
            raise KeyboardInterrupt

    def check(network: nn.Module, device: torch.device) -> dict[str, float]:
        return {}

    run(training, Source(), check, settings, Accelerator(cpu=True), folder / "checkpoint.safetensors", show)
    return training


def assert_same(whole: Training, parts: Training) -> None:
    """The same bits, whether it was stopped or not."""
    assert whole.curve == parts.curve and len(whole.curve) > 1
    for one, other in ((whole.student, parts.student), (whole.average, parts.average), (whole.terms, parts.terms)):
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name
