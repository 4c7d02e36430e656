"""What an edit changes: a direction in W, or what a text asks for by way of CLIP (StyleCLIP, Patashnik et al. 2021).

An edit takes a generator, which may be tuned to one photo, and its latent, and gives the edited picture. `strength` 0
is the picture as it is.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from models.errors import UserError
from models.teachers.stylegan2.clip import Clip
from models.teachers.stylegan2.network import Generator

RATE_UP = 0.05  # share of the optimisation's steps in which its learning rate rises


class Edit(Protocol):
    """Anything that changes a latent's picture."""

    def __call__(self, generator: Generator, w: torch.Tensor, strength: float) -> torch.Tensor:
        """w (B,num_ws,w_dim) -> (B,3,R,R), meant to lie in [-1,1]."""
        ...


@dataclass(frozen=True, slots=True)
class Direction:
    """w + strength * direction; the direction is (w_dim,) or (num_ws,w_dim)."""

    direction: torch.Tensor

    def __call__(self, generator: Generator, w: torch.Tensor, strength: float) -> torch.Tensor:
        """As Edit says."""
        with torch.no_grad():
            return generator(w + strength * self.direction)


def read_direction(path: Path, generator: Generator) -> Direction:
    """A direction from a .npy file; a UserError for one that does not fit the generator."""
    shapes = [(generator.w_dim,), (generator.num_ws, generator.w_dim)]
    try:
        found = np.load(path, allow_pickle=False)
        values = torch.from_numpy(found.astype(np.float32))
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise UserError(f"{path} holds no direction ({error}): numpy.save an array of numbers") from None
    if tuple(values.shape) not in shapes or not values.isfinite().all():
        raise UserError(
            f"{path}: a direction of shape {shapes[0]} or {shapes[1]} is wanted, finite; it is {found.shape}"
        )
    return Direction(values.to(generator.mapping.w_avg))


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentOptimisation:
    """The latent that CLIP finds nearest to a text, held near the photo's own (section 4).

    Optimised anew for every picture. Of strength other than 1, so much of the way there.
    """

    clip: Clip
    text: torch.Tensor  # (D,)
    steps: int
    learning_rate: float
    stay: float  # weight of the squared distance from the photo's latent

    def __call__(self, generator: Generator, w: torch.Tensor, strength: float) -> torch.Tensor:
        """As Edit says; the rows of a batch do not feel each other."""
        moved = w.clone().requires_grad_()
        optimiser = torch.optim.Adam([moved], lr=self.learning_rate)
        for step in range(self.steps):
            for group in optimiser.param_groups:
                group["lr"] = self.learning_rate * min(1.0, (step + 1) / max(1, round(RATE_UP * self.steps)))
            likeness = self.clip.pictures(generator(moved)) @ self.text
            loss = ((1 - likeness) + self.stay * (moved - w).square().sum(dim=(1, 2))).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return Direction((moved - w).detach())(generator, w, strength)


@dataclass(frozen=True, slots=True, kw_only=True)
class GlobalDirection:
    """One direction in the space of styles for all pictures (section 6), from what every style channel does to CLIP.

    `change` has a row of channels for each style layer, in that layer's standard deviations; toRGB's stay 0.
    """

    change: list[torch.Tensor]  # (I,) for each style layer

    def __call__(self, generator: Generator, w: torch.Tensor, strength: float) -> torch.Tensor:
        """As Edit says."""
        with torch.no_grad():
            styles = generator.synthesis.styles(generator.broadcast(w))
            moved = [style + strength * change for style, change in zip(styles, self.change, strict=True)]
            return generator.synthesis.render(moved)
