"""The `teacher:` blocks of params.yaml, one for each kind; what they mean is told in models/teachers/."""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationInfo, field_validator

from models.teachers import REMOTE
from tasks.schema import Count, Fraction, Positive, PositiveFloat, Section, Sha256, Weight


class PainterTeacher(Section):
    """The weightless painterly renderer (models/teachers/painter.py)."""

    kind: Literal["painter"]
    name: str
    version: Positive
    style: Literal["oil", "sketch", "comic"]


class OnnxTeacher(Section):
    """Any image-to-image ONNX model; its file is checked against sha256 before use."""

    kind: Literal["onnx"]
    name: str
    version: Positive
    path: str
    sha256: Sha256


class HubModel(Section):
    """A model in a folder, or on the Hugging Face hub at a revision; its files are checked before use."""

    model: str  # a folder, or the hub's OWNER/NAME
    revision: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{40})?$")] = ""  # the hub's: a commit, whole
    sha256: Sha256  # `understudy teacher sha256 MODEL` tells it


class ControlNet(HubModel):
    """A ControlNet beside the pipeline, and what of the picture it is shown."""

    shows: Literal["picture", "edges"]


class DiffusersTeacher(HubModel):
    """Any image-to-image pipeline of diffusers (models/teachers/diffusion.py)."""

    kind: Literal["diffusers"]
    name: str
    version: Positive
    call: dict[str, str | bool | int | float]  # the pipeline's own arguments: prompt, strength, num_inference_steps ...
    scheduler: str = ""  # a class of diffusers, such as LCMScheduler; "" is the pipeline's own
    size: Annotated[int, Field(ge=0, multiple_of=8)] = 0  # pixels: it works at this size, and back; 0 is pairs.size
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    control: ControlNet | None = None


class GenaiTeacher(Section):
    """A picture model behind Google's API (models/teachers/genai.py); who pays is told by the environment."""

    kind: Literal["genai"]
    name: str
    version: Positive
    model: str  # imagen-3.0-capability-001, gemini-2.5-flash-image ...
    call: dict[str, str | bool | int | float]  # `prompt`, and what google-genai's configuration of the call takes
    size: Annotated[int, Field(ge=0)] = 0  # pixels of the pictures it is sent; 0 is pairs.size
    calls_per_minute: PositiveFloat
    max_calls: Positive  # over all runs of this teacher
    price_per_call: Weight  # in the currency of max_cost
    max_cost: Weight

    @field_validator("call")
    @classmethod
    def _has_a_prompt(cls, call: dict[str, str | bool | int | float]) -> dict[str, str | bool | int | float]:
        if not call.get("prompt"):
            raise ValueError("`prompt` is missing: say what the picture is to become")
        return call


class File(Section):
    """A file, checked before use."""

    path: str
    sha256: Sha256


class DirectionEdit(File):
    """A direction in W: a .npy of shape (w_dim,) or (layers,w_dim)."""

    by: Literal["direction"]


class TextOptimisationEdit(Section):
    """What CLIP finds nearest to a text, sought anew for every picture (StyleCLIP, section 4)."""

    by: Literal["text-optimisation"]
    text: str
    clip: HubModel
    steps: Positive = 100
    learning_rate: PositiveFloat = 0.1
    stay: Weight = 0.008  # weight of the squared distance from the picture's own latent


class TextDirectionEdit(Section):
    """One direction for all pictures, from the styles' effect on CLIP (StyleCLIP, section 6)."""

    by: Literal["text-direction"]
    text: str
    neutral: str  # what the pictures show without the edit
    clip: HubModel
    beta: Fraction = 0.15  # least agreement of a style channel with the text; more moves fewer channels
    samples: Positive = 100  # pictures on which each channel's effect is measured, once


