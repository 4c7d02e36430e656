"""Learning from what the teacher holds inside, not only from what it makes.

FitNets (Romero et al. 2015): the student's features, through an adapter, are to be the teacher's. Attention transfer
(Zagoruyko & Komodakis 2017): it is to look at the same places. Relational distillation (Park et al. 2019): samples are
to lie to each other as they do for the teacher. Modules of both are named by path; shapes are found by trying.
The teacher looks at every batch, so a step costs what the teacher costs (docs/losses.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.errors import UserError
from models.terms import Look, Part, Term, inner_outputs

Inner = Callable[[Tensor], list[Tensor]]  # (B,3,H,W) in [0,1] -> what the teacher's modules give, (B,C,h,w) each


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
    """A part for each link; adapters learn with the student. Raises UserError for paths that lead nowhere."""

    def __init__(self, links: Sequence[Link], teacher: Inner, student: nn.Module, size: int) -> None:
        super().__init__()
        self.links, self.teacher = list(links), teacher
        self.paths = tuple(link.student for link in links)
        probe = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
        theirs = teacher(probe)
        ours = probe_student(student, self.paths, probe)
        self.adapters = nn.ModuleList(
            nn.Conv2d(mine.shape[1], other.shape[1], 1) if link.loss == "fitnets" else nn.Identity()
            for link, mine, other in zip(links, ours, theirs, strict=True)
        )

    def beside(self) -> list[nn.Parameter]:
        """The adapters'."""
        return list(self.adapters.parameters())

    def forward(self, look: Look) -> dict[str, Part]:
        """A part a link."""
        with torch.no_grad():
            theirs = self.teacher(look.inputs)
        return {
            link.name: Part(
                link.weight, FEATURE_LOSSES[link.loss](adapter(look.inner[link.student].float()), other.float())
            )
            for link, adapter, other in zip(self.links, self.adapters, theirs, strict=True)
        }


def probe_student(student: nn.Module, paths: Sequence[str], picture: Tensor) -> list[Tensor]:
    """What modules of the student give for a picture, in the order of `paths`; its statistics stay as they are."""
    trains = student.training
    with torch.no_grad(), inner_outputs(student, paths) as found:
        student.eval()(picture)
    student.train(trains)
    for path in paths:
        if path not in found or found[path].ndim != 4:
            raise UserError(f"train.features: {path!r} of the student gives no features (B,C,h,w): name a convolution")
    return [found[path] for path in paths]


def fitnets(ours: Tensor, theirs: Tensor) -> Tensor:
    """Mean squared distance of (B,C,h,w), in the teacher's root mean squares, at the smaller of the two sizes."""
    ours, theirs = same_size(ours, theirs)
    scale = theirs.square().mean().sqrt() + 1e-6
    return ((ours - theirs) / scale).square().mean()


def attention(ours: Tensor, theirs: Tensor) -> Tensor:
    """Squared distance of the attention maps: means over channels of squares, each map scaled to length 1."""
    ours, theirs = same_size(ours, theirs)
    maps = [functional.normalize(one.square().mean(dim=1).flatten(1), dim=1) for one in (ours, theirs)]
    return (maps[0] - maps[1]).square().sum(dim=1).mean()


def relations(ours: Tensor, theirs: Tensor) -> Tensor:
    """RKD: Huber distances of the samples' distances (weight 1) and angles (weight 2), of features meaned over places.

    Needs three samples to have angles.
    """
    ours, theirs = ours.mean(dim=(2, 3)), theirs.mean(dim=(2, 3))
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


def same_size(ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """Both at the smaller of their sizes, by means over areas."""
    size = [min(pair) for pair in zip(ours.shape[-2:], theirs.shape[-2:], strict=True)]
    return functional.adaptive_avg_pool2d(ours, size), functional.adaptive_avg_pool2d(theirs, size)


FEATURE_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "fitnets": fitnets,
    "attention": attention,
    "relations": relations,
}
