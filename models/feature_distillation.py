"""Learning from what the teacher holds inside, not only from what it makes.

Modules of both are named by path; shapes are found by trying, and adapters made for them (models/features.py says what
forms features may have). The teacher looks at every batch, so a step costs what the teacher costs (docs/losses.md).
Where a mask (B,L) says which tokens count, the others are left out of every loss.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.errors import UserError
from models.features import Inner, alike, channels, mask_for, masked, mean_where, pooled, probe, project
from models.terms import Look, Part, Term


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A module of the student, one of the teacher, and the loss between what they give."""

    loss: str
    student: str
    teacher: str
    weight: float

    @property
    def name(self) -> str:
        """What the part is called."""
        return f"{self.loss} {self.student}"


class FeatureDistillation(Term):
    """A part for each link; adapters learn with the student. Raises UserError for paths that lead nowhere.

    `example` is a batch to find shapes by, `controls` what the student takes besides. `teacher` gives a tensor a link;
    None takes Look.about["pooled"] for all of them, the features kept with the pairs, of which `kept` (B,D) are the
    example's.
    """

    def __init__(
        self,
        links: Sequence[Link],
        teacher: Inner | None,
        student: nn.Module,
        example: Tensor,
        *controls: Tensor,
        kept: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.links, self.teacher = list(links), teacher
        self.paths = tuple(link.student for link in links)
        theirs = self._theirs(example, controls, kept)
        ours = probe(student, self.paths, example, *controls, who="student")
        self.comparisons = nn.ModuleList(
            Variational(mine, other) if link.loss == "vid" else Comparison(link, mine, other)
            for link, mine, other in zip(links, ours, theirs, strict=True)
        )

    def _theirs(self, inputs: Tensor, controls: Sequence[Tensor], kept: Tensor | None) -> list[Tensor]:
        if self.teacher is not None:
            return self.teacher(inputs, *controls)
        if kept is None:
            raise UserError(f"train.losses: {self.links[0].loss} takes the teacher's pooled features: keep them")
        return [kept] * len(self.links)

    def beside(self) -> list[nn.Parameter]:
        """The adapters'."""
        return list(self.comparisons.parameters())

    def forward(self, look: Look) -> dict[str, Part]:
        """A part a link."""
        with torch.no_grad():
            theirs = self._theirs(look.inputs, look.controls, look.about.get("pooled"))
        parts = {}
        for link, compare, other in zip(self.links, self.comparisons, theirs, strict=True):
            mine = look.inner[link.student].float()
            parts[link.name] = Part(link.weight, compare(mine, other.float(), mask_for(mine, look.controls)))
        return parts


class Comparison(nn.Module):
    """One of FEATURE_LOSSES, behind a linear adapter where it needs as many channels as the teacher has."""

    def __init__(self, link: Link, ours: Tensor, theirs: Tensor) -> None:
        super().__init__()
        self.loss = FEATURE_LOSSES[link.loss]
        if link.loss == "attention" and alike(ours, theirs)[0].ndim < 3:
            raise UserError(
                f"train.features: attention compares places, and {link.student!r} and {link.teacher!r} share none: "
                "name two convolutions or two layers of the same tokens, or use relations or sp"
            )
        same = link.loss == "hidden-cosine" and channels(ours) == channels(theirs)
        adapts = link.loss in ADAPTED and not same
        self.adapter = project(ours, channels(theirs)) if adapts else nn.Identity()

    def forward(self, ours: Tensor, theirs: Tensor, mask: Tensor | None) -> Tensor:
        """A scalar."""
        return self.loss(self.adapter(ours), theirs, mask)


class Variational(nn.Module):
    """VID (Ahn et al. 2019): the negative log-likelihood of the teacher's features by what a regressor makes of ours.

    A Gaussian whose variance, one a channel, is learnt as the regressor is. As the authors' code has it: three linear
    maps with ReLU between, variance softplus(a) + 1e-5 that begins at 5, no constant. It may fall below 0.
    """

    def __init__(self, ours: Tensor, theirs: Tensor) -> None:
        super().__init__()
        ours, theirs = alike(ours, theirs)
        width = channels(theirs)
        self.adapter = nn.Sequential(
            project(ours, width, bias=False),
            nn.ReLU(),
            project(theirs, width, bias=False),
            nn.ReLU(),
            project(theirs, width, bias=False),
        )
        self.scale = nn.Parameter(torch.full((width,), 5 - 1e-5).expm1().log())

    def variance(self) -> Tensor:
        """(C,)"""
        return functional.softplus(self.scale) + 1e-5

    def forward(self, ours: Tensor, theirs: Tensor, mask: Tensor | None) -> Tensor:
        """A scalar."""
        ours, theirs = alike(ours, theirs, mask)  # before the regressor, which is not linear
        variance = self.variance().view(-1, 1, 1) if theirs.ndim == 4 else self.variance()
        return vid(self.adapter(ours), theirs, variance, mask)


def vid(mean: Tensor, theirs: Tensor, variance: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of ((mean - theirs)^2 / variance + log variance) / 2."""
    return mean_where(((mean - theirs).square() / variance + variance.log()) / 2, mask)


def fitnets(ours: Tensor, theirs: Tensor, mask: Tensor | None = None) -> Tensor:
    """FitNets (Romero et al. 2015): mean squared distance at the smaller of the two sizes.

    In the teacher's mean squares, so that a weight means the same whatever the scale of a layer; the paper has none.
    """
    ours, theirs = alike(ours, theirs, mask)
    scale = mean_where(theirs.square(), mask).sqrt() + 1e-6
    return mean_where(((ours - theirs) / scale).square(), mask)


def attention(ours: Tensor, theirs: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention transfer (Zagoruyko & Komodakis 2017): squared distance of maps of where features are strong.

    Maps are means over channels of squares, each scaled to length 1.
    """
    ours, theirs = alike(ours, theirs, mask)
    maps = []
    for one in (masked(ours, mask), masked(theirs, mask)):
        strength = one.square().mean(dim=1 if one.ndim == 4 else -1)
        maps.append(functional.normalize(strength.flatten(1), dim=1))
    return (maps[0] - maps[1]).square().sum(dim=1).mean()


def relations(ours: Tensor, theirs: Tensor, mask: Tensor | None = None) -> Tensor:
    """RKD (Park et al. 2019): samples are to lie to each other as they do for the teacher, by means over places.

    Huber distances of the samples' distances (weight 1) and angles (weight 2). Needs three samples to have angles.
    """
    ours, theirs = pooled(ours, mask), pooled(theirs, mask_for(theirs, [] if mask is None else [mask]))
    apart = functional.smooth_l1_loss(pairwise(ours), pairwise(theirs))
    return apart + 2 * functional.smooth_l1_loss(angles(ours), angles(theirs))


def pairwise(points: Tensor) -> Tensor:
    """(B,C) -> (B,B): distances over their mean."""
    # A distance of 0, to itself, has no gradient: sqrt of what is clamped has none either.
    squares = (points.unsqueeze(0) - points.unsqueeze(1)).square().sum(dim=2)
    found = squares.clamp(min=1e-12).sqrt() * (squares > 0)
    return found / (found.sum() / max(1, len(points) * (len(points) - 1)) + 1e-6)


def angles(points: Tensor) -> Tensor:
    """(B,C) -> (B,B,B): the cosine at each sample between the ways to two others."""
    ways = functional.normalize(points.unsqueeze(0) - points.unsqueeze(1), dim=2)
    return torch.bmm(ways, ways.transpose(1, 2))


def similarities(ours: Tensor, theirs: Tensor, mask: Tensor | None = None) -> Tensor:
    """SP (Tung & Mori 2019): samples are to be as similar as they are for the teacher.

    Mean squared distance of the (B,B) matrices of dot products of whole features, each row scaled to length 1. Sizes
    and channels may differ.
    """
    found = []
    for one in (masked(ours, mask), masked(theirs, mask_for(theirs, [] if mask is None else [mask]))):
        flat = one.flatten(1)
        found.append(functional.normalize(flat @ flat.T, dim=1))
    return (found[0] - found[1]).square().mean()


def hidden_cosine(ours: Tensor, theirs: Tensor, mask: Tensor | None = None) -> Tensor:
    """DistilBERT (Sanh et al. 2019): 1 - cosine of the hidden states, a mean over the tokens that count.

    Of a convolution's features, over places.
    """
    ours, theirs = alike(ours, theirs, mask)
    cosine = functional.cosine_similarity(ours, theirs, dim=1 if ours.ndim == 4 else -1)
    return mean_where((1 - cosine)[..., None] if cosine.ndim == 2 else 1 - cosine, mask)


FEATURE_LOSSES: dict[str, Callable[..., Tensor]] = {
    "fitnets": fitnets,
    "attention": attention,
    "relations": relations,
    "sp": similarities,
    "hidden-cosine": hidden_cosine,
}
ADAPTED = ("fitnets", "hidden-cosine")  # they compare channel by channel
