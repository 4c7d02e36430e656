"""The first layer at which a float32 file of a student goes its own way.

Every tensor between picture and output is compared at once: torch's on one side, the file's own on the other. From the
output, which departs, one walks back along tensors that depart to the operation whose inputs still agree. Bisecting
over truncated students would take a conversion of half a minute for each question, and would ask the converter, not
the file: damage to the file itself would never be found.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from models.file_graph import OPERATIONS, VALUES, Operation
from models.layers import Layers
from models.litert import ChannelsLast
from models.steps import Step, trace

Images = npt.NDArray[np.float32]
INNER = "student."  # where ChannelsLast keeps the student


def written_form(student: Any, runtime: str) -> torch.nn.Module:
    """The student as it is handed to the runtime's converter."""
    return ChannelsLast(student).eval() if runtime == "litert" else student


def written_picture(picture: Images, runtime: str) -> torch.Tensor:
    """(1,S,S,3) in the layout of that form."""
    images = torch.from_numpy(np.ascontiguousarray(picture))
    return images if runtime == "litert" else images.permute(0, 3, 1, 2).contiguous()


def layers_of(student: Any, content: bytes, runtime: str, picture: Images) -> tuple[list[Operation], Layers]:
    """A file's operations, and the steps of the student that its tensors agree with on one picture (1,S,S,3)."""
    example = written_picture(picture, runtime)
    found = trace(written_form(student, runtime), example)
    operations = OPERATIONS[runtime](content)
    values = VALUES[runtime](content, picture)
    return operations, Layers(found.steps, found.values(example), operations, values)


def first_departure(student: Any, content: bytes, runtime: str, picture: Images) -> str:
    """The layer, and the operation in it, from which on the file's tensors are not torch's; "" if they all are.

    `picture` is one on which the outputs differ, (1,S,S,3) in [0,1].
    """
    operations, layers = layers_of(student, content, runtime, picture)
    maker = {one.output: one for one in operations}
    left, seen, first = [operations[-1].output], set[str](), list[Operation]()
    while left:
        name = left.pop()
        if name in seen or name not in maker or layers.agree(name):
            continue
        seen.add(name)
        worse = [one for one in maker[name].inputs if one in maker and not layers.agree(one)]
        left += worse
        if not worse:
            first.append(maker[name])
    if not first:
        return ""
    origin = min(first, key=operations.index)
    return told(layers.first_step(origin), origin.op)


def told(step: Step | None, op: str) -> str:
    """A layer in words: decoder.0.project.0 (conv2d), as torch calls it, or what the file calls its operation."""
    if step is None:
        return f"an operation {op} of no layer"
    return f"{layer_name(step)} ({step.op})"


def layer_name(step: Step) -> str:
    """The layer as the student names it; its own forward where no layer was called."""
    return step.layer.removeprefix(INNER).removesuffix(INNER[:-1]) or "forward"
