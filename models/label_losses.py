"""What a classifier learns from labels and from a teacher's logits: functions of (B,C) logits that give a scalar.

Labels are (B,) int64, -1 where there is none. Losses of features are in models/feature_distillation.py and
models/contrastive.py; what each is set to in the literature is in docs/losses.md.
"""

import torch
from torch import Tensor
from torch.nn import functional

from models.errors import UserError
from models.terms import Look, Part, Term

UNLABELLED = -1


def hard(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy with the labels there are; 0, with a gradient of 0, where there are none."""
    summed = functional.cross_entropy(logits, labels, ignore_index=UNLABELLED, reduction="sum")
    return summed / (labels != UNLABELLED).sum().clamp(min=1)


def soft(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL of the student's softened distribution from the teacher's, times T^2 (Hinton et al. 2015).

    T^2 keeps its gradient as large as that of the labels whatever the temperature.
    """
    ours, theirs = (functional.log_softmax(one / temperature, dim=1) for one in (logits, teacher))
    return temperature**2 * functional.kl_div(ours, theirs, log_target=True, reduction="batchmean")


def decoupled(
    logits: Tensor, teacher: Tensor, labels: Tensor, *, alpha: float, beta: float, temperature: float
) -> Tensor:
    """DKD (Zhao et al. 2022): alpha times KL of target class against the rest, beta times KL among the rest, times T^2.

    In KD the second is weighed by what the teacher leaves to the rest, which is least where it is surest. Of an example
    without a label the target is the class that the teacher finds likeliest.
    """
    target = torch.where(labels == UNLABELLED, teacher.argmax(dim=1), labels)
    others = torch.ones_like(logits, dtype=torch.bool).scatter(1, target[:, None], False)
    binary, among = [], []
    for one in (logits / temperature, teacher / temperature):
        rest = one[others].view(len(one), -1)
        both = torch.stack([one.gather(1, target[:, None])[:, 0], rest.logsumexp(dim=1)], dim=1)
        binary.append(functional.log_softmax(both, dim=1))
        among.append(functional.log_softmax(rest, dim=1))
    parts = [functional.kl_div(*pair, log_target=True, reduction="batchmean") for pair in (binary, among)]
    return temperature**2 * (alpha * parts[0] + beta * parts[1])


def correlated(logits: Tensor, teacher: Tensor, *, beta: float, gamma: float, temperature: float) -> Tensor:
    """DIST (Huang et al. 2022): beta (1 - Pearson over classes, a sample) + gamma (1 - Pearson over samples, a class).

    Of probabilities at temperature T, times T^2, as public code has it; the paper says nothing of T^2.
    """
    ours, theirs = (functional.softmax(one / temperature, dim=1) for one in (logits, teacher))
    inter = 1 - pearson(ours, theirs).mean()
    intra = 1 - pearson(ours.T, theirs.T).mean()
    return temperature**2 * (beta * inter + gamma * intra)


def pearson(ours: Tensor, theirs: Tensor) -> Tensor:
    """(N,M) twice -> (N,): the correlation of each row with the same of the other; 0 where nothing varies.

    The authors' epsilon: of rows that hardly vary, such as a class that is never likely, it is nearer 0.
    """
    ours, theirs = (one - one.mean(dim=1, keepdim=True) for one in (ours, theirs))
    return (ours * theirs).sum(dim=1) / (ours.norm(dim=1) * theirs.norm(dim=1) + 1e-8)


def labels_of(look: Look, loss: str) -> Tensor:
    """The labels of a step; UserError where its batches carry none."""
    if "labels" not in look.about:
        raise UserError(f"train.losses: {loss} needs labels, and these pairs carry none: leave it out")
    return look.about["labels"]


class Labels(Term):
    """Part "labels": cross-entropy with the labels, no teacher asked."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, look: Look) -> dict[str, Part]:
        """One part."""
        return {"labels": Part(self.weight, hard(look.output, labels_of(look, "labels")))}


class Kd(Term):
    """Parts "kd soft" of weight `share` and "kd hard" of what is left of 1; what weighs nothing is left out.

    With a teacher of the student's own architecture this is born-again distillation (Furlanello et al. 2018).
    """

    def __init__(self, *, temperature: float, share: float) -> None:
        super().__init__()
        self.temperature, self.share = temperature, share

    def forward(self, look: Look) -> dict[str, Part]:
        """One or two parts."""
        parts = {}
        if self.share > 0:
            parts["kd soft"] = Part(self.share, soft(look.output, look.targets, self.temperature))
        if self.share < 1:
            parts["kd hard"] = Part(1 - self.share, hard(look.output, labels_of(look, "kd with soft below 1")))
        return parts


class Dkd(Term):
    """Part "dkd", whose weight rises evenly to 1 over the share `warmup` of the training, as in the authors' code."""

    def __init__(self, *, alpha: float, beta: float, temperature: float, warmup: float) -> None:
        super().__init__()
        self.settings = {"alpha": alpha, "beta": beta, "temperature": temperature}
        self.warmup = warmup

    def forward(self, look: Look) -> dict[str, Part]:
        """One part."""
        value = decoupled(look.output, look.targets, labels_of(look, "dkd"), **self.settings)
        return {"dkd": Part(min(1.0, look.share / self.warmup) if self.warmup else 1.0, value)}


class Dist(Term):
    """Part "dist"."""

    def __init__(self, *, beta: float, gamma: float, temperature: float) -> None:
        super().__init__()
        self.settings = {"beta": beta, "gamma": gamma, "temperature": temperature}

    def forward(self, look: Look) -> dict[str, Part]:
        """One part."""
        return {"dist": Part(1.0, correlated(look.output, look.targets, **self.settings))}
