"""A student as the list of torch operations that it runs, each with the layer it belongs to and its value on a picture.

torch.export writes the list. What the converters make of it is compared with it: models/layers.py says which layer an
operation of a model file comes from, models/departure.py where a file goes its own way.
"""

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

    Raises a UserError that names the layer where torch cannot write the list.
    """
    with where_it_fails(student, "torch.export"), silence():
        module = torch.export.export(student, (example,), strict=False).module()
    return Trace(steps=tuple(_steps(module)), module=module)


@contextmanager
def where_it_fails(student: nn.Module, what: str) -> Iterator[None]:
    """Turn an exception of the work within into a UserError that names the layer which was running then."""
    running: list[str] = []
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
    except UserError:
        raise
    except Exception as error:
        place = running[-1] if running else ""
        raise UserError(f"{what} cannot take {place or 'the student itself'}: {first_line(error)}") from error
    finally:
        for hook in hooks:
            hook.remove()


def first_line(error: BaseException) -> str:
    """What an exception says, cut to fit a line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{lines[0] if lines else type(error).__name__:.160}"


def _entering(running: list[str], name: str) -> Callable[..., None]:
    return lambda *_: running.append(name)


def _leaving(running: list[str]) -> Callable[..., None]:
    return lambda *_: running.pop() and None


def _steps(module: Any) -> Iterator[Step]:
    for node in module.graph.nodes:
        value = node.meta.get("val")
        if node.op in ("placeholder", "call_function") and isinstance(value, Tensor):
            path, kinds = _layer(node)
            yield Step(
                name=node.name,
                op=_op(node),
                layer=path,
                kinds=kinds,
                inputs=tuple(one.name for one in node.all_input_nodes if one.op != "get_attr"),
                shape=tuple(size if isinstance(size, int) else -1 for size in value.shape),
            )


def _op(node: Any) -> str:
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
