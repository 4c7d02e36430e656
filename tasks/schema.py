"""What the schemas of params.yaml and of a bundle's manifest are built of."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Weight = Annotated[float, Field(ge=0)]
# Of a model file: float32, float16 weights, int8 but for layers that need float32, int8 weights with int16 activations.
Precision = Literal["fp32", "fp16", "int8", "w8a16"]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Section(BaseModel):
    """Base of all sections: immutable, strict types, no unknown keys."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
