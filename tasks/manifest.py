"""manifest.json of a bundle: its schema, and the check that whoever receives a bundle makes before using it."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, JsonValue, StringConstraints, ValidationError, model_validator

from models.errors import UserError
from tasks.files import check_sha256, read_json
from tasks.schema import Count, Fraction, Positive, PositiveFloat, Precision, Section, Sha256

SCHEMA = "understudy-bundle/1"
MANIFEST = "manifest.json"
# A plain name: it cannot leave the folder, hide in it or be an option of a command.
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


class Part(Section):
    """Base of the manifest's parts: as strict as params.yaml, and every number finite."""

    model_config = ConfigDict(allow_inf_nan=False)


class Tensor(Part):
    """One picture in or out of a model file."""

    shape: tuple[Positive, Positive, Positive, Positive]
    dtype: Literal["float32"]
    layout: Literal["NHWC", "NCHW"]
    range: tuple[float, float]  # of every value
    colour: Literal["RGB"]


class Tokens(Part):
    """What a text classifier's file takes: two inputs, `ids` and `mask`, the mask 1 where there is a token."""

    names: tuple[Literal["ids"], Literal["mask"]]
    shape: tuple[Positive, Positive]  # of each; the second is the most tokens of a text
    dtype: Literal["int32", "int64"]
    shorter: bool  # whether fewer tokens may be given; else rows are filled up with the tokenizer's `pad`, mask 0


class TokenizerFile(Part):
    """What makes tokens of texts: a file of the library tokenizers."""

    file: FileName
    sha256: Sha256
    bytes: Positive
    max_tokens: Positive
    truncate: bool  # whether the student learnt from the beginnings of longer texts, or from none
    pad: Count  # the token that fills


class Logits(Part):
    """What a classifier's file gives: a number a class, in the order of `classes`; softmax makes shares of them."""

    shape: tuple[Positive, Positive]
    dtype: Literal["float32"]


class LabelParity(Part):
    """A classifier's file against torch, on validation examples."""

    max_abs: float  # of any logit
    max_relative: float  # the same over the logits' standard deviation
    agreement: Fraction  # on the class


class LabelQuality(Part):
    """Of a classifier's file on the test examples; null where there are no labels."""

    accuracy: float | None
    agreement: float | None  # with the teacher
    worst_class: float | None  # accuracy on the class where it is least
    ece: float | None  # expected calibration error, 15 bins


class Parity(Part):
    """A file's output against the torch student's; null where they do not differ at all."""

    max_abs: float
    psnr_db: float | None
    worst_psnr_db: float | None


class SupportedSize(Part):
    """A size of pictures that the weights can be exported for, and how far those float32 files lie from torch."""

    size: Positive  # pixels, both sides
    parity: dict[Literal["litert", "onnx"], Parity]


class Quality(Part):
    """Against the teacher on the test pairs; null where it was not measured."""

    psnr_db: float | None = None
    ssim: float | None = None
    ms_ssim: float | None = None
    explained_effect: float | None = None
    sharpness_ratio: float | None = None
    chroma_ratio: float | None = None
    psnr_to_float_db: float | None = None
    worst_psnr_to_float_db: float | None = None
    banding: float | None = None  # levels of 255, on smooth gradients (models/banding.py)
    grain: float | None = None


class Latency(Part):
    """Of one picture, on one of the benchmark's targets."""

    # Bundles made before there were targets stay readable.
    target: str = "local"  # the machine the manifest describes, or one of `targets`
    provider: str | None = None  # in a browser: wasm or webgpu
    threads: Positive
    p50_ms: float
    p90_ms: float
    p99_ms: float
    peak_mib: float | None
    runs: Positive


class ModelFile(Part):
    """A model an app can load."""

    file: FileName
    sha256: Sha256
    bytes: Positive
    runtime: Literal["litert", "onnx"]
    precision: Precision
    input: Tensor | Tokens
    output: Tensor | Logits
    parity: Parity | LabelParity
    quality: Quality | LabelQuality
    latency: list[Latency]
    high: tuple[str, ...] = ()  # of an int8 file: layers left in float32, so that it looks the same
    fastest: bool = False  # of its runtime on the machine that made the bundle, one thread: the one to take there


