"""Contrastive distillation, CRD (Tian et al. 2020): of the same example, student and teacher are to say the same.

Two heads map the features of each to 128 numbers of length 1. The student's are told from the teacher's of K examples
of other classes, and the other way round, out of a bank that holds both of every training example, moved on by
momentum. Noise-contrastive estimation (Gutmann & Hyvarinen 2010); its normaliser is what the first batch finds.

As in the authors' code (RepDistiller), where the paper leaves it open: both directions counted, the normaliser N times
the mean of exp(score/T), the bank moved after it was scored, by what was scored. Unlike it, negatives are always drawn
with replacement, as the estimate supposes, by seed and step alone, so that a killed training goes on to the same bits.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.consistency import hash_of
from models.errors import UserError
from models.features import Inner, mask_for, pooled
from models.label_losses import UNLABELLED
from models.terms import Look, Part, Term

TINY = 1e-7  # the authors'


def contrast(scores: Tensor, examples: int) -> Tensor:
    """(B,1+K) -> scalar: how badly the first of each row, over its normaliser, is told from the K after it.

    -log h of the first and -log(1-h) of the others, with h(x) = x / (x + K/N) (the paper's equations 7 to 9 and 18).
    """
    noise = (scores.shape[1] - 1) / examples
    first, others = scores[:, 0], scores[:, 1:]
    told = (first / (first + noise + TINY)).log().sum() + (noise / (others + noise + TINY)).log().sum()
    return -told / len(scores)


class Contrastive(Term):
    """Part "crd PATH" between the student's module at `path` and a teacher's features of `width` numbers.

    `labels` (N,) are those of all training examples, `taught` (M,) the rows of them that are shown, all if left out:
    others are never drawn, as their rows of the bank stay chance. Batches say in `rows` which they hold. `teacher`
    gives one tensor of features; None takes those kept with the pairs, Look.about["pooled"]. Bank and normalisers are
    in checkpoints.
    """

    def __init__(
        self,
        path: str,
        *,
        student_width: int,
        teacher_width: int,
        labels: Tensor,
        teacher: Inner | None,
        weight: float,
        dimensions: int,
        negatives: int,
        temperature: float,
        momentum: float,
        seed: int,
        taught: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.paths, self.teacher, self.weight, self.seed = (path,), teacher, weight, seed
        self.negatives, self.temperature, self.momentum = negatives, temperature, momentum
        self.heads = nn.ModuleList(nn.Linear(width, dimensions) for width in (student_width, teacher_width))
        reach = 3**0.5 / dimensions**0.5  # evenly between: the mean length is 1
        random = torch.Generator().manual_seed(seed)
        for side in ("bank_student", "bank_teacher"):
            bank = torch.empty(len(labels), dimensions).uniform_(-reach, reach, generator=random)
            self.register_buffer(side, bank)
        self.register_buffer("normalisers", torch.zeros(2))  # 0 until the first batch
        self._sort(labels, torch.arange(len(labels)) if taught is None else taught)
        self.seen: tuple[Tensor, Tensor, Tensor, Tensor] | None = None  # rows, both embeddings, normalisers

    def _sort(self, labels: Tensor, taught: Tensor) -> None:
        """Taught rows in the order of their labels: those of other classes are what lies outside one stretch."""
        order = taught[labels[taught].argsort(stable=True)]
        self.register_buffer("order", order, persistent=False)
        ordered, places = labels[order], torch.zeros_like(labels)
        places[order] = torch.arange(len(order))
        starts = torch.searchsorted(ordered, labels.contiguous())
        counts = torch.searchsorted(ordered, labels.contiguous(), right=True) - starts
        alone = labels == UNLABELLED  # nobody knows what is of its class: all but itself
        starts[alone], counts[alone] = places[alone], 1
        if bool((counts[order] == len(order)).any()):
            raise UserError("train.losses: crd needs examples of two classes, and all of these are of one")
        self.register_buffer("starts", starts, persistent=False)
        self.register_buffer("counts", counts, persistent=False)

    def beside(self) -> list[nn.Parameter]:
        """The heads'."""
        return list(self.heads.parameters())

    def drawn(self, rows: Tensor, step: int) -> Tensor:
        """(B,) -> (B,K): rows of other classes, evenly, by seed and step."""
        random = torch.Generator().manual_seed(hash_of(self.seed, step))
        chance = torch.rand(len(rows), self.negatives, generator=random, dtype=torch.float64).to(rows.device)
        starts, counts = self.starts[rows, None], self.counts[rows, None]
        places = (chance * (len(self.order) - counts)).long()
        return self.order[places + counts * (places >= starts)]

    def forward(self, look: Look) -> dict[str, Part]:
        """One part; bank and normalisers stay as they are until `learn`."""
        if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            raise UserError("train.losses: crd keeps one bank, so it is for one process: train with one, or without it")
        rows = self._rows(look)
        features = (look.inner[self.paths[0]], self._theirs(look))
        ours, theirs = (
            functional.normalize(head(pooled(one.float(), mask_for(one, look.controls))), dim=1)
            for head, one in zip(self.heads, features, strict=True)
        )
        compared = torch.cat([rows[:, None], self.drawn(rows, look.step)], dim=1)
        # All scores by one product, of which those wanted are taken: a bank's rows by index are K times as many bytes.
        scores = [
            ((one @ bank.T).gather(1, compared) / self.temperature).exp()
            for one, bank in ((ours, self.bank_teacher), (theirs, self.bank_student))
        ]
        found = torch.stack([one.detach().mean() * len(self.order) for one in scores])
        normalisers = torch.where(self.normalisers > 0, self.normalisers, found)
        value = torch.stack(
            [contrast(one / over, len(self.order)) for one, over in zip(scores, normalisers, strict=True)]
        ).sum()
        self.seen = (rows, ours.detach(), theirs.detach(), normalisers)
        return {f"crd {self.paths[0]}": Part(self.weight, value)}

    def _rows(self, look: Look) -> Tensor:
        rows = look.about.get("rows")
        if rows is None:
            raise UserError("train.losses: crd needs to know which examples a batch holds, and these pairs do not say")
        return rows

    def _theirs(self, look: Look) -> Tensor:
        if self.teacher:
            with torch.no_grad():
                return self.teacher(look.inputs, *look.controls)[0]
        if "pooled" not in look.about:
            raise UserError("train.losses: crd with teacher: pooled needs the features kept with the pairs; keep them")
        return look.about["pooled"]

    def learn(self, look: Look, rate: float) -> Iterator[list[nn.Parameter]]:
        """Move the bank's rows of this batch towards what was found; it has no weights, so it yields none."""
        assert self.seen is not None, "forward comes before learn"
        (rows, ours, theirs, normalisers), self.seen = self.seen, None
        self.normalisers.copy_(normalisers)
        for bank, one in ((self.bank_student, ours), (self.bank_teacher, theirs)):
            moved = self.momentum * bank[rows] + (1 - self.momentum) * one
            bank[rows] = functional.normalize(moved, dim=1)
        yield from ()
