"""Tiny LiteRT models for tests, built in memory."""

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert.tools import flatbuffer_utils

schema = flatbuffer_utils.schema_fb
BUILTIN = schema.BuiltinOperator
FLOAT32 = schema.TensorType.FLOAT32


def relu6_bytes(shape: Sequence[int] = (1, 8, 8, 3), dtype: int = FLOAT32) -> bytes:
    """y = min(max(x, 0), 6) on a tensor of `shape`."""
    tensors = [_tensor(b"x", shape, dtype), _tensor(b"y", shape, dtype)]
    return _packed(tensors, [_operator(0, [0], [1])], [BUILTIN.RELU6], [])


def affine_bytes(scale: float, shift: float, shape: Sequence[int] = (1, 8, 8, 3)) -> bytes:
    """y = scale x + shift on a float32 tensor of `shape`."""
    names = [(b"x", shape, 0), (b"m", shape, 0), (b"y", shape, 0), (b"a", [1], 1), (b"b", [1], 2)]
    tensors = [_tensor(name, size, FLOAT32, buffer) for name, size, buffer in names]
    multiply, add = _operator(0, [0, 3], [1]), _operator(1, [1, 4], [2])
    multiply.builtinOptionsType, multiply.builtinOptions = schema.BuiltinOptions.MulOptions, schema.MulOptionsT()
    add.builtinOptionsType, add.builtinOptions = schema.BuiltinOptions.AddOptions, schema.AddOptionsT()
    return _packed(tensors, [multiply, add], [BUILTIN.MUL, BUILTIN.ADD], [scale, shift], output=2)


def _tensor(name: bytes, shape: Sequence[int], dtype: int, buffer: int = 0) -> Any:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name, list(shape), dtype, buffer
    return tensor


def _operator(code: int, inputs: list[int], outputs: list[int]) -> Any:
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = code, inputs, outputs
    return operator


def _packed(
    tensors: list[Any], operators: list[Any], codes: list[int], constants: list[float], output: int = 1
) -> bytes:
    """A model from tensor 0 to tensor `output`; buffer 0 is empty, as the format wants, then come the constants."""
    graph = schema.SubGraphT()
    graph.tensors, graph.operators, graph.inputs, graph.outputs = tensors, operators, [0], [output]
    model = schema.ModelT()
    model.version, model.subgraphs, model.buffers, model.operatorCodes = 3, [graph], [schema.BufferT()], []
    for number in codes:
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = number
        code.version = 1
        model.operatorCodes.append(code)
    for number in constants:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.float32(number).tobytes(), np.uint8)
        model.buffers.append(buffer)
    builder = flatbuffers.Builder(256)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
