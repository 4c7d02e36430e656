"""The section `curate` of params.yaml: when a pair is dropped, and by what faces are told apart."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from tasks.schema import Count, Fraction, Positive, PositiveFloat, Section, Sha256, Weight


class Quantile(Section):
    """Above this quantile of the training pairs' scores. It takes its share from a good teacher as from a bad one."""

    quantile: Annotated[float, Field(gt=0, lt=1)]


class Spread(Section):
    """Further above the training pairs' median than so many deviations, and above `least`.

    It takes only what lies apart. The deviation is the median absolute one, so that bad pairs do not widen it; `least`
    is what is never objected to, however alike the others are.
    """

    spread: PositiveFloat
    least: Weight


def _form(value: Any) -> str | None:
    """Which form of a limit a value is meant to have, by its keys."""
    if isinstance(value, Quantile | Spread):
        return type(value).__name__.lower()
    if isinstance(value, dict):
        return next((form for form in ("quantile", "spread") if form in value), None)
    return "number" if isinstance(value, float | int) and not isinstance(value, bool) else None


# Null: the rule is off.
Limit = (
    Annotated[
        Annotated[Weight, Tag("number")] | Annotated[Quantile, Tag("quantile")] | Annotated[Spread, Tag("spread")],
        Discriminator(
            _form,
            custom_error_type="limit",
            custom_error_message="a limit is a number, {quantile: 0.99}, {spread: 6, least: 0.5} or null",
        ),
    ]
    | None
)


class Limits(Section):
    """How high each score of a pair may be (tasks/curation_rules.py says what it means)."""

    structure: Limit
    background: Limit
    identity: Limit
    grid: Limit
    ringing: Limit
    cast: Limit
    clipping: Limit
    overlay: Limit
    inconsistency: Limit
    outlier: Limit


class Gradients(Section):
    """The way a face's edges run (HOG, Dalal & Triggs 2005): blind to its colours and, blurred, to brush strokes."""

    kind: Literal["gradients"]
    blur: PositiveFloat  # pixels of a face 64 wide: brush strokes are finer, noses are not


class OnnxEmbedding(Section):
    """A file that takes (N,3,S,S) float32 RGB in [-1,1], as ArcFace models do, and gives (N,C)."""

    kind: Literal["onnx"]
    path: str
    sha256: Sha256


FaceEmbedding = Annotated[Gradients | OnnxEmbedding, Field(discriminator="kind")]


class Curate(Section):
    """When a pair is dropped."""

    workers: Positive  # processes that measure pairs; it changes no byte
    near_duplicate_bits: Count  # between the perceptual hashes of two inputs' crops
    min_change: Fraction  # mean absolute difference between input and teacher output
    min_contrast: Fraction  # standard deviation of the teacher output
    max_clipped: Fraction  # share of teacher values that lie outside [0,1]
    limits: Limits
    faces: FaceEmbedding  # by what rule `identity` tells them apart
    borderline: Count  # kept pairs a rule that the quarantine shows too: those nearest to its limit
