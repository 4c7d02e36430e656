"""What a student's files would be on a phone, found out before it is trained: weights change none of it.

An untrained student is converted; its files are then asked what splits them, what stays float, what moves data around.
Each finding names the layer, as torch does, and what to use instead. A layer that cannot be converted at all is found
by converting ever shorter beginnings of the student.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from models.advice import CONTROL_FLOW, FIXED_SIZE, FULL_RESOLUTION, instead_of
from models.departure import layer_name, layers_of, written_form
from models.file_graph import Operation, delegation, float_islands, litert_operations, onnx_operations
from models.litert import to_litert
from models.litert_int8 import to_litert_int8
from models.onnx_export import to_onnx
from models.silence import silence
from models.steps import Step, Trace, Untraceable, first_line, trace

Images = npt.NDArray[np.float32]
INT8, FLOAT = "litert int8", "litert fp32"
ONNX = "onnx fp32"
CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One operation that costs or fails on a phone."""

    kind: str  # of KINDS
    file: str  # which of the student's files, or "" for the student itself
    op: str  # as that file calls it
    layer: str  # the torch module
    instead: str
    why: str = ""  # the converter's own words, where it refused

    def to_json(self) -> dict[str, str]:
        """As it is written."""
        return asdict(self)


# What is found -> in words that go between a layer and "; use ... instead".
KINDS = {
    "unconvertible": "cannot be converted",
    "dynamic shape": "has an output whose size hangs on the picture",
    "float island": "has no int8 form in LiteRT and stays float32",
    "fallback": "is taken by no delegate",
    "transpose": "moves every value to another place",
    "onnx float": "has no quantised form in ONNX Runtime",
    "concatenation": "copies both of its inputs",
    "full resolution": "is computed at the picture's own size",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exportability:
    """What was found; without files where the student cannot be converted."""

    figures: dict[str, int]
    findings: list[Finding]
    files: dict[str, bytes] = field(default_factory=dict)  # by INT8, FLOAT and ONNX


def inspect(student: Any, size: int, samples: Sequence[Images], threads: int = 1) -> Exportability:
    """Convert an untrained student for pictures of `size` and see what becomes of it; half a minute to a minute.

    `samples`, each (1,S,S,3) in [0,1], calibrate int8. Raises nothing for a student that cannot be converted: that is
    a finding.
    """
    example = torch.zeros(1, 3, size, size)
    try:
        found = trace(student, example)
    except Untraceable as error:
        return _refused("", "", error.layer or "forward", CONTROL_FLOW, error.reason)
    dynamic = [step for step in found.steps if -1 in step.shape]
    if dynamic:
        # No file of a fixed size can hold it: the converters would say the same, later and in other words.
        findings = [_finding("dynamic shape", "", step.op, step, FIXED_SIZE) for step in _first_of_layers(dynamic)]
        return Exportability(figures={"dynamic_shapes": len(dynamic)}, findings=findings)
    files: dict[str, bytes] = {}
    work: dict[str, Callable[[], bytes]] = {
        ONNX: lambda: to_onnx(student, size),
        FLOAT: lambda: to_litert(student, size),
        INT8: lambda: to_litert_int8(files[FLOAT], [(one,) for one in samples], threads),
    }
    for name, convert in work.items():
        with silence():
            try:
                files[name] = convert()
                continue
            except Exception as error:  # noqa: BLE001 - each converter has exceptions of its own
                reason = first_line(error)
        step = culprit(student, size, name, reason)
        op, layer = (step.op, layer_name(step)) if step else ("", "forward")
        return _refused(name, op, layer, instead_of(op, step), reason)
    findings = list(_findings(student, files, samples[0], size))
    return Exportability(figures=_figures(files, findings), findings=findings, files=files)


def _refused(file: str, op: str, layer: str, instead: str, why: str) -> Exportability:
    finding = Finding(kind="unconvertible", file=file, op=op, layer=layer, instead=instead, why=why)
    return Exportability(figures={"dynamic_shapes": 0}, findings=[finding])


def _first_of_layers(steps: Sequence[Step]) -> list[Step]:
    return list({step.layer: step for step in reversed(steps)}.values())[::-1]


def _finding(kind: str, file: str, op: str, step: Step | None, instead: str = "") -> Finding:
    layer = layer_name(step) if step else "forward"
    return Finding(kind=kind, file=file, op=op, layer=layer, instead=instead or instead_of(op, step))


def _findings(student: Any, files: dict[str, bytes], picture: Images, size: int) -> Iterator[Finding]:
    """Everything in the files that costs or stays behind, in the order of the operations."""
    _, layers = layers_of(student, files[FLOAT], "litert", picture)
    graphs = {name: litert_operations(files[name]) for name in (INT8, FLOAT)}
    # The int8 file's tensors have the float file's names, and only the latter's values are torch's.
    of_float = {one.output: one for one in graphs[FLOAT]}

    def step_of(one: Operation) -> Step | None:
        return layers.first_step(of_float.get(one.output, one))

    for island in float_islands(graphs[INT8]):
        yield from (_finding("float island", INT8, one.op, step_of(one)) for one in island)
    for name in (INT8, FLOAT):
        yield from (_finding("fallback", name, one.op, step_of(one)) for one in delegation(files[name]).fallbacks)
    for one in graphs[FLOAT]:
        if one.op == "TRANSPOSE":
            yield _finding("transpose", FLOAT, one.op, step_of(one))
        elif one.op == "CONCATENATION":
            yield _finding("concatenation", FLOAT, one.op, step_of(one))
        elif one.op in CONVOLUTIONS and one.shape[1:3] == (size, size):
            yield _finding("full resolution", FLOAT, one.op, step_of(one), FULL_RESOLUTION)
    yield from _onnx_findings(student, files[ONNX], picture)


def _onnx_findings(student: Any, content: bytes, picture: Images) -> Iterator[Finding]:
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    known = QLinearOpsRegistry.keys() | QDQRegistry.keys()
    floats = [one for one in onnx_operations(content) if one.is_float and one.op not in known]
    if floats:
        _, layers = layers_of(student, content, "onnx", picture)
        yield from (_finding("onnx float", ONNX, one.op, layers.first_step(one)) for one in floats)


def _figures(files: dict[str, bytes], findings: Sequence[Finding]) -> dict[str, int]:
    """What the limits of params.yaml are compared with."""
    taken = {name: delegation(files[name]) for name in (INT8, FLOAT)}

    def count(kind: str) -> int:
        return sum(finding.kind == kind for finding in findings)

    return {
        "partitions": max(one.partitions for one in taken.values()),
        "fallbacks": max(len(one.fallbacks) for one in taken.values()),
        "float_islands": len(float_islands(litert_operations(files[INT8]))),
        "onnx_float_operations": count("onnx float"),
        "transposes": count("transpose"),
        "dynamic_shapes": 0,
        "concatenations": count("concatenation"),
        "full_resolution": count("full resolution"),
        "operations": len(litert_operations(files[INT8])),
    }


def culprit(student: Any, size: int, name: str, reason: str = "") -> Step | None:
    """The first step of a student that the converter of this file refuses; None where all of them convert alone.

    It is the one whose operation the converter's reason names, or else bisected over beginnings of the student: about
    log2(steps) conversions, most of them short.
    """
    runtime = name.split()[0]
    shape = (1, size, size, 3) if runtime == "litert" else (1, 3, size, size)
    example = torch.zeros(shape)
    found = trace(written_form(student, runtime), example)
    named = [step for step in found.steps if f"aten.{step.op}" in reason]
    if named:
        return named[0]
    fine, broken = 0, len(found.steps) - 1  # the first step is the picture
    if _converts(beginning(found, broken), example, runtime):
        return None
    while broken - fine > 1:
        middle = (fine + broken) // 2
        if _converts(beginning(found, middle), example, runtime):
            fine = middle
        else:
            broken = middle
    return found.steps[broken]


def beginning(found: Trace, last: int) -> nn.Module:
    """The steps of a student up to and including number `last`; it gives all that nothing in it uses."""
    graph: Any = torch.fx.Graph()
    copies: dict[Any, Any] = {}
    for node in found.module.graph.nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
        if node.name == found.steps[last].name:
            break
    names = {step.name for step in found.steps[: last + 1]}
    graph.output(tuple(copy for node, copy in copies.items() if node.name in names and not copy.users))
    return torch.fx.GraphModule(found.module, graph).eval()


def _converts(module: nn.Module, example: torch.Tensor, runtime: str) -> bool:
    with silence():
        try:
            if runtime == "litert":
                import litert_torch

                litert_torch.convert(module, (example,))
            else:
                torch.onnx.export(module, (example,), dynamo=True, verbose=False)
        except Exception:  # noqa: BLE001 - that it fails is the answer
            return False
    return True


def mega_macs(student: nn.Module, *inputs: torch.Tensor) -> float:
    """Millions of multiplications with addition that these inputs take."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        student(*inputs)
    return float(counter.get_total_flops()) / 2e6


def blank(size: int) -> torch.Tensor:
    """A black picture, (1,3,size,size)."""
    return torch.zeros(1, 3, size, size)
