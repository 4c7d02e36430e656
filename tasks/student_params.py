"""A student's block in params.yaml; its teacher, its training and its gate have modules of their own."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from models.teachers import SAMPLING
from tasks.gate_params import Gate
from tasks.schema import Count, Fraction, Positive, Section
from tasks.teacher_params import Teacher
from tasks.training_params import Compress, QuantiseAware, Train, Variants


class Pairs(Section):
    """Which crops of each input the teacher is asked for."""

    size: Annotated[int, Field(ge=64, multiple_of=32)]  # pixels, both sides; also the student's input size
    train_crops: Positive  # per training input
    held_out_crops: Positive  # per validation or test input
    min_scale: Annotated[float, Field(gt=0, le=1)]  # smallest crop side over the input's short side
    recolour: Fraction  # share of the training crops whose hues are turned, for colours the inputs lack
    # Shares of them with something drawn into the picture (hands, glasses, bars: tasks/occluders.py), and under- or
    # over-exposed. The teacher is shown the changed crop.
    occlude: Fraction
    expose: Fraction
    # These two may be left out, as they are in blocks older than they.
    again: Fraction = 0.0  # share of the pairs for which the teacher is asked once more, with another seed
    samples: Count = 0  # training pairs that a generative teacher draws from nothing, besides those of the inputs
    seed: Count


class Architecture(Section):
    """A UNet: an encoder (models/encoders.py), a decoder of MobileNet blocks (models/students.py)."""

    encoder: str  # a timm model with features_only, such as mobilenetv4_conv_small_050, or ours, such as patches4_32_64
    # From the deepest level on; with the last at 1/2, 1/4, ... of the size, pixel-shuffle makes blocks of 2x2, 4x4, ...
    decoder_channels: Annotated[list[Positive], Field(min_length=1)]
    skip: Literal["add", "concat"]
    upsample: Literal["bilinear", "nearest"]
    head: Literal["pixel-shuffle", "full-resolution"]


class Control(Section):
    """What the app may set (models/controls.py)."""

    by: Literal["none", "strength"]  # of the effect: 0 the input, 1 the teacher's picture
    baked: list[Annotated[float, Field(gt=0, lt=1)]]  # strengths that files without the input are made of, besides 1

    @model_validator(mode="after")
    def _bakes_what_is_set(self) -> "Control":
        if self.by == "none" and self.baked:
            raise ValueError("control.baked: there is no strength to bake; set control.by to strength")
        if len(set(self.baked)) < len(self.baked):
            raise ValueError("control.baked: a strength is named twice")
        return self


class Student(Section):
    """One block under `students:`: everything that makes one student."""

    task: Literal["image-to-image"]
    teacher: Teacher
    pairs: Pairs
    architecture: Architecture
    sizes: list[Annotated[int, Field(ge=64, multiple_of=32)]]  # pixels; claimed besides pairs.size, and checked
    # A folder with student.json and, unless it says scratch or they are kept elsewhere (tasks/starts.py),
    # weights.safetensors.
    init: str
    train: Train
    compress: Compress
    variants: Variants
    quantise_aware: QuantiseAware
    control: Control
    gate: Gate
    distil_anyway: bool  # even if the teacher itself keeps to the gate's latency and size (tasks/need.py)
    approval: bool  # a person says yes (understudy promote) before a student that passed the gate is promoted

    @model_validator(mode="after")
    def _crop_fits(self) -> "Student":
        if self.train.crop > self.pairs.size:
            raise ValueError(f"train.crop {self.train.crop} is larger than pairs.size {self.pairs.size}")
        return self

    @model_validator(mode="after")
    def _variants_of_a_whole(self) -> "Student":
        if self.variants.steps and self.compress.cuts:
            raise ValueError("variants.steps: a whole student is compared, and compress cuts this one; set either to 0")
        return self

    @model_validator(mode="after")
    def _control_is_alone(self) -> "Student":
        others = {
            "compress": self.compress.cuts,
            "variants.steps": self.variants.steps,
            "quantise_aware.steps": self.quantise_aware.steps,
        }
        for key, asked in others.items():
            if self.control.by != "none" and asked:
                raise ValueError(
                    f"control: {key} does not know a student with a {self.control.by}; leave one of them out"
                )
        return self

    @model_validator(mode="after")
    def _sizes_are_others(self) -> "Student":
        if len({*self.sizes, self.pairs.size}) <= len(self.sizes):
            raise ValueError("sizes: each once, and without pairs.size, which is always checked")
        return self

    @model_validator(mode="after")
    def _samples_are_to_be_had(self) -> "Student":
        if self.pairs.samples and self.teacher.kind not in SAMPLING:
            raise ValueError(f"pairs.samples: a {self.teacher.kind} teacher draws nothing from nothing; set it to 0")
        return self
