"""A tiny LiteRT model for tests, built in memory: one ReLU6."""

from collections.abc import Sequence

import flatbuffers
from ai_edge_litert.tools import flatbuffer_utils

schema = flatbuffer_utils.schema_fb


def relu6_bytes(shape: Sequence[int] = (1, 8, 8, 3), dtype: int = schema.TensorType.FLOAT32) -> bytes:
    """y = min(max(x, 0), 6) on a tensor of `shape`."""
    tensors = []
    for name in (b"x", b"y"):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, list(shape), dtype, 0
        tensors.append(tensor)
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0], [1]
    graph = schema.SubGraphT()
    graph.tensors, graph.operators, graph.inputs, graph.outputs = tensors, [operator], [0], [1]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.RELU6
    code.version = 1
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], [schema.BufferT()]
    builder = flatbuffers.Builder(256)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
