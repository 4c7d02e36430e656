"""A student as ONNX files: float32, and int8 as QDQ with calibrated activations.

Both take and give float32 (1,3,S,S) in [0,1], named "input" and "output". Everything that torch's exporter
notes about where a node came from (source paths, stack traces) is removed: equal weights give equal bytes,
on any machine.
"""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from models.silence import silence

Images = npt.NDArray[np.float32]
INPUT, OUTPUT = "input", "output"


def to_onnx(student: nn.Module, size: int) -> bytes:
    """The float32 model of a student in eval mode, BatchNorm folded into the convolutions."""
    with silence():
        program = torch.onnx.export(
            student,
            (torch.zeros(1, 3, size, size),),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
        assert program is not None
        model = program.model_proto
    strip(model)
    return bytes(model.SerializeToString(deterministic=True))


def strip(model: Any) -> None:
    """Remove notes on the model's origin: metadata and doc strings, of every part of an ONNX model."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")


def to_onnx_int8(float_model: bytes, samples: Iterable[Images]) -> bytes:
    """The int8 QDQ model of a float32 one, calibrated on `samples`, each (1,S,S,3) in [0,1]."""
    with tempfile.TemporaryDirectory() as folder, silence():
        import onnx
        from onnxruntime import quantization
        from onnxruntime.quantization.shape_inference import quant_pre_process

        prepared, quantised = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        # ONNX Runtime's own graph optimisation would write machine-dependent layouts into the model.
        quant_pre_process(
            onnx.load_from_string(float_model), prepared, skip_optimization=True, skip_symbolic_shape=True
        )
        quantization.quantize_static(
            prepared,
            quantised,
            _Samples(samples),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )
        model = onnx.load(quantised)
    strip(model)
    return bytes(model.SerializeToString(deterministic=True))


class _Samples:
    """What ONNX Runtime calls a calibration data reader: one dictionary of inputs a call, then None."""

    def __init__(self, samples: Iterable[Images]) -> None:
        self._left: Iterator[Images] = iter(samples)

    def get_next(self) -> dict[str, Images] | None:
        sample = next(self._left, None)
        return None if sample is None else {INPUT: np.ascontiguousarray(sample.transpose(0, 3, 1, 2))}
