"""What a search draws from, and the architecture and losses that a point of it stands for.

Read from a YAML file (tasks/search.yaml, or --space FILE). Knows no Optuna: a `Draw` says what each value is.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Protocol

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from models.errors import UserError
from tasks.schema import Count, Positive, PositiveFloat, Section
from tasks.student_params import Architecture, Student

SPACE = Path(__file__).with_name("search.yaml")
ROUND_TO = 8  # channels: kernels work on so many at once, and a remainder costs as much as a whole

Point = dict[str, Any]  # by the names of `draw`


class Whole(Section):
    """Whole numbers from `low` to `high`, both included, `step` apart."""

    low: Count
    high: Count
    step: Positive

    @model_validator(mode="after")
    def _in_order(self) -> "Whole":
        if self.high < self.low or (self.high - self.low) % self.step:
            raise ValueError("high must be low plus some steps")
        return self

    def holds(self, value: int) -> bool:
        """Whether it is one of these."""
        return self.low <= value <= self.high and (value - self.low) % self.step == 0


class Factor(Section):
    """Multipliers from `low` to `high`."""

    low: PositiveFloat
    high: PositiveFloat

    @model_validator(mode="after")
    def _in_order(self) -> "Factor":
        if self.high < self.low:
            raise ValueError("high is less than low")
        return self

    def leaves(self) -> bool:
        """Whether 1, which changes nothing, is one of these."""
        return self.low <= 1 <= self.high


class Steps(Factor):
    """Multipliers from `low` to `high`, both included, `step` apart."""

    step: PositiveFloat

    @model_validator(mode="after")
    def _in_steps(self) -> "Steps":
        if not _is_whole((self.high - self.low) / self.step):
            raise ValueError("high must be low plus some steps")
        return self

    def leaves(self) -> bool:
        """Whether 1, which changes nothing, is one of these."""
        return Factor.leaves(self) and _is_whole((1 - self.low) / self.step)


class Halving(Section):
    """Asynchronous successive halving (Li et al. 2020): of the trials at a rung the best 1/reduction go on."""

    reduction: Annotated[int, Field(ge=2)]
    rungs: Annotated[int, Field(ge=1)]  # the last is the whole training; each of the others is 1/reduction of the next


class Space(Section):
    """The keys of a search space."""

    encoders: Annotated[list[str], Field(min_length=1)]  # timm's, or ours: patchesP_C1_C2_...
    width: Steps  # multiplies the channels of a patches encoder; timm's names say theirs
    # Of a patches encoder: fewer than its name has leave out the deepest, more go on as its last two do.
    levels: Whole
    left_out: (
        Whole  # finest skips that the decoder does not reach: each doubles the side of the head's blocks of pixels
    )
    deepest: Whole  # channels of the decoder's first level; those between it and the finest lie on a geometric row
    finest: Whole  # and of its last
    losses: Factor  # multiplies, log-uniformly, each of the block's losses but the first: only their ratios matter
    trials: Positive  # where the command says nothing
    steps: Positive  # of a trial's training, where the command says nothing
    random_trials: Count  # before the sampler goes by what was found (TPE, Bergstra et al. 2011)
    halving: Halving

    @field_validator("encoders")
    @classmethod
    def _each_once(cls, encoders: list[str]) -> list[str]:
        if len(set(encoders)) < len(encoders):
            raise ValueError("an encoder is named twice")
        return encoders


class Draw(Protocol):
    """Says what the value of that name is in one trial."""

    def choice(self, name: str, values: Sequence[str]) -> str:
        """One of some."""
        ...

    def whole(self, name: str, values: Whole) -> int:
        """A whole number."""
        ...

    def steps(self, name: str, values: Steps) -> float:
        """A multiplier of some that are a step apart."""
        ...

    def factor(self, name: str, values: Factor) -> float:
        """A multiplier, log-uniformly."""
        ...


def read_space(path: Path) -> Space:
    """The space of a YAML file; a UserError in one line that names what is wrong."""
    try:
        raw: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split())})") from None
    try:
        space = Space.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "top level"
        raise UserError(f"{path}: {key}: {first['msg']}, got {first['input']!r:.80}") from None
    for encoder in space.encoders:
        _check_encoder(encoder, path)
    return space


def _check_encoder(name: str, path: Path) -> None:
    """Refuse a misspelt name now, rather than in every trial that draws it."""
    from models.encoders import PATCHES
    from models.torch_setup import import_timm

    import_timm()
    import timm

    if not PATCHES.fullmatch(name) and not timm.is_model(name):
        raise UserError(f"{path}: encoders: timm has no model {name!r}; ours are patchesP_C1_C2_... (or ..._se)")


def draw(space: Space, losses: Mapping[str, float], of: Draw) -> Point:
    """A point: encoder, width and levels where it has them, left_out, deepest, finest, and loss.NAME."""
    from models.encoders import PATCHES

    point: Point = {"encoder": of.choice("encoder", space.encoders)}
    if PATCHES.fullmatch(point["encoder"]):
        point |= {"width": of.steps("width", space.width), "levels": of.whole("levels", space.levels)}
    for name in ("left_out", "deepest", "finest"):
        point[name] = of.whole(name, getattr(space, name))
    for name in searched_losses(losses):
        point[f"loss.{name}"] = of.factor(f"loss.{name}", space.losses)
    return point


def searched_losses(losses: Mapping[str, float]) -> list[str]:
    """The losses that count, but the first."""
    return [name for name, weight in losses.items() if weight][1:]


def architecture_of(point: Mapping[str, Any], own: Architecture) -> Architecture:
    """The architecture at a point; skips, resizes and head are the block's own. A UserError where there can be none."""
    encoder = encoder_of(point)
    count = len(_channels(encoder)) - 1 - point["left_out"]
    if count < 1:
        raise UserError(f"{encoder} with left_out {point['left_out']} leaves the decoder no level")
    between = geometric(point["deepest"], point["finest"], count)
    return own.model_copy(update={"encoder": encoder, "decoder_channels": between})


