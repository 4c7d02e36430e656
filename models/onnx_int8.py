"""A student's ONNX file in less than float32: int8 as QDQ with layers of choice kept in float, and float16.

The weights are equalised as those of the LiteRT file were (models/equalise.py); the activations' ranges are the
smallest and largest value seen, found once for all files that are made.
"""

import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.equalise import Rescaled
from models.onnx_export import INPUT, STRENGTH, say_max_tokens, strip
from models.runtimes import Sample, arrays
from models.silence import silence
from models.token_runtimes import MAX_TOKENS

Images = npt.NDArray[np.float32]


class OnnxQuantiser:
    """Makes int8 models of one float32 model."""

    def __init__(
        self, content: bytes, samples: Iterable[Sample], rescaled: Mapping[str, Rescaled] | None = None
    ) -> None:
        """Equalise as told by layer, and take note of `samples`, pictures (1,S,S,3) in [0,1], to calibrate on."""
        self._samples = list(samples)
        self._ranges = b""
        with tempfile.TemporaryDirectory() as folder, silence():
            import onnx
            from onnxruntime.quantization.shape_inference import quant_pre_process

            model = onnx.load_from_string(content)
            rescale(model.graph, rescaled or {})
            prepared = Path(folder) / "prepared.onnx"
            # ONNX Runtime's own graph optimisation would write machine-dependent layouts into the model.
            quant_pre_process(model, prepared, skip_optimization=True, skip_symbolic_shape=True)
            self._prepared = prepared.read_bytes()
            self._nodes = [node.name for node in onnx.load_from_string(self._prepared).graph.node]

    def quantised(self, high: Collection[str] = ()) -> bytes:
        """The int8 model with the layers named in `high` left in float32."""
        with tempfile.TemporaryDirectory() as folder, silence():
            import onnx
            from onnxruntime import quantization

            prepared, quantised, ranges = (Path(folder) / name for name in ("a.onnx", "b.onnx", "ranges.json"))
            prepared.write_bytes(self._prepared)
            if self._ranges:
                ranges.write_bytes(self._ranges)
            quantization.quantize_static(
                prepared,
                quantised,
                _Samples(self._samples),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                # Seven bits: with eight, processors that lack VNNI sum pairs of products in 16 bits, which overflow
                # silently. On such a one a test picture came out at 24 dB; with seven bits the least is 39.
                reduce_range=True,
                nodes_to_exclude=[name for name in self._nodes if name.rpartition("/")[0] in high],
                calibrate_method=quantization.CalibrationMethod.MinMax,
                calibration_cache_path=ranges,
            )
            self._ranges = ranges.read_bytes()
            model = onnx.load(quantised)
        strip(model)
        return bytes(model.SerializeToString(deterministic=True))


def rescale(graph: Any, rescaled: Mapping[str, Rescaled]) -> None:
    """Multiply each convolution's channels by what LiteRT's were: a layer's name is that of its weights."""
    from onnx import numpy_helper

    constants = {one.name: one for one in graph.initializer}
    for node in graph.node:
        done = rescaled.get(node.input[1].removesuffix(".weight")) if node.op_type == "Conv" else None
        if done is None:
            continue
        weights = numpy_helper.to_array(constants[node.input[1]]).copy()
        depthwise = weights.shape[1] == 1 and done.used is not None and len(done.used) > 1
        if done.used is not None:
            weights /= done.used.reshape((-1, 1, 1, 1) if depthwise else (1, -1, 1, 1))
        if done.made is not None:
            weights *= done.made.reshape(-1, 1, 1, 1)
            bias = numpy_helper.to_array(constants[node.input[2]]) * done.made
            constants[node.input[2]].CopyFrom(numpy_helper.from_array(bias.astype(np.float32), node.input[2]))
        constants[node.input[1]].CopyFrom(numpy_helper.from_array(weights.astype(np.float32), node.input[1]))


class _Samples:
    """What ONNX Runtime calls a calibration data reader: one dictionary of inputs a call, then None."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._left: Iterator[Sample] = iter(samples)

    def get_next(self) -> dict[str, Images] | None:
        sample = next(self._left, None)
        if sample is None:
            return None
        picture, *strength = arrays(sample)
        entries = [np.ascontiguousarray(picture.transpose(0, 3, 1, 2)), *strength]
        return dict(zip((INPUT, STRENGTH), entries, strict=False))


def to_onnx_w8(content: bytes) -> bytes:
    """int8 weights of linear layers and embeddings; activations are rounded as they come, so nothing is calibrated."""
    with tempfile.TemporaryDirectory() as folder, silence():
        import onnx
        from onnxruntime import quantization

        model = onnx.load_from_string(content)
        told = {one.key: one.value for one in model.metadata_props}
        model.graph.ClearField("value_info")  # it turns weights round, and would find other shapes than are noted
        prepared, quantised = (Path(folder) / name for name in ("a.onnx", "b.onnx"))
        onnx.save(model, prepared)
        # Seven bits, as above.
        quantization.quantize_dynamic(
            prepared, quantised, per_channel=True, reduce_range=True, weight_type=quantization.QuantType.QInt8
        )
        model = onnx.load(quantised)
    strip(model)
    say_max_tokens(model, int(told[MAX_TOKENS]))
    return bytes(model.SerializeToString(deterministic=True))


def to_onnx_fp16(content: bytes) -> bytes:
    """float16 weights and arithmetic, what goes in and out as before: half the size, for GPUs and WebGPU."""
    with silence():
        import onnx
        from onnxruntime.transformers import float16

        model = onnx.load_from_string(content)
        told = {one.key: one.value for one in model.metadata_props}
        own_constants(model.graph, "Resize")
        model = float16.convert_float_to_float16(model, keep_io_types=True)
    strip(model)
    if MAX_TOKENS in told:
        say_max_tokens(model, int(told[MAX_TOKENS]))
    return bytes(model.SerializeToString(deterministic=True))


def own_constants(graph: Any, kind: str) -> None:
    """Give each node of a kind constants of its own: the float16 converter casts a shared one twice under one name."""
    constants = {one.name: one for one in graph.initializer}
    for node in graph.node:
        for place, name in enumerate(node.input):
            if node.op_type == kind and name in constants:
                copied = type(constants[name]).FromString(constants[name].SerializeToString())
                copied.name = node.input[place] = f"{node.name}/{place}"
                graph.initializer.append(copied)
