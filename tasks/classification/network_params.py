"""The `architecture:` and `teacher:` blocks of classifiers in params.yaml, one section for each kind."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from tasks.chat_params import ChatTeacher
from tasks.schema import Count, Positive, PositiveFloat, Section, Sha256

Three = Annotated[list[float], Field(min_length=3, max_length=3)]
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class _Normalised(Section):
    """What pictures in [0,1] become inside of the network: less `mean`, over `std`, both RGB."""

    mean: Three = IMAGENET_MEAN
    std: Annotated[list[PositiveFloat], Field(min_length=3, max_length=3)] = IMAGENET_STD


class ResnetCifar(_Normalised):
    """ResNet for small pictures (models/classification/residual.py)."""

    kind: Literal["resnet-cifar"]
    depth: Positive  # 6n+2: 8, 14, 20, 32, 56, 110
    widths: Annotated[
        list[Positive], Field(min_length=3, max_length=3)
    ]  # channels of the stages; published: 16, 32, 64
    stem: Count = 0  # channels of the first convolution; 0 is those of the first stage, published resnet8x4 has 32
    shortcut: Literal["A", "B"] = "A"  # where the width changes: zeros, or a 1x1 convolution


class WrnCifar(_Normalised):
    """Wide ResNet for small pictures; wrn-40-2 is depth 40 and width 2."""

    kind: Literal["wrn-cifar"]
    depth: Positive  # 6n+4: 10, 16, 22, 28, 40
    width: Positive


class VggCifar(_Normalised):
    """VGG with BatchNorm for small pictures."""

    kind: Literal["vgg-cifar"]
    depth: Literal[8, 11, 13, 16, 19]


class Mobilenetv2Cifar(_Normalised):
    """MobileNetV2 for small pictures; that of the literature on distillation has width 0.5."""

    kind: Literal["mobilenetv2-cifar"]
    width: Annotated[float, Field(ge=0.25, le=4)]  # times the channels
    expand: Positive = 6  # times the channels inside of a block


class Timm(Section):
    """Any picture classifier of timm, without a download."""

    kind: Literal["timm"]
    name: str  # as timm.list_models() has it
    size: Annotated[int, Field(ge=8)]  # pixels, both sides: the dataset's
    mean: Three | None = None  # left out: the model's own
    std: Three | None = None


class Tokens(Section):
    """How texts become ids."""

    by: Literal["teacher", "wordpiece", "bpe"]  # the teacher's own, or one trained on the training texts
    vocabulary: Positive | None = None  # the most tokens that are learnt
    lowercase: bool | None = None
    truncate: bool  # whether texts longer than max_tokens lose their end, or are refused

    @model_validator(mode="after")
    def _says_what_it_learns(self) -> "Tokens":
        learns = self.by != "teacher"
        if any((value is not None) != learns for value in (self.vocabulary, self.lowercase)):
            raise ValueError("vocabulary and lowercase belong to a tokeniser that is trained, and it needs both")
        return self


class Transformer(Section):
    """A small BERT from nothing (models/classification/transformer.py)."""

    kind: Literal["transformer"]
    hidden: Positive  # features of a token, a multiple of heads
    layers: Positive
    heads: Positive
    feed_forward: Positive  # features inside of a layer, usually 4 times hidden
    dropout: Annotated[float, Field(ge=0, lt=1)]
    max_tokens: Annotated[int, Field(ge=3)]  # of a text, the two at its ends among them
    tokens: Tokens


class TransformerLayers(Section):
    """Some layers of a model in a folder, with their weights (DistilBERT, Sanh et al. 2019)."""

    kind: Literal["transformer-layers"]
    path: str  # a folder that save_pretrained wrote: the teacher's
    sha256: Sha256
    layers: Positive  # how many are kept, evenly chosen
    keep: list[Count] | None = None  # or which, by number from 0
    max_tokens: Annotated[int, Field(ge=3)]
    tokens: Tokens

    @model_validator(mode="after")
    def _as_many_as_it_says(self) -> "TransformerLayers":
        if self.keep is not None and len(self.keep) != self.layers:
            raise ValueError(f"keep names {len(self.keep)} layers, and layers says {self.layers}")
        if self.tokens.by != "teacher":
            raise ValueError("tokens.by: layers of a teacher know the teacher's tokens: say teacher")
        return self


ImageArchitecture = Annotated[ResnetCifar | WrnCifar | VggCifar | Mobilenetv2Cifar | Timm, Field(discriminator="kind")]
TextArchitecture = Annotated[Transformer | TransformerLayers, Field(discriminator="kind")]


class _Teacher(Section):
    """What every teacher says: a name, and where it lies."""

    name: str
    version: Positive
    path: str
    sha256: Sha256


class NetworkTeacher(_Teacher):
    """A picture network of an architecture above, its state dict in a safetensors file."""

    kind: Literal["network"]
    architecture: ImageArchitecture


class ImageStudentTeacher(_Teacher):
    """A trained picture classifier of this pipeline, by its folder: born-again networks, assistants."""

    kind: Literal["student"]


class _TextTeacher(_Teacher):
    """What teachers of texts say besides."""

    max_tokens: Annotated[int, Field(ge=3)]  # of a text, those at its ends among them
    truncate: bool  # whether longer ones lose their end, or are refused


class TextStudentTeacher(_TextTeacher):
    """A trained text classifier of this pipeline, by its folder."""

    kind: Literal["student"]


class TransformersTeacher(_TextTeacher):
    """A sequence classifier of transformers, by its folder: config.json, tokenizer.json, safetensors."""

    kind: Literal["transformers"]


class _Several(Section):
    """Several teachers as one."""

    name: str
    version: Positive
    # Of probabilities at temperature 1, each counts as sure as it is; of logits, those with large ones count more.
    mean_of: Literal["probabilities", "logits"]


def _no_several(teacher: Any) -> Any:
    if isinstance(teacher, dict) and teacher.get("kind") == "several":
        raise ValueError("several teachers within several: name them all in one list")
    return teacher


class ImagePart(Section):
    """One of several teachers of pictures."""

    teacher: Annotated[NetworkTeacher | ImageStudentTeacher, Field(discriminator="kind")]
    weight: PositiveFloat  # over the sum of all

    _flat = field_validator("teacher", mode="before")(_no_several)


class TextPart(Section):
    """One of several teachers of texts."""

    teacher: Annotated[TransformersTeacher | TextStudentTeacher, Field(discriminator="kind")]
    weight: PositiveFloat  # over the sum of all

    _flat = field_validator("teacher", mode="before")(_no_several)


class SeveralImageTeachers(_Several):
    """The weighted mean of several teachers of pictures."""

    kind: Literal["several"]
    teachers: Annotated[list[ImagePart], Field(min_length=2)]


class SeveralTextTeachers(_Several):
    """The weighted mean of several teachers of texts."""

    kind: Literal["several"]
    teachers: Annotated[list[TextPart], Field(min_length=2)]


ImageTeacher = Annotated[NetworkTeacher | ImageStudentTeacher | SeveralImageTeachers, Field(discriminator="kind")]
TextTeacher = Annotated[
    TransformersTeacher | TextStudentTeacher | SeveralTextTeachers | ChatTeacher, Field(discriminator="kind")
]
