"""Tiny ONNX models for tests, built in memory."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

NCHW = ("b", 3, "h", "w")
NHWC = ("b", "h", "w", 3)


def graph_bytes(
    nodes: Sequence[Any],
    *,
    shape: Sequence[Any] = NCHW,
    out: Sequence[Any] | None = None,
    dtype: int = TensorProto.FLOAT,
    constants: dict[str, Any] | None = None,
) -> bytes:
    """A model from `x` to `y`; `nodes` are (op, inputs, output) and `constants` become float32 initializers."""
    graph = helper.make_graph(
        [helper.make_node(op, list(inputs), [output]) for op, inputs, output in nodes],
        "tiny",
        [helper.make_tensor_value_info("x", dtype, list(shape))],
        [helper.make_tensor_value_info("y", dtype, list(shape if out is None else out))],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def affine_bytes(scale: float, shift: float, *, shape: Sequence[Any] = NCHW) -> bytes:
    """y = scale x + shift."""
    nodes = [("Mul", ("x", "a"), "m"), ("Add", ("m", "b"), "y")]
    return graph_bytes(nodes, shape=shape, constants={"a": scale, "b": shift})


def pinned(path: Path, data: bytes) -> dict[str, Any]:
    """Write a model; the `teacher:` block of params.yaml that pins it."""
    path.write_bytes(data)
    return {"kind": "onnx", "name": "tiny", "version": 1, "path": str(path), "sha256": hashlib.sha256(data).hexdigest()}
