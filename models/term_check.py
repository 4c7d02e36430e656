"""Before a training: whether every part of the loss can teach the student anything.

One pass over one batch, with the student's weights moved a little, so that a part is not 0 only because the student
begins as its teacher or a layer begins at 0. Costs a pass and a backward one a part; leaves everything as it was.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from models.batches import Batch
from models.errors import UserError
from models.terms import Look, Part, Term, inner_outputs

MOVED = 0.1  # of the root mean square of a weight, and at least a tenth of that of a usual one
LATE = 0.999  # share of the training at which it looks: what is ramped in has its weight then


def check_terms(student: nn.Module, terms: Sequence[Term], batch: Batch) -> None:
    """Refuse, in one line that names it, a part that is always 0 or moves nothing that the student's output hangs on.

    Also a part of weight 0 or of a value that is no number, and a term without parts. Of pairs that are only partly
    labelled the batch is to have some that are. Student and terms must be on its device.
    """
    with as_before(student, *terms):
        _move(student)
        with inner_outputs(student.train(), [path for term in terms for path in term.paths]) as inner:
            output = student(batch.inputs, *batch.controls).float()
        look = Look(
            student=student,
            inputs=batch.inputs,
            targets=batch.targets,
            output=output,
            step=0,
            share=LATE,
            controls=batch.controls,
            about=batch.about,
            inner=dict(inner),
        )
        weights = [weight for weight in student.parameters() if weight.requires_grad]
        # A sum of random signs: a plain one of probabilities or normalised features is constant.
        matters = _reached((output * torch.randn_like(output)).sum(), weights)
        for term in terms:
            parts = _parts(term, look)
            for name, part in parts.items():
                _check(name, part, weights, matters)
            look.parts = {**look.parts, **parts}


def _parts(term: Term, look: Look) -> dict[str, Part]:
    for path in term.paths:
        if path not in look.inner:
            raise UserError(
                f"train.losses: module {path!r} of the student is not run when it answers: name another one"
            )
    parts = term.train()(look)
    if not parts:
        raise UserError(
            f"train.losses: {type(term).__name__} gives no part of the loss: give it a weight or leave it out"
        )
    return parts


def _check(name: str, part: Part, weights: list[nn.Parameter], matters: list[bool]) -> None:
    """One part; UserError says what is wrong with it."""

    def refuse(why: str) -> UserError:
        return UserError(f"train.losses: {name} {why}")

    value = float(part.value.detach())
    if part.weight == 0:
        raise refuse("has weight 0: it teaches nothing; give it a weight or leave it out")
    if not np.isfinite(value * part.weight):
        raise refuse(f"is {value} on the first batch: look for broken pairs or a teacher that is no number")
    if value == 0:
        raise refuse("is always 0: there is nothing to learn by it from these pairs (no labels, one sample or place?)")
    if not part.value.requires_grad:
        raise refuse("carries no gradient: it hangs on nothing that learns (a detached module?)")
    reached = _reached(part.value, weights)
    if not any(reached):
        raise refuse("carries no gradient to the student: it moves no weight of it (a detached or frozen module?)")
    if not any(both and it for both, it in zip(reached, matters, strict=True)):
        raise refuse("moves only weights that the student's output does not hang on: name a module on the way to it")


def _reached(value: Tensor, weights: list[nn.Parameter]) -> list[bool]:
    """Which of the weights it has a gradient on that is not 0."""
    if not value.requires_grad:
        return [False] * len(weights)
    found = torch.autograd.grad(value, weights, retain_graph=True, allow_unused=True)
    return [one is not None and bool(one.any()) for one in found]


@torch.no_grad()
def _move(student: nn.Module) -> None:
    """Every weight a little off, the same way at every call."""
    for number, weight in enumerate(student.parameters()):
        noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)).to(weight)
        weight += MOVED * (weight.square().mean().sqrt() + 0.1) * noise


@contextmanager
def as_before(*networks: nn.Module) -> Iterator[None]:
    """Weights, buffers, gradients, modes and random states are afterwards what they were."""
    tensors = {one for network in networks for one in (*network.parameters(), *network.buffers())}
    values = {one: one.detach().clone() for one in tensors}
    gradients = {one: (one.grad, None if one.grad is None else one.grad.clone()) for one in tensors if one.is_leaf}
    modes = {module: module.training for network in networks for module in network.modules()}
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            with torch.no_grad():
                for one, value in values.items():
                    if not torch.equal(one, value):
                        one.copy_(value)
            for one, (gradient, value) in gradients.items():
                one.grad = gradient if value is None or gradient is None else gradient.copy_(value)
            for module, training in modes.items():
                module.training = training
            random.setstate(states[0])
            np.random.set_state(states[1])
