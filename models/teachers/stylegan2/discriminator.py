"""The discriminator of StyleGAN2 (Karras et al. 2020, residual), for training a generator of one's own."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from models.teachers.stylegan2.operations import Conv, Linear, leaky

GROUP = 4  # pictures whose spread is told to the last layer


class Block(nn.Module):
    """Halves the size: two convolutions beside a straight 1x1 one."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv0 = Conv(inputs, inputs, 3)
        self.conv1 = Conv(inputs, outputs, 3, down=True)
        self.skip = Conv(inputs, outputs, 1, bias=False, down=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B,inputs,H,W) -> (B,outputs,H/2,W/2)."""
        y = leaky(self.conv1(leaky(self.conv0(x))), gain=1.0)  # sqrt(2) for the ReLU, sqrt(1/2) for the sum
        return y + self.skip(x) * math.sqrt(0.5)


class Discriminator(nn.Module):
    """(B,3,R,R) in [-1,1] -> (B,) how real; `channels` as the generator's, from 4x4 up."""

    def __init__(self, *, channels: Sequence[int]) -> None:
        super().__init__()
        down = list(reversed(channels))
        self.fromrgb = Conv(3, down[0], 1)
        self.blocks = nn.Sequential(*(Block(a, b) for a, b in pairwise(down)))
        last = down[-1]
        self.conv = Conv(last + 1, last, 3)
        self.fc = Linear(last * 16, last)
        self.out = Linear(last, 1)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Judge a batch; its size is a multiple of GROUP, or below it."""
        x = self.blocks(leaky(self.fromrgb(pictures)))
        x = leaky(self.conv(torch.cat([x, spread(x)], dim=1)))
        return self.out(leaky(self.fc(x.flatten(1)))).squeeze(1)


def spread(x: torch.Tensor) -> torch.Tensor:
    """(B,C,H,W) -> (B,1,H,W): the mean standard deviation within groups of the batch (Karras et al. 2018)."""
    batch, _, height, width = x.shape
    groups = x.reshape(min(GROUP, batch), -1, *x.shape[1:])
    deviation = (groups.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))  # (B/GROUP,)
    return deviation.repeat(batch // len(deviation)).reshape(batch, 1, 1, 1).expand(-1, -1, height, width)
