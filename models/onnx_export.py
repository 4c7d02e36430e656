"""A student as a float32 ONNX file; models/onnx_int8.py makes the smaller ones of it.

All take and give float32 (1,3,S,S) in [0,1], named "input" and "output"; that of a student with a slider takes float32
(1,) "strength" too, and one of texts takes "ids" and "mask". Everything that torch's exporter
notes about where a node came from (source paths, stack traces) is removed, but for the torch module's path, which
becomes its name: equal weights give equal bytes, on any machine.
"""

import ast
from typing import Any

import torch
from torch import nn

from models.controls import Controlled
from models.silence import silence
from models.token_runtimes import IDS, MASK, MAX_TOKENS

INPUT, STRENGTH, OUTPUT = "input", "strength", "output"


def to_onnx(student: nn.Module, size: int) -> bytes:
    """The float32 model of a student in eval mode, BatchNorm folded into the convolutions."""
    inputs = {INPUT: torch.zeros(1, 3, size, size)} | (
        {STRENGTH: torch.ones(1)} if isinstance(student, Controlled) else {}
    )
    with silence():
        program = torch.onnx.export(
            student,
            tuple(inputs.values()),
            dynamo=True,
            input_names=list(inputs),
            output_names=[OUTPUT],
            verbose=False,
        )
        assert program is not None
        model = program.model_proto
    name_nodes(model.graph)
    pool_by_name(model.graph)
    strip(model)
    return bytes(model.SerializeToString(deterministic=True))


def text_classifier_to_onnx(student: nn.Module, max_tokens: int) -> bytes:
    """The float32 model of a classifier of texts: `ids` and `mask` (1,L) int64, L up to max_tokens -> logits (1,C)."""
    rows = dict(zip((IDS, MASK), example_row(max_tokens), strict=True))
    length = torch.export.Dim("L", min=2, max=max_tokens)
    with silence():
        program = torch.onnx.export(
            student,
            tuple(rows.values()),
            dynamo=True,
            input_names=list(rows),
            output_names=[OUTPUT],
            dynamic_shapes={name: {1: length} for name in rows},
            verbose=False,
        )
        assert program is not None
        model = program.model_proto
    strip(model)
    say_max_tokens(model, max_tokens)
    return bytes(model.SerializeToString(deterministic=True))


def example_row(max_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask (1,max_tokens) to trace a text classifier by.

    The mask hides something: transformers leaves masking out where there is nothing to hide, and so would the file.
    """
    mask = torch.ones(1, max_tokens, dtype=torch.int64)
    mask[:, max_tokens // 2 :] = 0
    return mask.clone(), mask


def say_max_tokens(model: Any, max_tokens: int) -> None:
    """Write how long rows may be into a model that takes any length, as the network has that many positions."""
    model.metadata_props.add(key=MAX_TOKENS, value=str(max_tokens))


def name_nodes(graph: Any) -> None:
    """Name each node LAYER/NUMBER by the torch module that it came from; an activation by its convolution's."""
    layer = ""
    for number, node in enumerate(graph.node):
        if node.op_type == "Conv":
            layer = node.input[1].removesuffix(".weight")
        elif node.op_type != "Clip":
            scopes = {one.key: one.value for one in node.metadata_props}.get("pkg.torch.onnx.name_scopes", "[]")
            layer = "".join(ast.literal_eval(scopes)[-2:-1]) or layer
        node.name = f"{layer}/{number}"


def pool_by_name(graph: Any) -> None:
    """Write means over the picture as GlobalAveragePool, which ONNX Runtime can quantise, as it cannot ReduceMean."""
    from onnx.numpy_helper import to_array

    constants = {one.name: one for one in graph.initializer}
    for node in graph.node:
        if node.op_type != "ReduceMean" or len(node.input) < 2 or node.input[1] not in constants:
            continue
        axes = to_array(constants[node.input[1]]).ravel().tolist()
        options = {one.name: one.i for one in node.attribute}
        if sorted(axis % 4 for axis in axes) == [2, 3] and options.get("keepdims", 1):
            node.op_type = "GlobalAveragePool"
            del node.input[1:], node.attribute[:]


def strip(model: Any) -> None:
    """Remove notes on the model's origin: metadata and doc strings, of every part of an ONNX model."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
