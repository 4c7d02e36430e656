"""A student's LiteRT flatbuffer in less than float32: int8 with layers of choice kept in float, and float16 weights.

Everything that int8 needs to know is found once (`LiteRtQuantiser`): the equalised weights (models/equalise.py), the
range of every activation, and which operator came from which torch module. Each file after that takes a tenth of a
second, so that layers can be tried one by one.

The ranges are the smallest and largest value seen. The quantizer's default, a moving average, loses 15 dB on the worst
photos (field notes); percentiles gained nothing (docs/decisions/0012-quantisation.md).
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from models.equalise import CONVOLUTIONS, Graph, Rescaled, equalise
from models.runtimes import Sample, arrays
from models.silence import silence

LINEAR = ("FULLY_CONNECTED", "EMBEDDING_LOOKUP")  # what holds the weights of a text classifier
ACTIVATION = re.compile(r"\.activation\.\w+$")  # a tensor that is named by one


@dataclass(slots=True)
class Layer:
    """Operators of a flatbuffer that came from one torch module."""

    name: str  # the module's path, such as decoder.3.pointwise.0
    block: str  # of the block it belongs to, such as decoder.3
    multiplications: int = 0  # for one picture
    outputs: list[str] = field(default_factory=list)  # names of the operators' outputs
    convolution: str = ""  # the one among them that is a convolution's


def find_layers(content: bytes, modules: Collection[str] = ()) -> list[Layer]:
    """The layers in the order they are computed, named by the torch `modules` there are, else as in the file."""
    graph = Graph(content)
    layers: dict[str, Layer] = {}
    name = ""
    for kind, operator in graph.operators:
        # What has no name of its own, as the shuffle, belongs to the layer before.
        name = module_path(graph.name(operator), kind in CONVOLUTIONS, modules) or name
        own = ACTIVATION.search(graph.name(operator).partition(";")[0])
        layer = layers.setdefault(name, Layer(name=name, block=block_of(name if own else f"{name}.")))
        layer.outputs.append(graph.name(operator))
        if kind in CONVOLUTIONS:
            layer.block = block_of(name)
            layer.convolution = graph.name(operator)
            weights, made = graph.shape(operator.inputs[1]), graph.shape(operator.outputs[0])
            layer.multiplications += made[1] * made[2] * int(np.prod(weights))
    return list(layers.values())


def module_path(tensor: str, convolution: bool, modules: Collection[str]) -> str:
    """The torch module that a tensor's name tells of: NAME/pkg.Class_instance/pkg.Class_instance;...; "" for none.

    A fused convolution is named after the activation first; the convolution comes last. Containers that are not
    called, such as a ModuleList, are not in the name: of `modules` the one that has the rest in this order is meant.
    """
    parts = [part for part in tensor.split(";") if "/" in part]
    if convolution:
        parts = [part for part in parts if re.search(r"\.Conv\w*_\w+$", part)][-1:]
    if not parts:
        return ""
    # Of pkg.Class_instance the instance: class names hold no underscore.
    instances = [one.rsplit(".", 1)[-1].partition("_")[2] for one in parts[0].split("/")[1:]]
    found = [one for one in modules if _in_order(instances, one.split("."))]
    return min(found, key=len, default=".".join(instances))


def _in_order(some: Sequence[str], every: Sequence[str]) -> bool:
    """Whether `some` occur in `every` in their order, and both end alike."""
    left = iter(every)
    return bool(every) and some[-1:] == list(every[-1:]) and all(one in left for one in some)


def block_of(layer: str) -> str:
    """The block of a layer: its path up to the last number, the convolution's own place in it left out."""
    *outer, _ = layer.split(".")
    numbers = [place for place, part in enumerate(outer) if part.isdigit()]
    return ".".join(outer[: numbers[-1] + 1]) if numbers else layer.removesuffix(".")


