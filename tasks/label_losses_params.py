"""What a classifier is taught by, as params.yaml says it: a list of losses, each told by its `kind`.

    losses: [{kind: kd, temperature: 4, soft: 0.9}, {kind: fitnets, student: layer3, teacher: layer3, weight: 100}]

What they are and what the literature sets them to: docs/losses.md.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from tasks.schema import Fraction, Positive, PositiveFloat, Section, Weight

ModulePath = Annotated[
    str, Field(min_length=1)
]  # of a module, dotted, such as layer3 or distilbert.transformer.layer.5
POOLED = "pooled"  # for a teacher's module: the features kept with the pairs


class Labels(Section):
    """Cross-entropy with the labels; alone it is a student without a teacher."""

    kind: Literal["labels"]
    weight: PositiveFloat


class Kd(Section):
    """Softened logits and labels (Hinton et al. 2015)."""

    kind: Literal["kd"]
    temperature: PositiveFloat
    soft: Fraction  # share of the teacher's; the labels have the rest, and 1 needs none


class Dkd(Section):
    """The target class and the others apart (Zhao et al. 2022); `labels` goes with it."""

    kind: Literal["dkd"]
    alpha: Weight  # of the target class against the others
    beta: Weight  # of the others among themselves
    temperature: PositiveFloat
    warmup: Fraction  # share of the training over which it rises from 0


class Dist(Section):
    """Correlations (Huang et al. 2022); `labels` goes with it."""

    kind: Literal["dist"]
    beta: Weight  # over the classes of a sample
    gamma: Weight  # over the samples of a class
    temperature: PositiveFloat


class Inside(Section):
    """A module of the student that is to hold what one of the teacher's holds (models/feature_distillation.py)."""

    kind: Literal["fitnets", "attention", "relations", "sp", "vid", "hidden-cosine"]
    student: ModulePath
    teacher: ModulePath  # run in every step; or pooled, the features kept with the pairs
    weight: PositiveFloat

    @model_validator(mode="after")
    def _attention_has_places(self) -> "Inside":
        if self.kind == "attention" and self.teacher == POOLED:
            raise ValueError("attention compares places, and pooled features have none: name a module of the teacher")
        return self


class Crd(Section):
    """The same example told from others, in both (Tian et al. 2020; models/contrastive.py)."""

    kind: Literal["crd"]
    student: ModulePath  # what it gives is meaned over places
    teacher: ModulePath  # a module of the teacher, run in every step; or pooled, the features kept with the pairs
    weight: PositiveFloat
    dimensions: Positive  # of the heads and of the bank's rows
    negatives: Positive  # examples of other classes that each is told from
    temperature: PositiveFloat
    momentum: Fraction  # of the bank: how much of a row stays


class Mutual(Section):
    """A peer of the student's own architecture that learns beside it (Zhang et al. 2018); `labels` goes with it."""

    kind: Literal["mutual"]
    weight: PositiveFloat
    temperature: PositiveFloat


Loss = Annotated[Labels | Kd | Dkd | Dist | Inside | Crd | Mutual, Field(discriminator="kind")]


def check_twice(losses: list[Loss]) -> list[Loss]:
    """Refuse two that would have the same name in the curve."""
    names = [(loss.kind, getattr(loss, "student", "")) for loss in losses]
    twice = next((kind for kind, student in names if names.count((kind, student)) > 1), None)
    if twice:
        raise ValueError(f"{twice} is there twice; once is enough, with the sum of the weights")
    return losses


# At least one, in the order in which the curve names them.
Losses = Annotated[list[Loss], Field(min_length=1), AfterValidator(check_twice)]


def peers(losses: list[Loss]) -> bool:
    """Whether a peer is to learn beside the student."""
    return any(isinstance(loss, Mutual) for loss in losses)


def inside_paths(losses: list[Loss]) -> list[str]:
    """The teacher's modules that are wanted in every step; none: no teacher is needed in training."""
    return [loss.teacher for loss in losses if isinstance(loss, Inside | Crd) and loss.teacher != POOLED]


def wants_pooled(losses: list[Loss]) -> str:
    """The kind of a loss that asks for the features kept with the pairs; "" if none does."""
    return next((loss.kind for loss in losses if isinstance(loss, Inside | Crd) and loss.teacher == POOLED), "")
