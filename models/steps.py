"""A student as the list of torch operations that it runs, each with the layer it belongs to and its value on a picture.

torch.export writes the list. What the converters make of it is compared with it: models/layers.py says which layer an
operation of a model file comes from, models/departure.py where a file goes its own way.
"""

import operator
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.errors import UserError
from models.silence import silence

COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # of a terminal
Values = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One operation."""

    name: str
    op: str  # such as conv2d
    layer: str  # the module it stands in, such as decoder.0.project.0; "" is the student itself
    kinds: tuple[str, ...]  # classes of the modules around it, that module's own last
    inputs: tuple[str, ...]  # names of steps
    shape: tuple[int, ...]  # of its output; -1 is a size that hangs on the picture


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """All steps of a student in order, the first being the picture, and what runs them."""

    steps: tuple[Step, ...]
    module: Any  # torch.fx.GraphModule

    def values(self, picture: Tensor) -> Values:
        """The output of every step on one picture, in torch's own layout."""
        recorder = _Recorder(self.module)
        with torch.inference_mode():
            recorder.run(picture)
        return recorder.values


def trace(student: nn.Module, example: Tensor) -> Trace:
    """The steps of a student in eval mode on pictures of the example's shape.

    Raises Untraceable, which names the layer, where torch cannot list them.
    """
    running: list[str] = []
    with silence():
        try:
            with _telling(student, running):
                module = torch.export.export(student, (example,), strict=False).module()
            return Trace(steps=tuple(_steps(module)), module=module)
        except Exception as error:  # noqa: BLE001 - whatever a layer does, torch.export answers in its own way
            failure = Untraceable(running[-1] if running else "", first_line(error))
    raise failure


class Untraceable(UserError):
    """A layer whose operations torch cannot list."""

    def __init__(self, layer: str, reason: str) -> None:
        super().__init__(f"torch.export cannot take {layer or 'the student itself'}: {reason}")
        self.layer = layer
        self.reason = reason


@contextmanager
def _telling(student: nn.Module, running: list[str]) -> Iterator[None]:
    """Keep the names of the layers that are at work, the innermost last; an exception leaves them as they were."""
    hooks = [
        hook
        for name, layer in student.named_modules()
        for hook in (
            layer.register_forward_pre_hook(_entering(running, name)),
            layer.register_forward_hook(_leaving(running)),
        )
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def first_line(error: BaseException) -> str:
    """What the cause of an exception says, cut to fit a line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in COLOURS.sub("", str(error)).splitlines() if line.strip()]
    return f"{lines[0] if lines else type(error).__name__:.160}"


def _entering(running: list[str], name: str) -> Callable[..., None]:
    return lambda *_: running.append(name)


def _leaving(running: list[str]) -> Callable[..., None]:
    return lambda *_: running.pop() and None


def _steps(module: Any) -> Iterator[Step]:
    """What gives a tensor is a step; what gives several, or a number, is told by the steps that take them."""
    behind: dict[str, tuple[str, ...]] = {}  # of every node: itself if it is a step, else the steps it comes from
    for node in module.graph.nodes:
        value = node.meta.get("val")
        inputs = tuple(dict.fromkeys(name for one in node.all_input_nodes for name in behind[one.name]))
        is_step = node.op in ("placeholder", "call_function") and isinstance(value, Tensor)
        behind[node.name] = (node.name,) if is_step else inputs
        if is_step:
            path, kinds = _layer(node)
            yield Step(
                name=node.name,
                op=_op(node),
                layer=path,
                kinds=kinds,
                inputs=inputs,
                shape=tuple(size if isinstance(size, int) else -1 for size in value.shape),
            )


def _op(node: Any) -> str:
    if node.target is operator.getitem:
        return _op(node.args[0])
    return str(getattr(node.target, "_opname", node.target)) if node.op == "call_function" else "picture"


def _layer(node: Any) -> tuple[str, tuple[str, ...]]:
    """Path of the innermost module that an operation was called in, and the classes of all around it."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    kinds = tuple((kind if isinstance(kind, str) else kind.__name__).rpartition(".")[2] for _, kind in stack)
    return (str(stack[-1][0]) if stack else ""), kinds


class _Recorder(torch.fx.Interpreter):
    """Runs the steps and keeps what each gives."""

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self.values: Values = {}

    def run_node(self, node: Any) -> Any:
        """Run one step."""
        result = super().run_node(node)
        if isinstance(result, Tensor) and node.op in ("placeholder", "call_function"):
            self.values[node.name] = result.detach().clone().numpy()
        return result