class SliderFile(ModelFile):
    """A model with the effect's strength as a second input, float32 (1,) in [0,1], or with a fixed one built in."""

    strength: float | None  # None where it is the input


class DetectorFile(Part):
    """A model that takes a picture and gives how far it lies outside, float32 (1,)."""

    file: FileName
    sha256: Sha256
    bytes: Positive
    runtime: Literal["litert", "onnx"]
    precision: Literal["fp32"]
    input: Tensor
    departure: float  # of its scores from torch's, relative, at most


class Alarm(Part):
    """How often ordinary pictures are taken for unusual ones."""

    asked: Fraction
    by: Literal["photos", "extrapolation"]  # whether enough photos vouch for that rate
    found: Fraction  # of the test inputs
    interval: Annotated[list[float], Field(min_length=2, max_length=2)]  # 95 %, were other photos drawn
    samples: Count
    photos: Count


class ShiftedSet(Part):
    """Test inputs as the student is not meant to see them, and how well they are told from the test inputs."""

    name: str
    samples: Count
    auroc: Fraction
    fpr_at_95: Fraction  # ordinary pictures taken for unusual where 95 % of the set are found
    fades: Fraction  # share of the set on which the effect fades, some or all
    passes: Fraction  # and on which it is gone


class DetectorPart(Part):
    """What tells an app that the student was not taught on such a frame (docs/outside.md)."""

    files: Annotated[list[DetectorFile], Field(min_length=1)]
    looks_at: list[Literal["picture", "encoder"]]
    fades_at: PositiveFloat = 1.0  # score from which on the effect fades
    passes_at: Annotated[float, Field(gt=1)]  # score from which on it is gone
    alarms: dict[Literal["fades", "passes"], Alarm]
    sets: list[ShiftedSet]
    time_share: PositiveFloat  # of the student's time on the machine that made the bundle, when run on every frame


class Document(Part):
    """A file for people."""

    file: FileName
    sha256: Sha256
    bytes: Positive


class TeacherPin(Part):
    """Whom the student imitates."""

    name: str
    version: Positive
    digest: Sha256


class Digests(Part):
    """What the student was made from."""

    teacher: TeacherPin
    pairs: Sha256
    weights: Sha256


class Rule(Part):
    """A row of the gate's decision table (tasks/gate.py)."""

    name: str
    value: float | None
    limit: float
    passed: bool
    reason: str
    # Bundles made before these were written stay readable: a champion may be one.
    against: str = ""  # the reference, in words
    blessing: Literal["quality", "target"] | None = None


class GateOutcome(Part):
    """Whether this student may ship, and why."""

    passed: bool
    reason: str
    results: list[Rule]