class LiteRtQuantiser:
    """Makes int8 flatbuffers of one float32 flatbuffer."""

    def __init__(self, content: bytes, samples: Iterable[Sample], threads: int, modules: Collection[str] = ()) -> None:
        """Equalise and calibrate on `samples`, pictures (1,S,S,3) in [0,1]; takes some seconds."""
        samples = list(samples)
        self.layers = find_layers(content, modules)
        self._content, done = equalise(content, samples, threads)
        self.rescaled: dict[str, Rescaled] = {
            layer.name: done[layer.convolution] for layer in self.layers if layer.convolution in done
        }
        self._ranges = calibrate(self._content, samples, threads)

    def quantised(self, high: Collection[str] = ()) -> bytes:
        """The int8 flatbuffer with the layers named in `high` left in float32."""
        recipe = static_recipe(8)
        _leave_alone(recipe, [layer for layer in self.layers if layer.name in high])
        return _quantised(self._content, recipe, self._ranges)


def calibrate(content: bytes, samples: Sequence[Sample], threads: int, bits: int = 8) -> dict[str, Any]:
    """The smallest and largest value of every activation on the samples, by tensor name."""
    with silence():
        from ai_edge_quantizer import calibrator
        from ai_edge_quantizer.utils import qsv_utils

        observer = calibrator.Calibrator(content, num_threads=threads, qsv_update_func=qsv_utils.min_max_update)
        [(signature, names)] = observer.get_signature_list().items()
        # A list: a generator would be spent on counting it.
        data = {signature: [dict(zip(sorted(names["inputs"]), arrays(one), strict=True)) for one in samples]}
        observer.calibrate(data, static_recipe(bits))
        return dict(observer.get_model_qsvs())


def static_recipe(bits: int) -> Any:
    """int8 weights and activations of `bits`; the picture goes in and out as float32."""
    from ai_edge_quantizer import qtyping, quantizer, recipe_manager

    recipe = recipe_manager.RecipeManager()
    recipe.add_static_config(".*", qtyping.TFLOperationName.ALL_SUPPORTED, bits, 8)
    for edge in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        recipe.add_quantization_config(".*", edge, algorithm_key=quantizer.AlgorithmName.NO_QUANTIZE)
    return recipe


def _leave_alone(recipe: Any, layers: Iterable[Layer]) -> None:
    from ai_edge_quantizer import qtyping, quantizer

    for layer in layers:
        for output in layer.outputs:
            recipe.add_quantization_config(
                f"^{re.escape(output)};$",
                qtyping.TFLOperationName.ALL_SUPPORTED,
                algorithm_key=quantizer.AlgorithmName.NO_QUANTIZE,
            )


def _quantised(content: bytes, recipe: Any, ranges: dict[str, Any] | None) -> bytes:
    with silence():
        from ai_edge_quantizer import quantizer

        work = quantizer.Quantizer(content, recipe.get_quantization_recipe())
        result = work.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
        return bytes(result.quantized_model)


def to_litert_int8(content: bytes, samples: Iterable[Sample], threads: int) -> bytes:
    """The int8 flatbuffer of a float32 one, calibrated on `samples`, pictures (1,S,S,3) in [0,1]."""
    return LiteRtQuantiser(content, samples, threads).quantised()


def to_litert_w8a16(content: bytes, samples: Iterable[Sample], threads: int) -> bytes:
    """int8 weights and int16 activations: nearly exact, and some twenty times slower than int8 on a CPU."""
    return _quantised(content, static_recipe(16), calibrate(content, list(samples), threads, bits=16))


def to_litert_w8(content: bytes) -> bytes:
    """int8 weights of linear layers and embeddings; activations are rounded as they come, so nothing is calibrated."""
    from ai_edge_quantizer import qtyping, recipe_manager

    recipe = recipe_manager.RecipeManager()
    recipe.add_dynamic_config(".*", qtyping.TFLOperationName.ALL_SUPPORTED, num_bits=8)
    return _quantised(content, recipe, None)


def to_litert_fp16(content: bytes, kinds: Collection[str] = CONVOLUTIONS) -> bytes:
    """float16 weights of these kinds of operators, float32 arithmetic (a GPU delegate may use float16): half of it."""
    from ai_edge_quantizer import qtyping, quantizer, recipe_manager

    recipe = recipe_manager.RecipeManager()
    for kind in kinds:
        recipe.add_weight_only_config(
            ".*",
            qtyping.TFLOperationName(kind),
            num_bits=16,
            algorithm_key=quantizer.AlgorithmName.FLOAT_CASTING,
        )
    return _quantised(content, recipe, None)
