"""From a photograph to the generator's space: projection into W or W+, then pivotal tuning.

Projection optimises a latent and the noise maps (Karras et al. 2020, appendix D). Pivotal tuning (PTI, Roich et al.
2021) then holds the latent and tunes the generator until it draws this very picture there, so that a face stays the
same person when it is edited. Defaults: 450 and up to 350 steps, learning rate 3e-4, stop at LPIPS 0.06.
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.nn import functional

from models.teachers.stylegan2.network import Generator
from models.teachers.stylegan2.perceptual import Distance

SPREAD_SAMPLES = 10_000
WANDER, WANDER_UNTIL = 0.05, 0.75  # noise on w, in its standard deviations, falling to 0 at this share of the steps
RATE_UP, RATE_DOWN = 0.05, 0.25  # shares of the steps in which the learning rate rises and falls


@dataclass(frozen=True, slots=True, kw_only=True)
class Inversion:
    """What inversion is told."""

    space: str  # "w" or "w+"
    steps: int
    learning_rate: float
    noise_weight: float  # of the noise maps' smoothness, which keeps the picture out of them
    tuning_steps: int
    tuning_rate: float
    pixel: float  # weight of the mean squared error of values in [-1,1]
    perceptual: float  # weight of the perceptual distance
    stop: float  # tuning ends at this perceptual distance


def spread(generator: Generator) -> float:
    """The root mean square distance of w from its mean, from samples that are always the same."""
    source = torch.Generator().manual_seed(0)
    z = torch.randn(SPREAD_SAMPLES, generator.z_dim, generator=source).to(generator.mapping.w_avg)
    w = generator.mapping(z)
    return float((w - generator.mapping.w_avg).square().sum(dim=1).mean().sqrt())


def project(
    generator: Generator, picture: torch.Tensor, told: Inversion, distance: Distance, deviation: float
) -> torch.Tensor:
    """The latent (1,num_ws,w_dim) whose picture is nearest to `picture` (1,3,R,R) in [-1,1]; equal rows in W.

    `deviation` is what `spread` says of the generator.
    """
    source = torch.Generator().manual_seed(0)  # the same photo gives the same latent, whatever came before it
    rows = generator.num_ws if told.space == "w+" else 1
    w = generator.mapping.w_avg.repeat(1, rows, 1).requires_grad_()
    noise = [
        torch.randn(layer.noise_const.shape, generator=source).to(w) for layer in generator.synthesis.convolutions()
    ]
    for each in noise:
        each.requires_grad_()
    optimiser = torch.optim.Adam([w, *noise], lr=told.learning_rate)
    for step in range(told.steps):
        done = step / told.steps
        for group in optimiser.param_groups:
            group["lr"] = told.learning_rate * _rate(done)
        scale = WANDER * deviation * max(0.0, 1 - done / WANDER_UNTIL) ** 2
        jitter = torch.randn(w.shape, generator=source).to(w) * scale
        made = generator((w + jitter).expand(-1, generator.num_ws, -1), noise)
        loss = _difference(made, picture, told, distance) + told.noise_weight * roughness(noise)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            for each in noise:
                each.copy_((each - each.mean()) / each.std())
    return w.detach().expand(-1, generator.num_ws, -1).contiguous()


def _rate(done: float) -> float:
    """The learning rate's share at a share of the steps: up in a line, down along a cosine."""
    fall = min(1.0, (1 - done) / RATE_DOWN)
    return (0.5 - 0.5 * math.cos(fall * math.pi)) * min(1.0, done / RATE_UP)


def roughness(noise: list[torch.Tensor]) -> torch.Tensor:
    """How alike neighbours in the noise maps are, at every scale down to 8x8; 0 for white noise."""
    total = noise[0].new_zeros(())
    for each in noise:
        level = each[None, None]
        while True:
            for axis in (2, 3):
                total = total + (level * level.roll(1, axis)).mean().square()
            if level.shape[-1] <= 8:
                break
            level = functional.avg_pool2d(level, 2)
    return total


def _difference(made: torch.Tensor, picture: torch.Tensor, told: Inversion, distance: Distance) -> torch.Tensor:
    loss = made.new_zeros(())
    if told.pixel:
        loss = loss + told.pixel * functional.mse_loss(made, picture)
    if told.perceptual:
        loss = loss + told.perceptual * distance(made, picture).mean()
    return loss


def tune(
    generator: Generator, w: torch.Tensor, picture: torch.Tensor, told: Inversion, distance: Distance
) -> dict[str, torch.Tensor]:
    """What to add to the synthesis weights so that w draws `picture`: by name, in half precision.

    Half precision and the difference alone, so that it can be kept for every photo of a collection.
    """
    synthesis = copy.deepcopy(generator.synthesis).train().requires_grad_()
    styled = w.detach()
    optimiser = torch.optim.Adam(synthesis.parameters(), lr=told.tuning_rate)
    for _ in range(told.tuning_steps):
        made = synthesis.render(synthesis.styles(styled))
        apart = distance(made, picture).mean()
        if float(apart.detach()) <= told.stop:
            break
        loss = told.pixel * functional.mse_loss(made, picture) + told.perceptual * apart
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    before = dict(generator.synthesis.named_parameters())
    return {name: (value.detach() - before[name]).half() for name, value in synthesis.named_parameters()}


def tuned(generator: Generator, change: Mapping[str, torch.Tensor]) -> Generator:
    """A copy of the generator with what `tune` found."""
    copied = copy.deepcopy(generator)
    with torch.no_grad():
        for name, value in copied.synthesis.named_parameters():
            if name in change:
                value.add_(change[name].to(value))
    return copied