class Manifest(Part):
    """The whole of manifest.json."""

    schema_version: Literal["understudy-bundle/1"] = Field(alias="schema")
    name: str
    task: Literal["image-to-image", "image-classification", "text-classification"]
    classes: list[str] = Field(default_factory=list)  # of a classifier, in the order of its logits
    tokenizer: TokenizerFile | None = None  # of a text classifier
    digests: Digests
    files: Annotated[list[ModelFile], Field(min_length=1)]
    control: list[SliderFile] = Field(default_factory=list)  # besides `files`, which are those at full strength
    detector: DetectorPart | None = None  # None where there are too few photos for one, and in older bundles
    sizes: list[SupportedSize] = Field(default_factory=list)  # that of the files first; older bundles have none
    documents: list[Document]
    # What an identity and a colour map reach on the same test pairs; of a classifier the most frequent class.
    baselines: dict[str, Quality | LabelQuality]
    test_samples: Count
    machine: dict[str, JsonValue]  # where the latency of the target `local` was measured
    # As in benchmark.json: of each target its machine and that one's state, or why it `failed`, and what a 720p video
    # frame costs, step by step. Bundles made before have neither.
    targets: list[dict[str, JsonValue]] = Field(default_factory=list)
    frames: list[dict[str, JsonValue]] = Field(default_factory=list)
    gate: GateOutcome

    @model_validator(mode="after")
    def _names_are_unique(self) -> "Manifest":
        # Compared without case: on some file systems names that differ in case are one file.
        names = [MANIFEST, *(entry.file.lower() for entry in self.entries)]
        if len(set(names)) < len(names):
            raise ValueError("two entries claim one file name")
        return self

    @model_validator(mode="after")
    def _tokens_have_a_tokenizer(self) -> "Manifest":
        longest = {entry.input.shape[1] for entry in self.models if isinstance(entry.input, Tokens)}
        if longest != ({self.tokenizer.max_tokens} if self.tokenizer else set()):
            raise ValueError("files that take tokens and the tokenizer do not belong together")
        return self

    @property
    def entries(self) -> list[ModelFile | DetectorFile | TokenizerFile | Document]:
        """Every file beside manifest.json."""
        return [*self.loaded, *self.documents]

    @property
    def loaded(self) -> list[ModelFile | DetectorFile | TokenizerFile]:
        """Every file that an app loads: the student's, then the detector's and the tokeniser's."""
        return [
            *self.models,
            *(self.detector.files if self.detector else []),
            *([self.tokenizer] if self.tokenizer else []),
        ]

    @property
    def models(self) -> list[ModelFile]:
        """Every model file."""
        return [*self.files, *self.control]

    @property
    def phone(self) -> ModelFile:
        """The file a phone runs: int8 LiteRT, or the first there is."""
        wanted = [entry for entry in self.files if (entry.runtime, entry.precision) == ("litert", "int8")]
        return (wanted or self.files)[0]

    def to_json(self) -> dict[str, Any]:
        """As it is written."""
        unsaid = {name for name in ("control", "detector", "classes", "tokenizer") if not getattr(self, name)}
        return self.model_dump(mode="json", by_alias=True, exclude=unsaid)


def read_manifest(path: Path) -> Manifest:
    """Read and check manifest.json; a UserError for another version, an unknown key or a wrong value."""
    raw = read_json(path)
    found = raw.get("schema") if isinstance(raw, dict) else None
    if found != SCHEMA:
        raise UserError(f"{path}: schema is {found!r:.80}, this version reads {SCHEMA!r}: make the bundle again")
    try:
        # As JSON again, where a list may stand for a tuple.
        return Manifest.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        first = error.errors()[0]
        # Of alternatives, such as Tensor or Tokens, pydantic names the class that was tried; keys are no capitals.
        key = ".".join(str(part) for part in first["loc"] if not str(part)[:1].isupper()) or "top level"
        raise UserError(f"{path}: {key}: {first['msg']}: get the bundle again") from None


def verify_bundle(folder: Path) -> Manifest:
    """The manifest of a bundle whose every file is there, is the one that was written, and is expected.

    Raises a UserError for a missing, changed, surplus or linked file, and for a name that leaves the folder.
    """
    if not folder.is_dir():
        raise UserError(f"no bundle at {folder}: run dvc repro bundle")
    _refuse_odd(folder / MANIFEST)
    manifest = read_manifest(folder / MANIFEST)
    expected = {MANIFEST, *(entry.file for entry in manifest.entries)}
    surplus = sorted({path.name for path in folder.iterdir()} - expected)
    if surplus:
        raise UserError(f"{folder} holds {surplus[0]!r}, which its manifest does not list: get the bundle again")
    for entry in manifest.entries:
        _refuse_odd(folder / entry.file)
        check_sha256(folder / entry.file, entry.sha256, "bundle")
        if (folder / entry.file).stat().st_size != entry.bytes:
            raise UserError(f"bundle: {folder / entry.file} does not have {entry.bytes} bytes: get the bundle again")
    return manifest


def _refuse_odd(path: Path) -> None:
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise UserError(f"bundle: {path} is not a plain file: get the bundle again")
