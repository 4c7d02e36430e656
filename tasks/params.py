"""params.yaml as typed, strict values: one section per stage for what is shared, one block per student.

Defaults live in params.yaml alone. An unknown key, a wrong type or a value out of range is refused with
one line that names the key.
"""

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field, StringConstraints, ValidationError, field_validator, model_validator

from models.errors import UserError
from models.teachers import SAMPLING
from models.teachers.pinned import places
from tasks.chat_params import Written
from tasks.curate_params import Curate, FaceEmbedding
from tasks.schema import Count, Fraction, Positive, PositiveFloat, Precision, Section, Weight
from tasks.target import LOCAL, check_target
from tasks.teacher_params import TAGS, Teacher

NAME = re.compile(r"^[a-z][a-z0-9-]{0,62}$")
# The C parser reads 1,000 students in about a second, Python's own in ten; not every PyYAML has it.
YAML_LOADER: type[yaml.CSafeLoader | yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


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


class Exportability(Section):
    """What an untrained student's files may hold before it is trained; a limit in `only_warn` is told, not kept."""

    calibration_samples: Positive  # random pictures; where the islands are does not depend on what is shown
    runs: Positive  # of each file, timed in turn
    max_partitions: Positive  # delegates of a LiteRT file
    max_fallbacks: Count  # operations of a LiteRT file that no delegate takes
    max_float_islands: Count  # connected parts of the int8 LiteRT file that compute in float32
    max_onnx_float_operations: Count  # operations that ONNX Runtime's quantiser has no form of
    max_transposes: Count  # of a LiteRT file
    max_dynamic_shapes: Count  # operations whose output's size hangs on the picture
    max_concatenations: Count
    max_full_resolution: Count  # convolutions that give as many pixels as the picture has
    max_latency_over_budget: PositiveFloat  # predicted p50 of the int8 LiteRT file over gate.max_p90_ms
    only_warn: list[str]

    @model_validator(mode="after")
    def _only_limits_warn(self) -> "Exportability":
        limits = [name for name in type(self).model_fields if name.startswith("max_")]
        for name in self.only_warn:
            if name not in limits:
                raise ValueError(f"only_warn: no limit {name!r}; there are: {', '.join(limits)}")
        return self


class Generate(Section):
    """How the teacher is run."""

    shard_size: Positive  # pairs in a shard: the most that a kill can cost
    batch_size: Positive  # pairs the teacher sees at once
    workers: Positive  # processes, or actors on the cluster: at most so many, as soon as there is room for each
    # "" is this machine; a Ray cluster of which this machine is a node is "auto" or HOST:PORT. It changes no byte.
    cluster: Annotated[str, StringConstraints(pattern=r"^(auto|[^\s/]+:[0-9]+)?$")]
    gpus_per_actor: Fraction  # share of a GPU that each actor on the cluster takes; 0 keeps it off the GPUs


class Splits(Section):
    """What may not be on two sides of the split (tasks/splits.py)."""

    near_duplicate_bits: Count  # photos whose perceptual hashes are at most this far apart, mirrored or not
    nearest: Count  # photos of each other side that a photo is compared with, for cut-outs; 0 looks for none
    # Correlation from which a photo counts as cut out of another; different photos come to 0.91 at most, cut-outs of
    # 0.95 down to 0.7 of a photo's side mostly to more (docs/decisions/0020-coverage.md).
    min_fit: Fraction
    # Cosine of two faces from which they are one person; 1 looks for none. What `gradients` says of different people
    # comes to 0.79 at most; it knows a person again in one recording, hardly on another day.
    min_same_face: Fraction
    faces: FaceEmbedding  # what the cosine is taken of: gradients, or an ONNX file of yours (tasks/faces.py)
    crop_bits: Count  # crops of kept pairs whose hashes are at most this far apart, mirrored or not


class TrainShared(Section):
    """What all trainings share."""

    threads: Positive  # fixed, as sums are added in another order else
    # That share each batch, and the threads among them. On CPU two of one thread each are faster than one of two; where
    # there are GPUs, one a GPU.
    processes: Positive
    precision: Literal["no", "bf16"]  # bf16 pays on a GPU; CPUs are slower with it
    compile: bool  # by torch.compile, which pays on a GPU
    checkpoint_every: Positive  # steps between resume checkpoints
    validate_every: Positive  # steps between passes over the validation pairs


class Precisions(Section):
    """Which files are made, by runtime (tasks/schema.py says what the precisions are)."""

    litert: list[Precision]
    onnx: list[Literal["fp32", "fp16", "int8"]]  # it has no kernels for int16 activations

    @field_validator("litert", "onnx")
    @classmethod
    def _the_two_that_others_need(cls, precisions: list[str]) -> list[str]:
        if not {"fp32", "int8"} <= set(precisions) or len(set(precisions)) < len(precisions):
            raise ValueError("fp32 and int8 must be there, each precision once")
        return precisions


class Quantise(Section):
    """How the exported files are made."""

    calibration_samples: Positive  # training inputs
    parity_samples: Positive  # validation inputs
    max_float_difference: PositiveFloat  # of a float32 file's pictures to torch's, values in [0,1], at every size
    min_float_psnr_db: PositiveFloat  # of the same, on the worst picture
    precisions: Precisions
    # Of int8 against the float file of the same runtime on the validation inputs; layers stay in float until it holds.
    min_psnr_db: PositiveFloat
    min_worst_psnr_db: PositiveFloat


class Detector(Section):
    """What tells an app that a frame lies outside what the student was taught on (tasks/detector.py)."""

    fitted_on: Count  # training inputs at most, evenly over them; 0 leaves the whole stage out
    # The picture itself at all its scales, the student's encoder, or both, of which the further counts. The encoder
    # takes longer and finds less on all that was tried (docs/decisions/0019-outside.md).
    looks_at: Annotated[list[Literal["picture", "encoder"]], Field(min_length=1)]
    # Shares of pictures like those of training on which the effect may begin to fade, and may be gone: false alarms.
    fades: Annotated[float, Field(gt=0, le=0.5)]
    passes: Annotated[float, Field(gt=0, le=0.5)]
    runs: Positive  # of its file and the student's, timed in turn

    @field_validator("looks_at")
    @classmethod
    def _at_each_once(cls, looks_at: list[str]) -> list[str]:
        if len(set(looks_at)) < len(looks_at):
            raise ValueError("picture and encoder, each once at most")
        return looks_at

    @model_validator(mode="after")
    def _fades_before_it_is_gone(self) -> "Detector":
        if self.passes >= self.fades:
            raise ValueError(
                f"passes {self.passes} must be less than fades {self.fades}: an effect fades before it goes"
            )
        return self


class Benchmark(Section):
    """How and where latency is measured."""

    warmup: Count
    runs: Positive
    threads: Annotated[list[Positive], Field(min_length=1)]
    # local, browser, ssh:user@host[:port], adb or adb:SERIAL (tasks/target.py)
    targets: Annotated[list[Annotated[str, AfterValidator(check_target)]], Field(min_length=1)]
    sustained_s: Weight  # seconds without a pause, by which a machine that slows down shows; 0 leaves it out
    frames: Count  # of a 720p clip, for the budget of a video frame; 0 leaves it out
    benchmark_model: str  # path of TensorFlow Lite's benchmark_model for Android, for adb; "" where there is none

    @field_validator("targets")
    @classmethod
    def _each_once(cls, targets: list[str]) -> list[str]:
        if len(set(targets)) < len(targets):
            raise ValueError("a target is named twice")
        return targets


class Evaluate(Section):
    """What the report shows."""

    grid: Positive  # images each of best, median and worst


class Video(Section):
    """How flicker is measured beside the teacher's (tasks/video.py)."""

    photos: Count  # test pictures that are moved and made noisy; 0 leaves the whole stage out
    frames: Annotated[int, Field(ge=2)]  # of each picture and kind of flicker
    noise: PositiveFloat  # standard deviation of the sensor noise, in levels of 255
    clips: str  # a folder with videos, searched recursively
    max_clips: Count  # the first so many of them
    clip_frames: Annotated[int, Field(ge=2)]  # consecutive ones of each, and of the clip in the report
    costly_teachers: bool  # whether teachers whose pictures cost money or hours (an API, an inversion) are asked too


class Retrain(Section):
    """How bumps of the teacher are followed (flows/retrain.py)."""

    base: str  # the commit whose pins count: HEAD, or origin/main on a machine that follows a server
    teacher_samples: Positive  # test inputs on which a new teacher is compared with the old one
    # Whose weights a retrain begins with: the champion's, where it has the block's architecture and was not cut
    # (tasks/starts.py), or what the block's `init` says.
    start: Literal["champion", "init"]


class Drift(Section):
    """When the inputs the app sees have left those the student was taught on (tasks/drift.py)."""

    folder: str  # recent photos, or feature histograms (*.json) where photos may not leave the phones
    min_inputs: Positive  # fewer say nothing
    max_inputs: Positive  # of either side, drawn by seed
    max_p_value: Fraction  # of a permutation test; above it there is no drift
    min_distance: Weight  # what a drift must measure besides being significant, to be worth a retrain
    permutations: Positive
    seed: Count


class Coverage(Section):
    """What the coverage report takes for a lack (tasks/coverage.py)."""

    max_inputs: Positive  # of each side and of the serving folder, drawn by seed, one of each group
    min_slice: Positive  # pictures of a slice, of training and serving together; one with fewer is named, not judged
    # What a serving share must be over training's, at the lower end of its interval, for training to lack the slice.
    min_ratio: Annotated[float, Field(ge=1)]
    seed: Count


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


class Gate(Section):
    """What a student must reach, and what it must reach against the champion; see tasks/gate.py."""

    # Quality, against the (new) teacher's pictures of the test inputs.
    min_explained_effect: Fraction
    min_explained_effect_low: Fraction  # the lower end of its 95 % bootstrap interval over photos
    min_above_colour_affine: Fraction  # explained effect beyond the best global colour map's
    min_worst_slice: Annotated[float, Field(ge=-1, le=1)]  # explained effect on the slice where it is least
    min_sharpness_ratio: Weight  # Laplacian energy over the teacher's
    max_sharpness_ratio: PositiveFloat
    min_chroma_ratio: Weight
    min_int8_psnr_db: PositiveFloat  # int8 against the same student's float output, mean over test images
    max_banding: PositiveFloat  # levels of 255: what int8 adds to smooth gradients and plain areas (models/banding.py)
    max_flicker: PositiveFloat  # levels of 255: what changes under camera motion beyond the motion itself
    # Ratio, the worst of the kinds that tasks/video.py makes from stills; not judged where the teacher was not asked.
    max_flicker_over_teacher: PositiveFloat
    # Share of the test inputs on which the detector has the effect fade; not judged where the stage is left out.
    max_detector_false_positives: Fraction
    max_dropped: Fraction  # of all the teacher's answers, dropped by curation for what they show
    # Of the test pictures (tasks/failures.py); not judged where there are too few pairs to say what is usual.
    max_copied_failures: Fraction  # on which the student repeats a failure of its teacher's
    max_invented_failures: Fraction  # on which it fails and its teacher does not
    min_test_samples: Positive
    # Quality against the champion, both on the same inputs; not judged where there is no champion.
    min_gain_over_champion: float  # explained effect of the new teacher: the lower end of the paired 95 % interval
    min_worst_slice_gain: float  # the least gain over all slices
    max_flicker_over_champion: PositiveFloat  # ratio
    max_structure_drop: Weight  # of the input's edges kept, champion minus candidate; asks no teacher
    # Runs on target.
    target: Annotated[str, AfterValidator(check_target)] = LOCAL  # where max_p90_ms is to hold; of benchmark.targets
    max_p90_ms: PositiveFloat  # of the int8 LiteRT file on one thread; in a browser of the float32 ONNX file
    max_bundle_mib: PositiveFloat
    max_p90_over_champion: PositiveFloat  # ratio, both timed in turn in one run
    max_size_over_champion: PositiveFloat  # ratio of the int8 LiteRT files


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


# Keys below a student's block, joined by dots, and the values they have in that profile.
Profile = dict[str, bool | int | float | str]


class Params(Section):
    """The whole of params.yaml."""

    ingest: Ingest
    exportability: Exportability
    generate: Generate
    curate: Curate
    splits: Splits
    train: TrainShared
    quantise: Quantise
    detector: Detector
    benchmark: Benchmark
    video: Video
    evaluate: Evaluate
    retrain: Retrain
    drift: Drift
    coverage: Coverage
    # By the name of a data set: texts for it that a language model writes (tasks/written.py).
    written: dict[Annotated[str, StringConstraints(pattern=NAME.pattern)], Written] = Field(default={})
    profiles: dict[str, Profile]  # by name: a smaller run, such as CI makes of a pull request
    students: Annotated[dict[str, Student], Field(min_length=1)]

    @field_validator("students")
    @classmethod
    def _plain_names(cls, students: dict[str, Student]) -> dict[str, Student]:
        for name in students:
            if not NAME.fullmatch(name):
                raise ValueError(f"student name {name!r}: use small letters, digits and -, beginning with a letter")
        return students

    @model_validator(mode="after")
    def _gates_ask_what_is_measured(self) -> "Params":
        for name, block in self.students.items():
            if block.gate.target not in self.benchmark.targets:
                raise ValueError(
                    f"students.{name}.gate.target {block.gate.target} is not among benchmark.targets "
                    f"({', '.join(self.benchmark.targets)})"
                )
        return self

    @model_validator(mode="after")
    def _batches_can_be_shared(self) -> "Params":
        for name, block in self.students.items():
            if block.train.batch_size % self.train.processes:
                raise ValueError(
                    f"students.{name}.train.batch_size {block.train.batch_size} is no multiple of train.processes "
                    f"{self.train.processes}, which share it evenly"
                )
        return self

    def student(self, name: str) -> Student:
        """The block of one student, or one line with the names there are."""
        if name not in self.students:
            raise UserError(f"no student {name!r} in params.yaml; there are: {', '.join(self.students)}")
        return self.students[name]


def _plain(error: ValidationError, where: str = "params.yaml") -> str:
    # An unknown key first: what it was meant to be is then missing too.
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    tags = TAGS if "teacher" in first["loc"] else ()  # elsewhere `onnx` is a key as any other
    keys = [str(part) for part in first["loc"] if part not in tags or first["loc"][-1] == part]
    key = ".".join(keys)
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        return f"{where}: unknown key {key}{more}"
    if first["type"] == "missing":
        return f"{where}: missing key {key}{more}"
    got = "" if keys[-1:] == ["key_variable"] else f", got {first['input']!r:.80}"  # it may be the key itself
    return f"{where}: {key or 'top level'}: {first['msg']}{got}{more}"


def check_files(params: Params, student: str) -> None:
    """Refuse paths that lead nowhere before anything starts, naming the key."""
    block = params.student(student)
    wanted = {
        "ingest.folder": params.ingest.folder,
        "video.clips": params.video.clips,
        f"students.{student}.init": block.init,
        f"students.{student}.train.replay.pairs": block.train.replay.pairs,
    }
    for key, path in wanted.items():
        if not Path(path).is_dir() and not path.startswith("data/students/"):
            raise UserError(f"params.yaml: {key}: no folder at {path}")
    faces = params.curate.faces
    if faces.kind == "onnx" and not Path(faces.path).is_file():
        raise UserError(f"params.yaml: curate.faces.path: no file at {faces.path}")
    for place in places(block.teacher.model_dump()):
        if not (place.is_here or place.revision):
            raise UserError(f"params.yaml: students.{student}.teacher.{place.key}: nothing lies at {place.where}")


def with_profile(block: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a student's block with the values of a profile; the given block, whose parts may be shared, stays."""
    changed = copy.deepcopy(block)
    for key, value in overrides.items():
        *path, last = key.split(".")
        place = changed
        for part in path:
            place = place.get(part)  # type: ignore[assignment]
            if not isinstance(place, dict):
                raise UserError(f"unknown key {key}")
        if path[:1] == ["teacher"] or key in ("teacher", "task"):
            raise UserError(f"{key} may not be changed: a profile makes the same student from the same teacher")
        place[last] = value
    return changed


def changed_student(block: Student, overrides: Mapping[str, Any], where: str) -> Student:
    """A student's block with other values at keys joined by dots; UserError with `where` if it does not fit."""
    try:
        return Student.model_validate(with_profile(block.model_dump(), overrides))
    except ValidationError as error:
        raise UserError(_plain(error, where)) from None
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _check_profiles(params: Params) -> None:
    """Refuse a profile that does not fit every student, before it is wanted in the middle of a night."""
    for profile, overrides in params.profiles.items():
        for name, block in params.students.items():
            changed_student(block, overrides, f"params.yaml: profiles.{profile} for student {name}")


def parse_params(raw: Any) -> Params:
    """Check a parsed YAML value against the schema; raises UserError naming the first wrong key."""
    try:
        params = Params.model_validate(raw)
    except ValidationError as error:
        raise UserError(_plain(error)) from None
    _check_profiles(params)
    return params


def parse_yaml(text: str, what: str = "params.yaml") -> Any:
    """The value of a YAML text; raises UserError with one line that names it as `what`."""
    try:
        return yaml.load(text, Loader=YAML_LOADER)
    except yaml.YAMLError as error:
        raise UserError(f"{what} is not YAML: {' '.join(str(error).split())}") from None


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check params.yaml; raises UserError with one line."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise UserError(f"no {path} here: run this from the repository's root") from None
    return parse_params(parse_yaml(text, str(path)))
