"""What a student is taught by: terms, each of which adds parts to the loss of a step.

A term sees the batch, what the student made of it and, by module path, what the student held inside; it knows nothing
of the loop. One may have weights of its own: adapters, that learn with the student, or an adversary, that learns after
it. `share_of_gradient` says which of the parts moved the student.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from models.errors import UserError
from models.losses import LOSSES


@dataclass(frozen=True, slots=True)
class Part:
    """A named share of the loss: its value, a scalar with a gradient, and what it weighs."""

    weight: float
    value: Tensor


@dataclass(slots=True, kw_only=True)
class Look:
    """What a term sees of a step."""

    student: nn.Module
    inputs: Tensor
    targets: Tensor
    output: Tensor  # student(inputs, *controls)
    step: int
    share: float  # of the training that lies behind, in [0,1)
    controls: tuple[Tensor, ...] = ()  # what the student takes besides, each (B,)
    about: Mapping[str, Tensor] = field(default_factory=dict)  # of the batch, by name: labels, rows
    inner: Mapping[str, Tensor] = field(default_factory=dict)  # what the student's modules gave, by `Term.paths`
    parts: Mapping[str, Part] = field(default_factory=dict)  # of the terms before this one


class Term(nn.Module):
    """A part of what a student is taught by; `paths` are the modules of the student that it wants the output of."""

    paths: tuple[str, ...] = ()
    compiles = False  # whether it does the same at every step, so that compiling it pays

    def forward(self, look: Look) -> dict[str, Part]:
        """The parts of the loss by name; none is as good as a weight of 0."""
        raise NotImplementedError

    def beside(self) -> list[nn.Parameter]:
        """Weights of its own that learn with the student's, by the same loss."""
        return []

    def optimisers(self) -> dict[str, Optimizer]:
        """What its other weights learn by, to be kept in checkpoints."""
        return {}

    def learn(self, look: Look, rate: float) -> Iterator[list[nn.Parameter]]:
        """Once the student has moved: leave gradients on weights of its own, yield these, and move them after.

        `rate` is the share of the full learning rate that the student has at this step.
        """
        yield from ()


class Pictures(Term):
    """The losses of models/losses.py between the student's pictures and the teacher's, by name and weight."""

    compiles = True

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.weights = dict(weights)

    def forward(self, look: Look) -> dict[str, Part]:
        """One part a loss; those of weight 0 are not computed."""
        return {
            name: Part(weight, LOSSES[name](look.output, look.targets))
            for name, weight in self.weights.items()
            if weight
        }


def total(parts: Mapping[str, Part]) -> Tensor:
    """The loss: the weighted sum of its parts."""
    return torch.stack([part.weight * part.value for part in parts.values()]).sum()


@contextmanager
def inner_outputs(network: nn.Module, paths: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """While open, what the modules at `paths` gave in the network's last pass, the last where they give several."""
    found: dict[str, Tensor] = {}

    def keep(path: str) -> Any:
        def hook(module: nn.Module, taken: Any, given: Any) -> None:
            if isinstance(given, Mapping):  # of transformers: the hidden states come first
                given = next(iter(given.values()))
            found[path] = given[-1] if isinstance(given, list | tuple) else given

        return hook

    handles = [find_module(network, path).register_forward_hook(keep(path)) for path in dict.fromkeys(paths)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def find_module(network: nn.Module, path: str) -> nn.Module:
    """The module at a dotted path; UserError with the nearest paths where there is none."""
    from difflib import get_close_matches

    modules = dict(network.named_modules())
    if path in modules and path:
        return modules[path]
    near = get_close_matches(path, modules, n=4, cutoff=0.0)
    raise UserError(f"no module {path!r} in the network; near: {', '.join(near)}")


def share_of_gradient(parts: Mapping[str, Part], weights: Sequence[nn.Parameter]) -> dict[str, float]:
    """Of the norms of the parts' gradients on `weights`, the share of each part; they sum to 1.

    Costs a backward pass a part. Parts that pull in opposite directions both count in full.
    """
    norms = {}
    for name, part in parts.items():
        if not (part.weight and part.value.requires_grad):
            norms[name] = 0.0
            continue
        found = torch.autograd.grad(part.weight * part.value, weights, retain_graph=True, allow_unused=True)
        norms[name] = float(torch.stack([one.norm() for one in found if one is not None] or [torch.zeros(())]).norm())
    whole = sum(norms.values())
    return {name: norm / whole if whole else 0.0 for name, norm in norms.items()}
