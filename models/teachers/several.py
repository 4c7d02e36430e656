"""Several teachers as one: the weighted mean of their pictures, or each in its own region of the picture.

A student learns from one picture an input; what several teachers say is put together before it is stored. Seeds are
passed on. Raise its number in models/teachers/digests.py when the output changes, that of regions included.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from models.teachers import load_teacher
from models.teachers.digests import teacher_digest
from models.teachers.regions import MaskModel, Region, shares


class SeveralTeacher:
    """The `several` teacher; which blocks fit together is checked in tasks/teacher_params.py."""

    def __init__(self, *, by: str, teachers: Sequence[Mapping[str, Any]], name: str, version: int) -> None:
        self.name = f"{name} v{version}"
        self.digest = teacher_digest({"kind": "several", "by": by, "teachers": teachers})
        self.teachers = [load_teacher(part["teacher"]) for part in teachers]
        self.weights: list[float] = []
        self.regions: list[Region] = []
        if by == "weight":
            whole = sum(part["weight"] for part in teachers)
            self.weights = [part["weight"] / whole for part in teachers]
        else:
            self.regions = [_region(part, self.name) for part in teachers]

    def __call__(self, inputs: npt.NDArray[np.uint8], seeds: Sequence[int]) -> npt.NDArray[np.float32]:
        """(B,H,W,3) uint8 RGB -> (B,H,W,3) float32, in [0,1] where every teacher's are."""
        told: list[Any] = list(self.weights)
        if self.regions:
            told = list(np.stack([shares(picture, self.regions) for picture in inputs], axis=1)[..., None])
        made = np.zeros(inputs.shape, np.float32)
        for share, teacher in zip(told, self.teachers, strict=True):
            made += share * teacher(inputs, seeds)
        return made


def _region(part: Mapping[str, Any], name: str) -> Region:
    mask = part.get("mask")
    return MaskModel(**mask, name=name) if mask else str(part["region"])
