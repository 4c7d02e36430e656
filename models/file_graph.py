"""A model file as the list of its operations, LiteRT's or ONNX's, and what each of them gives on a picture.

Only what depends on the picture counts: an operation on constants alone is left out. Tensors go by their names, which
the int8 file of a student shares with the float32 one.
"""

import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.silence import silence

Images = npt.NDArray[np.float32]
Values = dict[str, npt.NDArray[np.float32]]
BORDERS = ("QUANTIZE", "DEQUANTIZE", "QuantizeLinear", "DequantizeLinear")
DELEGATE = "DELEGATE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation of a file."""

    op: str  # CONV_2D, or Conv
    inputs: tuple[str, ...]  # tensors that depend on the picture
    output: str
    is_float: bool  # of its output
    shape: tuple[int, ...]  # of its output, -1 where it is not fixed; () where the file does not say


def litert_operations(content: bytes) -> list[Operation]:
    """The operations of a .tflite file in order."""
    from ai_edge_litert.tools import flatbuffer_utils

    schema = flatbuffer_utils.schema_fb
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    graph = model.subgraphs[0]
    names = _tensor_names(graph.tensors)
    kinds = {number: name for name, number in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    moving = {int(one) for one in graph.inputs}
    found = []
    for one in graph.operators:
        inputs = [int(tensor) for tensor in one.inputs if int(tensor) in moving]
        if not inputs:
            continue
        moving |= {int(tensor) for tensor in one.outputs}
        tensor = graph.tensors[int(one.outputs[0])]
        sizes = tensor.shapeSignature if tensor.shapeSignature is not None else tensor.shape
        found.append(
            Operation(
                op=_kind(model.operatorCodes[one.opcodeIndex], kinds),
                inputs=tuple(names[each] for each in inputs),
                output=names[int(one.outputs[0])],
                is_float=tensor.type == schema.TensorType.FLOAT32,
                shape=tuple(int(size) for size in sizes) if sizes is not None else (),
            )
        )
    return found


def _tensor_names(tensors: Sequence[Any]) -> list[str]:
    """A name for each tensor; one that occurred before gets a number added, the same in the int8 file."""
    seen: Counter[str] = Counter()
    names = []
    for tensor in tensors:
        name = tensor.name.decode(errors="replace") if tensor.name else ""
        names.append(f"{name}#{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return names


def _kind(code: Any, kinds: dict[int, str]) -> str:
    if code.customCode:
        return str(code.customCode.decode(errors="replace"))
    return kinds[max(code.builtinCode, code.deprecatedBuiltinCode)]


def litert_values(content: bytes, picture: Images) -> Values:
    """Every float32 tensor of a .tflite file on one picture (1,S,S,3), computed without a delegate: it keeps none."""
    with silence(), warnings.catch_warnings():
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        interpreter = Interpreter(
            model_content=content,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            experimental_preserve_all_tensors=True,
        )
        interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], picture)
    interpreter.invoke()
    from ai_edge_litert.tools import flatbuffer_utils

    graph = flatbuffer_utils.read_model_from_bytearray(bytearray(content)).subgraphs[0]
    wanted = {int(tensor) for one in graph.operators for tensor in one.outputs} | {int(graph.inputs[0])}
    names = _tensor_names(graph.tensors)
    read = {names[index]: interpreter.get_tensor(index) for index in sorted(wanted)}
    return {name: value for name, value in read.items() if value.dtype == np.float32}


def onnx_operations(content: bytes) -> list[Operation]:
    """The operations of an .onnx file in order."""
    import onnx

    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(content))
    graph = model.graph
    types = {one.name: one.type.tensor_type for one in (*graph.value_info, *graph.input, *graph.output)}
    moving = {one.name for one in graph.input}
    found = []
    for node in graph.node:
        inputs = tuple(name for name in node.input if name in moving)
        if not inputs:
            continue
        moving |= set(node.output)
        kind = types.get(node.output[0])
        found.append(
            Operation(
                op=node.op_type,
                inputs=inputs,
                output=node.output[0],
                is_float=kind is None or kind.elem_type == onnx.TensorProto.FLOAT,
                shape=tuple(one.dim_value if one.HasField("dim_value") else -1 for one in kind.shape.dim)
                if kind is not None
                else (),
            )
        )
    return found


def onnx_values(content: bytes, picture: Images) -> Values:
    """Every float32 tensor of an .onnx file on one picture (1,S,S,3), computed operation by operation."""
    import onnx
    import onnxruntime

    model = onnx.load_from_string(content)
    given = {one.name for one in model.graph.output}
    names = [name for node in model.graph.node for name in node.output if name]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in given)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    [entry] = session.get_inputs()
    feed = np.ascontiguousarray(picture.transpose(0, 3, 1, 2))
    outputs = session.run(names, {entry.name: feed})
    values = dict(zip(names, outputs, strict=True)) | {entry.name: feed}
    return {name: value for name, value in values.items() if getattr(value, "dtype", None) == np.float32}


OPERATIONS: dict[str, Callable[[bytes], list[Operation]]] = {"litert": litert_operations, "onnx": onnx_operations}
VALUES: dict[str, Callable[[bytes, Images], Values]] = {"litert": litert_values, "onnx": onnx_values}


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegation:
    """What LiteRT's delegate takes of a file."""

    partitions: int
    fallbacks: tuple[Operation, ...]  # left to LiteRT's own kernels


def delegation(content: bytes) -> Delegation:
    """How a .tflite file falls into delegates on this machine's processor (XNNPACK)."""
    with silence():
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_content=content)
        interpreter.allocate_tensors()
        nodes = interpreter._get_ops_details()
    delegates = [node for node in nodes if node["op_name"] == DELEGATE]
    maker = {int(out): node for node in nodes if node["op_name"] != DELEGATE for out in node["outputs"]}
    taken: set[int] = set()
    for one in delegates:
        # A delegate tells what goes in and out; what it took lies between.
        stop = {int(tensor) for tensor in one["inputs"]}
        left = [int(tensor) for tensor in one["outputs"]]
        while left:
            node = maker.get(left.pop())
            if node is not None and node["index"] not in taken:
                taken.add(node["index"])
                left += [int(tensor) for tensor in node["inputs"] if int(tensor) not in stop]
    ours = {one.output: one for one in litert_operations(content)}
    names = _all_names(content)
    rest = [node for node in nodes if node["op_name"] != DELEGATE and node["index"] not in taken]
    outputs = [names[int(node["outputs"][0])] for node in rest]
    return Delegation(partitions=len(delegates), fallbacks=tuple(ours[name] for name in outputs if name in ours))


def _all_names(content: bytes) -> list[str]:
    from ai_edge_litert.tools import flatbuffer_utils

    return _tensor_names(flatbuffer_utils.read_model_from_bytearray(bytearray(content)).subgraphs[0].tensors)


def float_islands(operations: Sequence[Operation]) -> list[list[Operation]]:
    """The float32 operations of an int8 file, those that hang together in one list; its borders are none."""
    floats = [one for one in operations if one.is_float and one.op not in BORDERS]
    island = {one.output: place for place, one in enumerate(floats)}
    for one in floats:
        for name in one.inputs:
            if name in island and island[name] != island[one.output]:
                old, new = island[one.output], island[name]
                island = {output: new if place == old else place for output, place in island.items()}
    groups: dict[int, list[Operation]] = defaultdict(list)
    for one in floats:
        groups[island[one.output]].append(one)
    return list(groups.values())
