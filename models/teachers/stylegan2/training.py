"""The losses StyleGAN2 is trained with (Karras et al. 2020): non-saturating logistic, R1 and path length, both lazy."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from models.teachers.stylegan2.discriminator import Discriminator
from models.teachers.stylegan2.network import Generator

MIXING = 0.9  # share of the pictures that are drawn from two latents
W_AVERAGE = 0.998  # of the mean latent, per step
PATH_DECAY = 0.01


def latents(generator: Generator, count: int, source: torch.Generator) -> Tensor:
    """(count,num_ws,w_dim) of random z, most of them with another latent from a random layer on (style mixing)."""
    z = torch.randn(2 * count, generator.z_dim, generator=source).to(generator.mapping.w_avg)
    w = generator.mapping(z)
    with torch.no_grad():
        generator.mapping.w_avg.lerp_(w.mean(dim=0), 1 - W_AVERAGE)
    first, second = (generator.broadcast(half) for half in w.chunk(2))
    cut = torch.randint(1, generator.num_ws, (count, 1, 1), generator=source)
    cut = torch.where(torch.rand(count, 1, 1, generator=source) < MIXING, cut, generator.num_ws)
    layer = torch.arange(generator.num_ws).reshape(1, -1, 1)
    return torch.where((layer < cut).to(first.device), first, second)


def draw(generator: Generator, ws: Tensor, source: torch.Generator) -> Tensor:
    """Pictures (B,3,R,R) of latents, with fresh noise in every layer."""
    sizes = [layer.noise_const.shape[0] for layer in generator.synthesis.convolutions()]
    noise = [torch.randn(len(ws), 1, size, size, generator=source).to(ws) for size in sizes]
    return generator(ws, noise)


def generator_loss(generator: Generator, judge: Discriminator, count: int, source: torch.Generator) -> Tensor:
    """What the generator learns of the discriminator."""
    return functional.softplus(-judge(draw(generator, latents(generator, count, source), source))).mean()


def judge_loss(generator: Generator, judge: Discriminator, real: Tensor, source: torch.Generator) -> Tensor:
    """What the discriminator learns of real and drawn pictures."""
    with torch.no_grad():
        drawn = draw(generator, latents(generator, len(real), source), source)
    return functional.softplus(judge(drawn)).mean() + functional.softplus(-judge(real)).mean()


def gradient_penalty(judge: Discriminator, real: Tensor) -> Tensor:
    """R1 (Mescheder et al. 2018): half the squared gradient at real pictures, to be weighted by gamma."""
    real = real.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(judge(real).sum(), real, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean() / 2


def path_length_penalty(generator: Generator, count: int, mean: Tensor, source: torch.Generator) -> Tensor:
    """How unequally far a step in W leads in pixels; `mean` (), the usual length, is moved along."""
    ws = latents(generator, count, source)
    pictures = draw(generator, ws, source)
    direction = torch.randn(pictures.shape, generator=source).to(pictures) / math.sqrt(pictures[0, 0].numel())
    (gradient,) = torch.autograd.grad((pictures * direction).sum(), ws, create_graph=True)
    lengths = gradient.square().sum(dim=2).mean(dim=1).sqrt()
    mean.lerp_(lengths.detach().mean(), PATH_DECAY)
    return (lengths - mean).square().mean()


def step(optimiser: torch.optim.Optimizer, loss: Any) -> float:
    """One step along a loss; its value."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    return float(loss.detach())