def encoder_of(point: Mapping[str, Any]) -> str:
    """The encoder's name at a point: of ours with the widths of its levels."""
    from models.encoders import PATCHES

    ours = PATCHES.fullmatch(point["encoder"])
    if not ours:
        return str(point["encoder"])
    widths = [int(width) for width in ours["widths"].split("_")[1:]]
    while len(widths) < point["levels"]:
        widths.append(2 * widths[-1] - widths[-2] if len(widths) > 1 else 2 * widths[-1])
    widths = widths[: point["levels"]]
    if point["width"] != 1:
        widths = [rounded(width * point["width"]) for width in widths]
    return "_".join([f"patches{ours['patch']}", *map(str, widths)]) + (ours["gates"] or "")


def rounded(channels: float) -> int:
    """The nearest multiple of ROUND_TO, at least one."""
    return max(ROUND_TO, ROUND_TO * round(channels / ROUND_TO))


def _is_whole(value: float) -> bool:
    return math.isclose(value, round(value), abs_tol=1e-6)


def geometric(first: int, last: int, count: int) -> list[int]:
    """So many channels from `first` to `last`, each about the same share of the one before; one level has the last."""
    if count == 1:
        return [last]
    row = [first * (last / first) ** (place / (count - 1)) for place in range(count)]
    return [first, *map(rounded, row[1:-1]), last]


def _channels(encoder: str) -> list[int]:
    from models.encoders import make_encoder

    try:
        found: list[int] = make_encoder(encoder, 3).feature_info.channels()
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - timm's encoders have exceptions of their own
        raise UserError(f"{encoder} cannot be an encoder: {error!s:.160}") from None
    return found


def losses_of(point: Mapping[str, Any], own: Mapping[str, float]) -> dict[str, float]:
    """The block's losses with the point's multipliers, to four digits."""
    return {name: float(f"{weight * point.get(f'loss.{name}', 1.0):.4g}") for name, weight in own.items()}


def own_point(space: Space, block: Student) -> Point | None:
    """The point at which the block's own architecture and losses lie; None where the space does not hold them."""
    from models.encoders import PATCHES

    own = block.architecture
    decoder, levels = own.decoder_channels, len(_channels(own.encoder))
    point: Point = {"encoder": own.encoder, "left_out": levels - 1 - len(decoder), "finest": decoder[-1]}
    point["deepest"] = decoder[0] if len(decoder) > 1 else space.deepest.low  # of no consequence in a single level
    if PATCHES.fullmatch(own.encoder):
        point |= {"width": 1.0, "levels": levels}
    losses = searched_losses(block.train.losses)
    point |= {f"loss.{name}": 1.0 for name in losses}
    counted = [name for name in ("levels", "left_out", "deepest", "finest") if name in point]
    inside = (
        own.encoder in space.encoders
        and all(getattr(space, name).holds(point[name]) for name in counted)
        and ("width" not in point or space.width.leaves())
        and (not losses or space.losses.leaves())
    )
    return point if inside and architecture_of(point, own) == own else None