class Inversion(Section):
    """Projection and pivotal tuning (Roich et al. 2021, whose figures these are)."""

    space: Literal["w", "w+"] = "w"
    steps: Positive = 450
    learning_rate: PositiveFloat = 0.005
    noise_weight: Weight = 100_000.0
    tuning_steps: Count = 350
    tuning_rate: PositiveFloat = 0.0003
    pixel: Weight = 1.0
    perceptual: Weight = 1.0
    stop: Weight = 0.06  # perceptual distance at which tuning ends


class Stylegan2Teacher(HubModel):
    """A StyleGAN2 generator and an edit of its latents (models/teachers/stylegan2/)."""

    kind: Literal["stylegan2"]
    name: str
    version: Positive
    edit: Annotated[DirectionEdit | TextOptimisationEdit | TextDirectionEdit, Field(discriminator="by")]
    # Of the edit; of two, each pair's seed draws one between them.
    strength: float | Annotated[list[float], Field(min_length=2, max_length=2)]
    truncation: Fraction = 0.7  # of the pairs that are drawn from nothing
    inversion: Inversion = Inversion()
    perceptual: File | None = None  # AlexNet or VGG16 as torchvision's, for LPIPS; else a Laplacian pyramid


class StudentTeacher(Section):
    """A trained student (models/teachers/student.py); its folder is checked against sha256 before use."""

    kind: Literal["student"]
    name: str
    version: Positive
    path: str  # a folder with student.json and weights.safetensors
    sha256: Sha256  # of the folder: `understudy teacher sha256 FOLDER` tells it


class Part(Section):
    """One of several teachers, and what of the picture is its."""

    teacher: Annotated[
        PainterTeacher | OnnxTeacher | DiffusersTeacher | Stylegan2Teacher | StudentTeacher, Field(discriminator="kind")
    ]
    weight: Weight | None = None  # its share of every pixel, over the sum of all
    # Its own region; `rest` is what those of the others leave.
    region: Literal["shadows", "midtones", "highlights", "centre", "surround", "rest"] | None = None
    mask: File | None = None  # an ONNX model of a region: (1,3,H,W) in [0,1] -> (1,1,H,W) in [0,1]

    @field_validator("teacher", mode="before")
    @classmethod
    def _one_that_is_here(cls, teacher: Any) -> Any:
        kind = teacher.get("kind") if isinstance(teacher, dict) else None
        if kind in REMOTE:
            raise ValueError(f"a {kind} teacher cannot be one of several: it is paid by the picture, ask it alone")
        if kind == "several":
            raise ValueError("several teachers within several: name them all in one list")
        return teacher


class SeveralTeacher(Section):
    """Teachers whose pictures are put together (models/teachers/several.py)."""

    kind: Literal["several"]
    name: str
    version: Positive
    by: Literal["weight", "region"]
    teachers: Annotated[list[Part], Field(min_length=2)]

    @field_validator("teachers")
    @classmethod
    def _each_has_its_part(cls, teachers: list[Part], info: ValidationInfo) -> list[Part]:
        by = info.data.get("by")
        weights = [part.weight for part in teachers]
        if by == "weight" and (None in weights or any(part.region or part.mask for part in teachers)):
            raise ValueError("by weight: each needs a `weight`, and no `region` or `mask`")
        if by == "weight" and not sum(weight or 0 for weight in weights):
            raise ValueError("by weight: all weights are 0")
        if by == "region" and any(
            part.weight is not None or (part.region is None) == (part.mask is None) for part in teachers
        ):
            raise ValueError("by region: each needs a `region` or a `mask`, and no `weight`")
        return teachers


Teacher = Annotated[
    PainterTeacher | OnnxTeacher | DiffusersTeacher | GenaiTeacher | Stylegan2Teacher | StudentTeacher | SeveralTeacher,
    Field(discriminator="kind"),
]

# What tells the blocks of a union apart; such a word is no key of the file.
TAGS = {
    *("painter", "onnx", "diffusers", "genai", "stylegan2", "student", "several"),
    *("direction", "text-optimisation", "text-direction"),
    *("network", "transformers"),
}
