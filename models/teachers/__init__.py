"""Teachers: the expensive side of a pair, always offline.

A teacher is a callable with a digest over everything that decides its output (weights, code version,
settings). `seeds` carries one seed per sample for teachers that draw noise.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def answers_folder() -> Path:
    """Where what was paid for is kept, in money or in hours: here, or in the folder UNDERSTUDY_ANSWERS names."""
    return Path(os.environ.get("UNDERSTUDY_ANSWERS") or "data/.work/answers")


class Teacher(Protocol):
    """What every teacher offers, whatever it is made of."""

    digest: str  # hex sha256 of everything that decides the output

    def __call__(self, inputs: "npt.NDArray[np.uint8]", seeds: Sequence[int]) -> "npt.NDArray[np.float32]":
        """Image teachers: (B,H,W,3) uint8 RGB -> (B,H,W,3) float32, meant to lie in [0,1].

        Sample i depends on inputs[i] and seeds[i] alone, whatever the batch it comes in.
        """
        ...


@runtime_checkable
class Sampler(Teacher, Protocol):
    """A generative teacher that can also make both sides of a pair from nothing."""

    def sample(self, size: int, seeds: Sequence[int]) -> "tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]":
        """Inputs (B,size,size,3) uint8 RGB and what the effect makes of them, as Teacher.__call__ gives it."""
        ...

    def strength(self, seed: int) -> float:
        """How strong the effect is in the pair of a seed."""
        ...


@runtime_checkable
class Refusing(Teacher, Protocol):
    """A teacher that will not make a picture of everything, and says why."""

    def refusal(self, picture: "npt.NDArray[np.uint8]", seed: int) -> str:
        """Why it refused an input (H,W,3) that it was asked for; "" if it did not."""
        ...


def _painter(**settings: Any) -> Teacher:
    from models.teachers.painter import Painter

    return Painter(**settings)


def _onnx(**settings: Any) -> Teacher:
    from models.teachers.onnx_model import OnnxTeacher

    return OnnxTeacher(**settings)


def _diffusers(**settings: Any) -> Teacher:
    from models.teachers.diffusion import DiffusionTeacher

    return DiffusionTeacher(**settings)


def _genai(**settings: Any) -> Teacher:
    from models.teachers.genai import GenaiTeacher

    return GenaiTeacher(**settings)


def _stylegan2(**settings: Any) -> Teacher:
    from models.teachers.stylegan2.teacher import Stylegan2Teacher

    return Stylegan2Teacher(**settings)


def _student(**settings: Any) -> Teacher:
    from models.teachers.student import StudentTeacher

    return StudentTeacher(**settings)


def _several(**settings: Any) -> Teacher:
    from models.teachers.several import SeveralTeacher

    return SeveralTeacher(**settings)


KINDS: dict[str, Callable[..., Teacher]] = {
    "painter": _painter,
    "onnx": _onnx,
    "diffusers": _diffusers,
    "genai": _genai,
    "stylegan2": _stylegan2,
    "student": _student,
    "several": _several,
}
REMOTE = {"genai"}  # behind an API: one process asks
KEEPING = {*REMOTE, "stylegan2"}  # they keep what a picture cost them, for the next time
SAMPLING = {"stylegan2"}  # they can make a pair's input too


def load_teacher(settings: Mapping[str, Any]) -> Teacher:
    """The teacher a `teacher:` block of params.yaml describes: `kind`, and that kind's own settings."""
    kind = settings["kind"]
    own = {key: value for key, value in settings.items() if key != "kind"}
    return KINDS[kind](**own, store=answers_folder()) if kind in KEEPING else KINDS[kind](**own)
