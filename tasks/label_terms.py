"""The terms of models/ that a classifier's `losses` ask for (tasks/label_losses_params.py)."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from models.errors import UserError
from tasks.label_losses_params import POOLED, Crd, Dist, Dkd, Inside, Kd, Labels, Loss, Mutual, inside_paths

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from models.batches import Batch
    from models.features import Inner
    from models.terms import Term

# Makes what a peer learns by of its weights; models/training.py's make_optimizer with the student's recipe.
OptimizerOf = Callable[["Sequence[nn.Parameter]"], "Optimizer"]


def make_label_terms(
    losses: Sequence[Loss],
    student: "nn.Module",
    *,
    example: "Batch",
    labels: "Tensor",
    taught: "Tensor | None" = None,
    seed: int,
    teacher: "Callable[[Sequence[str]], Inner] | None" = None,
    peer: "nn.Module | None" = None,
    optimizer: OptimizerOf | None = None,
) -> "list[Term]":
    """What the losses say a student is taught by.

    `example` is a batch to find shapes by; `labels` (N,) are those of all training examples, `taught` the rows of them
    that are shown (all, if left out); `teacher` gives what modules of it hold, by path (models/features.py's
    module_features); `peer` and `optimizer` are wanted for mutual.
    """
    from models import label_losses, mutual

    paths = inside_paths(list(losses))
    inner = _inner(teacher, paths)
    terms: list[Term] = []
    for loss in losses:
        settings = loss.model_dump(exclude={"kind"})
        if isinstance(loss, Labels):
            terms.append(label_losses.Labels(loss.weight))
        elif isinstance(loss, Kd):
            terms.append(label_losses.Kd(temperature=loss.temperature, share=loss.soft))
        elif isinstance(loss, Dkd):
            terms.append(label_losses.Dkd(**settings))
        elif isinstance(loss, Dist):
            terms.append(label_losses.Dist(**settings))
        elif isinstance(loss, Mutual):
            if peer is None or optimizer is None:
                raise UserError("train.losses: mutual needs a peer beside the student, and there is none")
            terms.append(mutual.Mutual(peer, optimizer(list(peer.parameters())), **settings))
        elif isinstance(loss, Crd):
            theirs = _chosen(inner, paths, [loss.teacher])
            terms.append(_contrastive(loss, student, example, theirs, labels=labels, taught=taught, seed=seed))
    links = [loss for loss in losses if isinstance(loss, Inside)]
    for alike in ([one for one in links if one.teacher != POOLED], [one for one in links if one.teacher == POOLED]):
        if alike:
            teacher_of = _chosen(inner, paths, [link.teacher for link in alike])
            terms.append(_features(alike, student, example, teacher_of))
    return terms


def _inner(teacher: "Callable[[Sequence[str]], Inner] | None", paths: list[str]) -> "Inner | None":
    if not paths:
        return None
    if teacher is None:
        raise UserError(f"train.losses: {paths[0]!r} is a module of the teacher, and this one shows none of its inside")
    return teacher(paths)


def _chosen(inner: "Inner | None", paths: list[str], wanted: list[str]) -> "Inner | None":
    """Of what the teacher gives, what one term wants, so that all terms ask once."""
    if inner is None or wanted[0] == POOLED:
        return None
    return lambda *batch: [inner(*batch)[paths.index(path)] for path in wanted]


def _features(losses: list[Inside], student: "nn.Module", example: "Batch", teacher: "Inner | None") -> "Term":
    from models.feature_distillation import FeatureDistillation, Link

    links = [Link(loss=loss.kind, **loss.model_dump(exclude={"kind"})) for loss in losses]
    kept = example.about.get(POOLED)
    return FeatureDistillation(links, teacher, student, example.inputs, *example.controls, kept=kept)


def _contrastive(loss: Crd, student: "nn.Module", example: "Batch", teacher: "Inner | None", **examples: Any) -> "Term":
    from models.contrastive import Contrastive
    from models.features import channels, probe

    if teacher is None and POOLED not in example.about:
        raise UserError("train.losses: crd with teacher: pooled needs the features kept with the pairs; keep them")
    [ours] = probe(student, [loss.student], example.inputs, *example.controls, who="student")
    theirs = teacher(example.inputs, *example.controls)[0] if teacher else example.about[POOLED]
    return Contrastive(
        loss.student,
        student_width=channels(ours),
        teacher_width=channels(theirs),
        teacher=teacher,
        **examples,
        **loss.model_dump(exclude={"kind", "student", "teacher"}),
    )
