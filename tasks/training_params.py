"""How a student is taught: the blocks `train`, `compress`, `variants` and `quantise_aware` of it in params.yaml."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tasks.schema import Count, Fraction, Positive, PositiveFloat, Section, Weight


class Feature(Section):
    """A module of the student that is to hold what one of the teacher's holds (models/feature_distillation.py)."""

    loss: Literal["fitnets", "attention", "relations"]
    student: str  # its dotted path, such as encoder.levels.3
    teacher: str  # the teacher's; of an ONNX file the name of a tensor
    weight: Weight


class Adversarial(Section):
    """A discriminator that the student learns to pass (models/adversarial.py)."""

    weight: Weight  # how hard it moves the student's picture, over the other losses together; 0 leaves it out
    begin: Annotated[float, Field(ge=0, lt=1)]  # share of the training from which on the student feels it
    scales: Positive  # discriminators, each at half the size of the one before
    channels: Positive  # of a discriminator's first layer
    rate: PositiveFloat  # its learning rate, over the student's


class Consistency(Section):
    """Steadiness under a moving, noisy camera (models/consistency.py)."""

    weight: Weight  # at the end of the training; 0 leaves it out
    begin: Annotated[float, Field(ge=0, lt=1)]  # share of the training from which on it rises from 0


class Camera(Section):
    """Shares of the training crops that the student sees through a bad camera (models/camera.py).

    Its target stays the teacher's picture of the clean crop.
    """

    blur: Fraction  # out of focus or moved
    noise: Fraction  # of the sensor
    compression: Fraction  # JPEG

    @property
    def degrades(self) -> bool:
        """Whether it does anything."""
        return max(self.blur, self.noise, self.compression) > 0


class Replay(Section):
    """Older pairs, that a student goes on to learn from while it is taught new ones."""

    pairs: str  # a folder of curated pairs, such as data/students/oil/pairs; models/start/no-pairs is none
    share: Annotated[float, Field(ge=0, lt=1)]  # of every batch; at 0 it is only measured what is forgotten


class Balance(Section):
    """Training pairs drawn so that slices of them are even (tasks/taught.py); an epoch then shows some pairs again."""

    by: Literal["none", "cluster", "luma", "detail", "chroma"]  # clusters of like inputs, or quarters of a range
    cap: Annotated[float, Field(ge=1)]  # how often, at most, an epoch shows a pair


class Train(Section):
    """One student's training."""

    steps: Positive
    batch_size: Positive
    crop: Annotated[int, Field(ge=32, multiple_of=32)]  # pixels, cut from the pair at random
    learning_rate: PositiveFloat
    weight_decay: Weight
    warmup_steps: Count
    ema_decay: Annotated[float, Field(ge=0, lt=1)]
    seed: Count
    losses: dict[str, Weight]  # by the names in models/losses.py
    features: list[Feature]  # what is learnt of the teacher's inside besides; each step then runs the teacher too
    adversarial: Adversarial
    consistency: Consistency
    camera: Camera
    replay: Replay
    balance: Balance


class Compress(Section):
    """What is cut from the trained student before it is quantised (models/compression.py), and trained again after."""

    prune: Annotated[float, Field(ge=0, lt=1)]  # share of the channels of every group; 0 keeps them all
    low_rank: Annotated[float, Field(gt=0, le=1)]  # energy that the factors of a 1x1 convolution keep; 1 keeps it whole
    recovery_steps: Count  # of training after the cut, with the same losses and batches
    recovery_rate: PositiveFloat  # its learning rate, over the training's

    @property
    def cuts(self) -> bool:
        """Whether anything is cut."""
        return self.prune > 0 or self.low_rank < 1

    @model_validator(mode="after")
    def _recovers(self) -> "Compress":
        if self.cuts and not self.recovery_steps:
            raise ValueError("compress.recovery_steps: what was cut must be made up for; give it some steps")
        return self


class Variants(Section):
    """Which cuts of the trained student are compared in its report (tasks/variants.py): every pair of the two lists."""

    steps: Count  # of training after each cut, for the whole one too; 0 compares none
    rate: PositiveFloat  # its learning rate, over the training's
    prune: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=1)]  # as in compress
    low_rank: Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=1)]


class QuantiseAware(Section):
    """Training with int8's rounding in it (models/quantise_aware.py), after all other training."""

    steps: Count  # with the same losses and batches; 0 leaves it out
    rate: PositiveFloat  # its learning rate, over the training's
    weight: Weight  # of the squared distance between the rounded picture and the float one, beside the losses
