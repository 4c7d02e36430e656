"""Blocks under `classifiers:` in params.yaml: everything that makes one classifier, of images or of texts."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tasks.classification.gate_params import LabelGate
from tasks.classification.network_params import ImageArchitecture, ImageTeacher, TextArchitecture, TextTeacher
from tasks.label_losses_params import Losses, inside_paths, wants_pooled
from tasks.schema import Count, Fraction, Positive, PositiveFloat, Section, Weight

TEACHER = "teacher"  # for init


class LabelPairs(Section):
    """Which answers of the teacher are kept."""

    views: Positive  # augmented views of each training picture; of texts there is one
    pad: Count  # pixels by which a view may be moved, over the picture's mirrored border
    flip: bool  # whether half of the views are mirrored
    pooled: bool  # also what the teacher holds before its last layer
    max_mib: PositiveFloat  # that all logits may take
    max_conflict: Fraction = (
        1.0  # the teacher's certainty of another class than the label's, from which a pair is dropped
    )
    seed: Count


class LabelTrain(Section):
    """How a classifier is taught."""

    steps: Positive
    batch_size: Positive
    optimizer: Literal["adamw", "sgd"]
    momentum: Fraction  # of SGD
    learning_rate: PositiveFloat
    weight_decay: Weight
    warmup_steps: Count
    milestones: list[Annotated[float, Field(gt=0, lt=1)]]  # shares of the steps at which the rate falls to a tenth
    ema_decay: Annotated[float, Field(ge=0, lt=1)]  # of the average of the weights; 0 leaves it at the last
    losses: Losses
    seed: Count


class Cut(Section):
    """What is cut from the teacher's weights that a student begins with (models/compression.py).

    Training makes up for it. A start that is no teacher's, such as an earlier student's, is taken as it is.
    """

    prune: Annotated[float, Field(ge=0, lt=1)]  # share of the channels; 0 keeps them all
    low_rank: Annotated[float, Field(gt=0, le=1)]  # share of the squared weights that factors keep; 1 keeps them whole

    @property
    def cuts(self) -> bool:
        """Whether anything is cut."""
        return self.prune > 0 or self.low_rank < 1


class _Classifier(Section):
    """What both kinds share."""

    dataset: str  # a name under `datasets:`
    architecture: Any
    pairs: LabelPairs
    init: str  # "" is from scratch, teacher is with the teacher's weights; or another student's folder
    cut: Cut
    train: LabelTrain
    gate: LabelGate
    approval: bool  # a person says yes (understudy promote) before a student that passed the gate is promoted

    @model_validator(mode="after")
    def _pooled_features_are_kept(self) -> "_Classifier":
        asks = wants_pooled(list(self.train.losses))
        if asks and not self.pairs.pooled:
            raise ValueError(f"train.losses: {asks} asks for the teacher's pooled features: set pairs.pooled to true")
        return self

    @model_validator(mode="after")
    def _cuts_what_was_learnt(self) -> "_Classifier":
        if self.cut.cuts and not self.init and self.architecture.kind != "transformer-layers":
            raise ValueError(
                "cut: a network from scratch has nothing to cut: set init to teacher, or take a smaller one"
            )
        return self

    @property
    def asks_teacher(self) -> list[str]:
        """Modules of the teacher that training wants to see in every step."""
        return inside_paths(list(self.train.losses))


class ImageClassifier(_Classifier):
    """A classifier of pictures."""

    task: Literal["image-classification"]
    teacher: ImageTeacher
    architecture: ImageArchitecture

    @property
    def takes(self) -> str:
        """The kind of dataset."""
        return "images"


class TextClassifier(_Classifier):
    """A classifier of texts."""

    task: Literal["text-classification"]
    teacher: TextTeacher
    architecture: TextArchitecture

    @model_validator(mode="after")
    def _begins_with_layers(self) -> "TextClassifier":
        if self.init == TEACHER:
            raise ValueError("init: teacher is of pictures; of texts, architecture.kind transformer-layers begins so")
        return self

    @property
    def takes(self) -> str:
        """The kind of dataset."""
        return "texts"


Classifier = Annotated[ImageClassifier | TextClassifier, Field(discriminator="task")]
