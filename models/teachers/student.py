"""A trained student as a teacher: its own earlier self, or a bigger one that learnt first.

Self-distillation (Furlanello et al. 2018, born-again networks) and the assistant (Mirzadeh et al. 2020). The folder is
pinned whole, student.json with the weights: the same weights in another architecture make other pictures.
Raise its number in models/teachers/digests.py when the output changes.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.errors import UserError
from models.teachers.digests import teacher_digest
from models.teachers.pinned import places


class StudentTeacher:
    """The `student` teacher: a folder with student.json and weights.safetensors, as the stage train writes it."""

    def __init__(self, *, path: str, sha256: str, name: str, version: int) -> None:
        from models.students import load_student

        self.name = f"{name} v{version}"
        for file in ("student.json", "weights.safetensors"):
            if not (Path(path) / file).is_file():
                raise UserError(f"teacher {self.name}: {path} is no trained student, it has no {file}")
        settings = {"kind": "student", "path": path, "sha256": sha256}
        for place in places(settings):
            place.check(self.name)
        self.student = load_student(Path(path))
        self.digest = teacher_digest(settings)

    def __call__(self, inputs: npt.NDArray[np.uint8], seeds: Sequence[int]) -> npt.NDArray[np.float32]:
        """(B,H,W,3) uint8 RGB -> (B,H,W,3) float32 in [0,1]; `seeds` are not used.

        One image at a time on one thread: the kernels for larger batches add in another order.
        """
        import torch

        from models.batches import to_tensor

        torch.set_num_threads(1)
        reduction = self.student.encoder.feature_info.reduction()[-1]  # type: ignore[union-attr,operator]
        if any(side % reduction for side in inputs.shape[1:3]):
            raise UserError(
                f"teacher {self.name}: the student takes sides that are multiples of {reduction}, the pairs are "
                f"{inputs.shape[1:3]}: set pairs.size to one"
            )
        with torch.inference_mode():
            made = [self.student(to_tensor(picture[None]).contiguous()) for picture in inputs]
        return torch.cat(made).permute(0, 2, 3, 1).contiguous().numpy()
