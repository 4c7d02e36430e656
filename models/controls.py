"""A student with a slider: the strength of the effect, from 0, the input as it is, to 1, the teacher's picture.

The strength does two things. It scales and shifts each channel of the decoder's blocks, between BatchNorm and ReLU6,
by what a small network makes of it (FiLM, Perez et al. 2018); and it blends what comes out with the input, so that 0 is
the input exactly. At a fixed strength the first is BatchNorm's own scale and shift: `bake` gives a plain student, to
which the blend is added where the strength is not full (docs/decisions/0016-controls.md).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from models.students import UNet

HIDDEN = 16
FULL = 1.0


class Film(nn.Module):
    """Scales and shifts of groups of channels by strength; 1 and 0 before training."""

    def __init__(self, groups: list[int]) -> None:
        super().__init__()
        self.groups = groups
        self.hidden = nn.Linear(1, HIDDEN)
        self.out = nn.Linear(HIDDEN, 2 * sum(groups))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, strength: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(B,) in [0,1] -> of each group of C channels its scales and its shifts, (B,C,1,1) both."""
        made = self.out(self.hidden(strength[:, None]).relu())[..., None, None]
        scales, shifts = made.chunk(2, dim=1)
        return list(zip((1 + scales).split(self.groups, dim=1), shifts.split(self.groups, dim=1), strict=True))


class Controlled(UNet):
    """A UNet with the strength as a second input; its weights are the UNet's and those of `film`."""

    def __init__(self, **architecture: Any) -> None:
        super().__init__(**architecture)
        self.architecture = architecture
        self.film = Film([block[1].num_features for block in filmed(self)])

    def features(self, x: Tensor, strength: Tensor | None = None) -> Tensor:
        """As the UNet's, at strengths (B,) in [0,1]; full ones unless told."""
        films = self.film(full(x) if strength is None else strength)
        *skips, y = self.encoder(x)
        for number, (level, skip) in enumerate(zip(self.decoder, reversed(skips), strict=False)):
            y = level(y, skip, films[2 * number : 2 * number + 2])
        return self.finished(y)

    def forward(self, x: Tensor, strength: Tensor | None = None) -> Tensor:
        """(B,3,H,W) in [0,1], (B,) in [0,1] -> (B,3,H,W); full strength unless told."""
        strength = full(x) if strength is None else strength
        return blend(x, self.picture(self.features(x, strength)), strength[:, None, None, None])


class Blended(UNet):
    """A plain student whose pictures are blended with the input by a fixed share."""

    strength = FULL

    def forward(self, x: Tensor) -> Tensor:
        """(B,3,H,W) in [0,1] -> (B,3,H,W)."""
        return blend(x, super().forward(x), self.strength)


def full(x: Tensor) -> Tensor:
    """The full strength for (B,...) pictures: (B,)."""
    return x.new_full((len(x),), FULL)


def blend(x: Tensor, picture: Tensor, strength: Tensor | float) -> Tensor:
    """The input at strength 0, the picture at 1, both to the last bit."""
    return (1 - strength) * x + strength * picture


def at(student: Controlled, strength: float) -> Callable[[Tensor], Tensor]:
    """The student at one strength as a function of pictures (B,3,H,W), the weights as they are."""
    return lambda x: student(x, strength * full(x))


def filmed(student: UNet) -> list[nn.Sequential]:
    """The blocks whose channels the strength scales and shifts: all of the decoder that end in a ReLU6."""
    return [block for level in student.decoder for block in level.blocks()]  # type: ignore[operator]


@torch.no_grad()
def bake(student: Controlled, strength: float) -> UNet:
    """The student at one strength in [0,1], in eval mode, without the input: plain at 1, else blended too."""
    made = (UNet if strength == FULL else Blended)(**student.architecture)
    made.load_state_dict({name: value for name, value in student.state_dict().items() if not name.startswith("film.")})
    if isinstance(made, Blended):
        made.strength = strength
    for block, (scale, shift) in zip(filmed(made), student.film(torch.tensor([strength])), strict=True):
        norm = block[1]
        norm.weight *= scale.flatten()
        norm.bias.copy_(norm.bias * scale.flatten() + shift.flatten())
    return made.eval()
