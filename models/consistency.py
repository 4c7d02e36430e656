"""Steadiness in video without video: what moves in front of the student is to move in its picture, and no more.

The student is shown a part of the batch again, shifted by whole pixels, which loses nothing, and with the noise of a
sensor; its picture shifted back is to be the one it made at first (Eilertsen et al. 2019, with the transformation as
regulariser). Ramped in after the share `begin` of the training, as VToonify does (Yang et al. 2022): before, there is
little to be steady about.
"""

import torch
from torch import Tensor
from torch.nn import functional

from models.errors import UserError
from models.terms import Look, Part, Term

REACH = 5  # pixels; odd and even steps, as no stride divides them all
NOISE = 2 / 255  # standard deviation of what is added
PART = 2  # one in so many pictures is shown twice


class Consistency(Term):
    """Part "consistency": Charbonnier distance of the picture at rest to the one that moved, shifted back."""

    def __init__(self, *, weight: float, begin: float, seed: int) -> None:
        super().__init__()
        self.weight, self.begin, self.seed = weight, begin, seed

    def forward(self, look: Look) -> dict[str, Part]:
        """Nothing before `begin`; from there on the weight rises evenly to its full one at the end."""
        if look.share < self.begin:
            return {}
        if min(look.inputs.shape[-2:]) <= 4 * REACH:
            raise UserError(f"train.consistency moves pictures by up to {REACH} pixels: train.crop is too small for it")
        random = torch.Generator().manual_seed(hash_of(self.seed, look.step))
        down, right = torch.randint(-REACH, REACH + 1, (2,), generator=random).tolist()
        count = max(1, len(look.inputs) // PART)
        moved = shift(look.inputs[:count], down, right)
        noise = NOISE * torch.randn(moved.shape, generator=random).to(moved.device)
        again = look.student((moved + noise).clamp(0, 1), *(one[:count] for one in look.controls)).float()
        margin = 2 * REACH
        apart = inside(shift(again, -down, -right), margin) - inside(look.output[:count], margin)
        ramp = (look.share - self.begin) / (1 - self.begin)
        return {"consistency": Part(self.weight * ramp, (apart.square() + 1e-6).sqrt().mean())}


def hash_of(seed: int, step: int) -> int:
    """A seed for a step: the same in every process and every run."""
    return (seed * 1_000_003 + step * 7_919) % 2**63


def shift(pictures: Tensor, down: int, right: int) -> Tensor:
    """(B,C,H,W) moved by whole pixels; what comes in at the border mirrors what was there."""
    padded = functional.pad(pictures, (REACH, REACH, REACH, REACH), mode="reflect")
    top, left, (height, width) = REACH - down, REACH - right, pictures.shape[-2:]
    return padded[..., top : top + height, left : left + width]


def inside(pictures: Tensor, margin: int) -> Tensor:
    """(B,C,H,W) without its border."""
    return pictures[..., margin:-margin, margin:-margin]
