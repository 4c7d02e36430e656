"""How well a student knows each pair: kept with it as it leaves its training, and measured again when one asks why.

student/errors.json has `rows` of the training arrays, evenly over them where there are more than MOST, and for each the
mean squared error of the student's whole picture, values in [0,1].
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.spread import spread

if TYPE_CHECKING:
    from torch import nn

Pictures = npt.NDArray[np.uint8]
MOST = 5000  # pairs: half a minute
BATCH = 8
DIGITS = 7


def errors_of(student: "nn.Module", inputs: Pictures, targets: Pictures, rows: Sequence[int]) -> list[float]:
    """Mean squared error of a student in eval mode on these rows of (N,S,S,3) uint8 pairs."""
    import torch

    from models.metrics import squared_error, to_tensor

    found: list[float] = []
    with torch.inference_mode():
        for start in range(0, len(rows), BATCH):
            chosen = list(rows[start : start + BATCH])
            output = student(to_tensor(inputs[chosen]))
            found += squared_error(output, to_tensor(targets[chosen])).tolist()
    return [round(one, DIGITS) for one in found]


def training_errors(student: "nn.Module", inputs: Pictures, targets: Pictures) -> dict[str, Any]:
    """errors.json of a student that has been trained on these pairs."""
    rows = [int(row) for row in spread(len(inputs), MOST)]
    return {"rows": rows, "error": errors_of(student.eval(), inputs, targets, rows)}
