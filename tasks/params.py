"""params.yaml as typed, strict values: one section per stage for what is shared, one block per student.

Defaults live in params.yaml alone. An unknown key, a wrong type or a value out of range is refused with
one line that names the key.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from models.errors import UserError

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Weight = Annotated[float, Field(ge=0)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
NAME = re.compile(r"^[a-z][a-z0-9-]{0,62}$")


class Section(BaseModel):
    """Base of all sections: immutable, strict types, no unknown keys."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Split(Section):
    """Shares of the input groups that go to validation and test; the rest trains."""

    val: Annotated[float, Field(gt=0, lt=0.5)]
    test: Annotated[float, Field(gt=0, lt=0.5)]


class Ingest(Section):
    """Which inputs there are and how they are split."""

    folder: str  # photos and videos, searched recursively; relative to the repository or absolute
    libraries: list[Literal["scikit-image", "scikit-learn"]]
    seed: Count
    min_side: Positive  # pixels; smaller images are set aside
    max_side: Positive  # pixels; longer images are scaled down to it
    min_chroma: Weight  # mean distance from grey on a scale of 0..255; below it an image is grey-only
    frames_per_second: PositiveFloat  # sampled from each video
    max_frames: Positive  # per video
    near_duplicate_bits: Count  # perceptual hashes at most this far apart are one group
    split: Split


class Generate(Section):
    """How the teacher is run."""

    shard_size: Positive  # pairs in a shard: the most that a kill can cost
    batch_size: Positive  # pairs the teacher sees at once
    workers: Positive  # processes


class Curate(Section):
    """When a pair is dropped."""

    near_duplicate_bits: Count  # between the perceptual hashes of two inputs' crops
    min_change: Fraction  # mean absolute difference between input and teacher output
    min_contrast: Fraction  # standard deviation of the teacher output
    max_clipped: Fraction  # share of teacher values that lie outside [0,1]


class TrainShared(Section):
    """What all trainings share."""

    threads: Positive  # fixed, so that sums are added in the same order on every machine
    checkpoint_every: Positive  # steps between resume checkpoints
    validate_every: Positive  # steps between passes over the validation pairs


class Quantise(Section):
    """How the exported files are made."""

    calibration_samples: Positive
    parity_samples: Positive


class Benchmark(Section):
    """How latency is measured."""

    warmup: Count
    runs: Positive
    threads: Annotated[list[Positive], Field(min_length=1)]


class Evaluate(Section):
    """What the report shows."""

    grid: Positive  # images each of best, median and worst


class PainterTeacher(Section):
    """The weightless painterly renderer (models/teachers/painter.py)."""

    kind: Literal["painter"]
    name: str
    version: Positive
    style: Literal["oil", "sketch"]


class OnnxTeacher(Section):
    """Any image-to-image ONNX model; its file is checked against sha256 before use."""

    kind: Literal["onnx"]
    name: str
    version: Positive
    path: str
    sha256: Sha256


Teacher = Annotated[PainterTeacher | OnnxTeacher, Field(discriminator="kind")]


class Pairs(Section):
    """Which crops of each input the teacher is asked for."""

    size: Annotated[int, Field(ge=64, multiple_of=32)]  # pixels, both sides; also the student's input size
    train_crops: Positive  # per training input
    held_out_crops: Positive  # per validation or test input
    min_scale: Annotated[float, Field(gt=0, le=1)]  # smallest crop side over the input's short side
    recolour: Fraction  # share of the training crops whose hues are turned, for colours the inputs lack
    seed: Count


class Architecture(Section):
    """A UNet: timm encoder, MobileNet-block decoder (models/students.py)."""

    encoder: str  # a timm model with features_only, such as mobilenetv4_conv_small_050
    decoder_channels: Annotated[list[Positive], Field(min_length=2)]  # from the deepest level to half resolution
    skip: Literal["add", "concat"]
    upsample: Literal["bilinear", "nearest"]
    head: Literal["pixel-shuffle", "full-resolution"]


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


class Gate(Section):
    """What a student must reach; see tasks/gate.py."""

    min_explained_effect: Fraction
    min_above_colour_affine: Fraction  # explained effect beyond the best global colour map's
    min_sharpness_ratio: Weight  # Laplacian energy over the teacher's
    max_sharpness_ratio: PositiveFloat
    min_chroma_ratio: Weight
    min_int8_psnr_db: PositiveFloat  # int8 against the same student's float output, mean over test images
    max_p90_ms: PositiveFloat  # of the int8 LiteRT file on one thread
    max_bundle_mib: PositiveFloat
    min_test_samples: Positive


class Student(Section):
    """One block under `students:`: everything that makes one student."""

    task: Literal["image-to-image"]
    teacher: Teacher
    pairs: Pairs
    architecture: Architecture
    init: str  # a folder with student.json and, unless it says scratch, weights.safetensors
    train: Train
    gate: Gate

    @model_validator(mode="after")
    def _crop_fits(self) -> "Student":
        if self.train.crop > self.pairs.size:
            raise ValueError(f"train.crop {self.train.crop} is larger than pairs.size {self.pairs.size}")
        return self


class Params(Section):
    """The whole of params.yaml."""

    ingest: Ingest
    generate: Generate
    curate: Curate
    train: TrainShared
    quantise: Quantise
    benchmark: Benchmark
    evaluate: Evaluate
    students: Annotated[dict[str, Student], Field(min_length=1)]

    @field_validator("students")
    @classmethod
    def _plain_names(cls, students: dict[str, Student]) -> dict[str, Student]:
        for name in students:
            if not NAME.match(name):
                raise ValueError(f"student name {name!r}: use small letters, digits and -, beginning with a letter")
        return students

    def student(self, name: str) -> Student:
        """The block of one student, or one line with the names there are."""
        if name not in self.students:
            raise UserError(f"no student {name!r} in params.yaml; there are: {', '.join(self.students)}")
        return self.students[name]


def _plain(error: ValidationError) -> str:
    # An unknown key first: what it was meant to be is then missing too.
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    # The discriminator of a union is no key of the file.
    keys = [str(part) for part in first["loc"] if part not in ("painter", "onnx") or first["loc"][-1] == part]
    key = ".".join(keys)
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        return f"params.yaml: unknown key {key}{more}"
    if first["type"] == "missing":
        return f"params.yaml: missing key {key}{more}"
    return f"params.yaml: {key or 'top level'}: {first['msg']}, got {first['input']!r:.80}{more}"


def check_files(params: Params, student: str) -> None:
    """Refuse paths that lead nowhere before anything starts, naming the key."""
    block = params.student(student)
    wanted = {"ingest.folder": params.ingest.folder, f"students.{student}.init": block.init}
    for key, path in wanted.items():
        if not Path(path).is_dir() and not path.startswith("data/students/"):
            raise UserError(f"params.yaml: {key}: no folder at {path}")
    if block.teacher.kind == "onnx" and not Path(block.teacher.path).is_file():
        raise UserError(f"params.yaml: students.{student}.teacher.path: no file at {block.teacher.path}")


def parse_params(raw: Any) -> Params:
    """Check a parsed YAML value against the schema; raises UserError naming the first wrong key."""
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        raise UserError(_plain(error)) from None


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check params.yaml; raises UserError with one line."""
    try:
        raw = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UserError(f"no {path} here: run this from the repository's root") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    return parse_params(raw)
