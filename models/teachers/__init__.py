"""Teachers: the expensive side of a pair, always offline.

A teacher is a callable with a digest over everything that decides its output (weights, code version,
settings). `seeds` carries one seed per sample for teachers that draw noise.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


class Teacher(Protocol):
    """What every teacher offers, whatever it is made of."""

    digest: str  # hex sha256 of everything that decides the output

    def __call__(self, inputs: npt.NDArray[np.uint8], seeds: Sequence[int]) -> npt.NDArray[np.float32]:
        """Image teachers: (B,H,W,3) uint8 RGB -> (B,H,W,3) float32, meant to lie in [0,1].

        Sample i depends on inputs[i] and seeds[i] alone, whatever the batch it comes in.
        """
        ...


def _painter(**settings: Any) -> Teacher:
    from models.teachers.painter import Painter

    return Painter(**settings)


def _onnx(**settings: Any) -> Teacher:
    from models.teachers.onnx_model import OnnxTeacher

    return OnnxTeacher(**settings)


KINDS: dict[str, Callable[..., Teacher]] = {"painter": _painter, "onnx": _onnx}


def load_teacher(settings: Mapping[str, Any]) -> Teacher:
    """The teacher a `teacher:` block of params.yaml describes: `kind`, and that kind's own settings."""
    return KINDS[settings["kind"]](**{key: value for key, value in settings.items() if key != "kind"})
