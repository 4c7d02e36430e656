"""An adversary: a discriminator learns to tell the teacher's pictures from the student's, the student to pass.

Patches at several scales, conditioned on the input (Wang et al. 2018, pix2pixHD), hinge loss (Lim & Ye 2017), spectral
norm (Miyato et al. 2018), and the adaptive weight of VQGAN (Esser et al. 2021): what it says moves the student's
picture as hard as the other losses do, times `weight`, whatever the scale of either.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim import Optimizer

from models.terms import Look, Part, Term, total

MAX_ADAPTIVE = 1e4  # VQGAN's


class PatchDiscriminator(nn.Module):
    """(B,C,H,W) -> (B,1,H/8,W/8): above 0 where a patch looks like the teacher's."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = inputs
        for width in (channels, 2 * channels, 4 * channels):
            layers += [spectral_norm(nn.Conv2d(before, width, 4, stride=2, padding=1)), nn.LeakyReLU(0.2)]
            before = width
        self.layers = nn.Sequential(*layers, spectral_norm(nn.Conv2d(before, 1, 3, padding=1)))

    def forward(self, x: Tensor) -> Tensor:
        """As above."""
        out: Tensor = self.layers(x)
        return out


class Adversarial(Term):
    """Part "adversarial" of a student's loss, from the share `begin` of the training on."""

    def __init__(self, *, weight: float, begin: float, scales: int, channels: int, learning_rate: float) -> None:
        super().__init__()
        self.weight, self.begin, self.learning_rate = weight, begin, learning_rate
        self.discriminators = nn.ModuleList(PatchDiscriminator(6, channels) for _ in range(scales))
        # Without momentum, as is usual against a student that moves too (Miyato et al. 2018).
        self.optimizer = torch.optim.Adam(self.discriminators.parameters(), lr=learning_rate, betas=(0.0, 0.9))

    def optimisers(self) -> dict[str, Optimizer]:
        """The discriminators'."""
        return {"discriminators": self.optimizer}

    def judge(self, inputs: Tensor, pictures: Tensor) -> list[Tensor]:
        """What the discriminators say of pictures of these inputs, one (B,1,h,w) a scale."""
        both = torch.cat([inputs, pictures], dim=1)
        said = []
        for scale, discriminator in enumerate(self.discriminators):
            said.append(discriminator(both))
            if scale + 1 < len(self.discriminators):
                both = functional.avg_pool2d(both, 2)
        return said

    def forward(self, look: Look) -> dict[str, Part]:
        """Nothing before `begin`; then how far the student is from passing, weighed against the parts before."""
        if look.share < self.begin:
            return {}
        self.discriminators.requires_grad_(False)
        passing = -torch.stack([said.mean() for said in self.judge(look.inputs, look.output)]).mean()
        self.discriminators.requires_grad_(True)
        return {"adversarial": Part(self.weight * adaptive(look, passing), passing)}

    def learn(self, look: Look, rate: float) -> Iterator[list[nn.Parameter]]:
        """The discriminators' step, on the pictures that the student was just judged by; from the beginning on."""
        self.optimizer.zero_grad(set_to_none=True)
        pictures = look.output.detach()
        loss = torch.stack(
            [
                functional.relu(1 - real).mean() + functional.relu(1 + made).mean()
                for real, made in zip(
                    self.judge(look.inputs, look.targets), self.judge(look.inputs, pictures), strict=True
                )
            ]
        ).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        yield list(self.discriminators.parameters())
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * rate
        self.optimizer.step()


def adaptive(look: Look, value: Tensor) -> float:
    """Of the gradients that the parts before and `value` leave on the student's output, the ratio of the norms."""
    before = {name: part for name, part in look.parts.items() if part.weight and part.value.requires_grad}
    if not before:
        return 1.0
    (theirs,) = torch.autograd.grad(total(before), look.output, retain_graph=True)
    (ours,) = torch.autograd.grad(value, look.output, retain_graph=True)
    return min(float(theirs.norm() / (ours.norm() + 1e-6)), MAX_ADAPTIVE)
