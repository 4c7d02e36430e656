"""The sections of params.yaml that all students share, one a stage or command; tasks/curate_params.py has `curate`."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, field_validator, model_validator

from tasks.curate_params import FaceEmbedding
from tasks.schema import Count, Fraction, Positive, PositiveFloat, Precision, Section, Weight
from tasks.target import check_target


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
