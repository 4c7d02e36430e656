"""What each style channel does to CLIP, and the global direction of a text from it (StyleCLIP, section 6).

Measured once for a generator and a CLIP: for a number of samples every channel is moved up and down, and the change of
CLIP's embedding is averaged. Costs 2 * samples * channels pictures: minutes for a small generator on a processor, hours
on a GPU for one of 1024 pixels.
"""

import torch
from torch.nn import functional

from models.teachers.stylegan2.clip import Clip
from models.teachers.stylegan2.edits import GlobalDirection
from models.teachers.stylegan2.network import Generator

MOVED = 5.0  # standard deviations, up and down
SPREAD_SAMPLES = 2000
PSI = 0.7  # truncation of the samples


def layer_kinds(generator: Generator) -> list[bool]:
    """For each style layer, in the order of Synthesis.styles, whether it is a convolution (and not toRGB)."""
    blocks = generator.synthesis.blocks()
    return [one for block in blocks for one in [*(True for _ in block.convolutions()), False]]


def sample_styles(generator: Generator, count: int, seed: int) -> list[torch.Tensor]:
    """The styles of `count` samples, (count,I) for each style layer; always the same."""
    source = torch.Generator().manual_seed(seed)
    z = torch.randn(count, generator.z_dim, generator=source).to(generator.mapping.w_avg)
    return generator.synthesis.styles(generator.broadcast(generator.truncated(z, PSI)))


def deviations_of(generator: Generator) -> list[torch.Tensor]:
    """How much each style channel varies, (I,) for each style layer."""
    return [each.std(dim=0) for each in sample_styles(generator, SPREAD_SAMPLES, seed=1)]


@torch.no_grad()
def channel_effects(generator: Generator, clip: Clip, samples: int) -> torch.Tensor:
    """(channels,D): the mean change of CLIP's embedding when a convolution's style channel is moved, of length 1 each.

    Channels of all convolutions, one after the other. A channel that changes nothing has a row of zeros.
    """
    deviations = deviations_of(generator)
    styles = sample_styles(generator, samples, seed=2)
    effects = []
    for layer, is_convolution in enumerate(layer_kinds(generator)):
        for channel in range(styles[layer].shape[1]) if is_convolution else ():
            seen = []
            for sign in (1, -1):
                moved = styles[layer].clone()
                moved[:, channel] += sign * MOVED * deviations[layer][channel]
                pictures = generator.synthesis.render([*styles[:layer], moved, *styles[layer + 1 :]])
                seen.append(clip.pictures(pictures))
            each = functional.normalize(seen[0] - seen[1], dim=1)
            effects.append(functional.normalize(each.mean(dim=0), dim=0))
    return torch.stack(effects)


def global_direction(
    generator: Generator, effects: torch.Tensor, towards: torch.Tensor, neutral: torch.Tensor, beta: float
) -> GlobalDirection:
    """The direction from one text (D,) to another: channels whose effect agrees with it, others left alone.

    `beta` is the least agreement, between 0 and 1, of a channel that is moved. The strongest is moved by one standard
    deviation at strength 1. With a beta above all channels' agreement nothing moves.
    """
    agreement = effects @ functional.normalize(towards - neutral, dim=0)  # (channels,)
    kept = torch.where(agreement.abs() >= beta, agreement, torch.zeros_like(agreement))
    kept = kept / kept.abs().max().clamp(min=1e-12)
    deviations = deviations_of(generator)
    change, at = [], 0
    for deviation, is_convolution in zip(deviations, layer_kinds(generator), strict=True):
        if is_convolution:
            change.append(kept[at : at + len(deviation)] * deviation)
            at += len(deviation)
        else:
            change.append(torch.zeros_like(deviation))
    return GlobalDirection(change=change)
