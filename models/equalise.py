"""Cross-layer equalisation: channels that share an 8-bit scale are made to use all of it.

An int8 activation has one scale for all its channels, set by the widest. A channel that only ever reaches a tenth of
that keeps barely more than four of its eight bits. Between two convolutions a channel may be multiplied by any
factor, if the next convolution's weights for it are divided by the same: the network computes what it did, and its
weights, which have a scale for each output channel, lose nothing. After Nagel et al. 2019, with three differences:
the factors come from what the channels reach on real pictures and not from the weights; they are found for all
tensors at once that additions, resizes and paddings tie together; and a channel before a ReLU6 is never raised
beyond what the ReLU6 lets through, so that it clips where it did.

Takes and gives LiteRT flatbuffers. Nothing is added to the graph, so it costs no time on the phone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from models.runtimes import Sample, arrays
from models.silence import silence

Array = npt.NDArray[Any]

MOST = 32.0  # the largest factor: a channel that is dead on all samples stays small
SIX = 6.0
HEADROOM = 1.5  # a channel before a ReLU6 that never met its 6 keeps this much room to it
# What one channel is before is the same after: of a product, where the other factor is one value a channel.
TIES = ("ADD", "MEAN", "MUL", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "PAD")
CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")


@dataclass(slots=True)
class Group:
    """Tensors whose channels must keep one common factor, and the convolutions before and after them."""

    tensors: list[int] = field(default_factory=list)
    producers: list[Any] = field(default_factory=list)  # operators
    consumers: list[Any] = field(default_factory=list)
    fixed: bool = False  # something else reads or writes one of them


@dataclass(slots=True)
class Rescaled:
    """What a convolution's channels were multiplied by: those it makes, and those it uses; None if left alone."""

    made: Array | None = None  # (outputs,)
    used: Array | None = None  # (inputs,)


class Graph:
    """A flatbuffer taken apart: its operators with their kind, its tensors by index, their constants."""

    def __init__(self, content: bytes) -> None:
        with silence():
            from ai_edge_litert.tools import flatbuffer_utils

        self._tools = flatbuffer_utils
        self.model: Any = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
        self.part: Any = self.model.subgraphs[0]
        self.operators = [(self.kind(one), one) for one in self.part.operators]

    def kind(self, operator: Any) -> str:
        """An operator's name, such as CONV_2D."""
        return str(self._tools.opcode_to_name(self.model, operator.opcodeIndex))

    def name(self, operator: Any) -> str:
        """The name of an operator's output, which tells the torch module it came from."""
        return str(self.part.tensors[operator.outputs[0]].name.decode())

    def shape(self, tensor: int) -> list[int]:
        """A tensor's shape."""
        return [int(side) for side in self.part.tensors[tensor].shape]

    def constant(self, tensor: int) -> Array | None:
        """A tensor's stored values as float32, to be changed in place; None for what is computed."""
        one = self.part.tensors[tensor]
        data = self.model.buffers[one.buffer].data
        if data is None or len(data) == 0 or one.type != self._tools.schema_fb.TensorType.FLOAT32:
            return None
        return np.frombuffer(bytes(data), np.float32).reshape(one.shape).copy()

    def store(self, tensor: int, values: Array) -> None:
        """Put other values of the same shape into a constant."""
        buffer = self.model.buffers[self.part.tensors[tensor].buffer]
        buffer.data = np.frombuffer(np.ascontiguousarray(values, np.float32).tobytes(), np.uint8)

    def clips(self, operator: Any) -> bool:
        """Whether an operator ends in a ReLU6."""
        return bool(
            operator.builtinOptions.fusedActivationFunction == self._tools.schema_fb.ActivationFunctionType.RELU6
        )

    def scales(self, operator: Any) -> bool:
        """Whether an operator's output is as many times as large as its weights: no activation, ReLU or ReLU6."""
        kinds = self._tools.schema_fb.ActivationFunctionType
        return operator.builtinOptions.fusedActivationFunction in (kinds.NONE, kinds.RELU, kinds.RELU6)

    def to_bytes(self) -> bytes:
        """The flatbuffer again."""
        return bytes(self._tools.convert_object_to_bytearray(self.model))


def equalise(content: bytes, samples: Iterable[Sample], threads: int) -> tuple[bytes, dict[str, Rescaled]]:
    """A float32 flatbuffer whose channels reach equally far on `samples`, pictures (1,S,S,3), computing the same.

    Beside it what was done to each convolution, by its output's name, so that it can be done to another file of the
    same student.
    """
    graph = Graph(content)
    groups = [one for one in find_groups(graph) if not one.fixed and one.producers and one.consumers]
    wanted = sorted({tensor for group in groups for tensor in group.tensors})
    peaks = find_peaks(content, wanted, samples, threads)
    done: dict[str, Rescaled] = {}
    for group in groups:
        factor = factors(graph, group, peaks)
        rescale(graph, group, factor)
        for operator in group.producers:
            done.setdefault(graph.name(operator), Rescaled()).made = factor
        for operator in group.consumers:
            done.setdefault(graph.name(operator), Rescaled()).used = factor
    return graph.to_bytes(), done


def find_groups(graph: Graph) -> list[Group]:
    """The tensors between convolutions, those that are tied together in one group."""
    owner: dict[int, int] = {}

    def root(tensor: int) -> int:
        while owner.setdefault(tensor, tensor) != tensor:
            tensor = owner[tensor]
        return tensor

    for kind, operator in graph.operators:
        if kind in TIES:
            for tensor in carried(graph, operator):
                owner[root(tensor)] = root(operator.outputs[0])
    groups: dict[int, Group] = {}
    for end in (*graph.part.inputs, *graph.part.outputs):
        groups.setdefault(root(end), Group()).fixed = True
    for kind, operator in graph.operators:
        before = [groups.setdefault(root(tensor), Group()) for tensor in moving(graph, operator)]
        after = groups.setdefault(root(operator.outputs[0]), Group())
        after.tensors.append(operator.outputs[0])
        if kind in CONVOLUTIONS and graph.scales(operator) and graph.constant(operator.inputs[1]) is not None:
            before[0].consumers.append(operator)
            after.producers.append(operator)
        elif kind not in TIES or not ties(graph, operator):
            for group in (*before, after):
                group.fixed = True
        else:
            for tensor in set(moving(graph, operator)) - set(carried(graph, operator)):
                groups[root(tensor)].fixed = True  # what an output is multiplied by
    return list(groups.values())


def moving(graph: Graph, operator: Any) -> list[int]:
    """An operator's inputs that are computed, not stored."""
    stored = graph.model.buffers
    return [one for one in operator.inputs if one >= 0 and not _size(stored[graph.part.tensors[one].buffer].data)]


def carried(graph: Graph, operator: Any) -> list[int]:
    """Those of `moving` whose channels make the output's: of a product by one value a channel, the other factor."""
    inputs = moving(graph, operator)
    if graph.kind(operator) != "MUL":
        return inputs
    return [one for one in inputs if graph.shape(one) == graph.shape(operator.outputs[0])][:1]


def _size(data: Any) -> int:
    return 0 if data is None else len(data)


def ties(graph: Graph, operator: Any) -> bool:
    """Whether every input has the output's channels, and nothing is clipped or added that has a size of its own."""
    inputs = moving(graph, operator)
    channels = {int(graph.part.tensors[one].shape[-1]) for one in (*inputs, operator.outputs[0])}
    options = operator.builtinOptions
    plain = getattr(options, "fusedActivationFunction", 0) == 0
    stored_summand = graph.kind(operator) == "ADD" and len(inputs) != 2
    return len(channels) == 1 and plain and not stored_summand


def find_peaks(content: bytes, tensors: list[int], samples: Iterable[Sample], threads: int) -> dict[int, Array]:
    """The largest magnitude that each channel of each tensor reaches on the samples: tensor -> (C,)."""
    with silence():
        from ai_edge_litert.interpreter import Interpreter

        interpreter: Any = Interpreter(
            model_content=content, num_threads=threads, experimental_preserve_all_tensors=True
        )
        interpreter.allocate_tensors()
    taken = sorted(interpreter.get_input_details(), key=lambda one: -len(one["shape"]))  # the picture first
    peaks: dict[int, Array] = {}
    for sample in samples:
        for entry, values in zip(taken, arrays(sample), strict=True):
            interpreter.set_tensor(entry["index"], values)
        interpreter.invoke()
        for tensor in tensors:
            values = interpreter.get_tensor(tensor)
            found = np.maximum(values.max(axis=(0, 1, 2)), -values.min(axis=(0, 1, 2)))
            peaks[tensor] = np.maximum(peaks[tensor], found) if tensor in peaks else found
    return peaks


def factors(graph: Graph, group: Group, peaks: Mapping[int, Array]) -> Array:
    """What each channel of a group is multiplied by, at least 1: (C,)."""
    reached = np.max([peaks[tensor] for tensor in group.tensors], axis=0)
    clipped = any(graph.clips(producer) for producer in group.producers)
    goal = reached.max()
    if clipped:
        goal = min(goal, SIX / HEADROOM)
    return np.clip(goal / np.maximum(reached, 1e-6), 1.0, MOST)


def rescale(graph: Graph, group: Group, factor: Array) -> None:
    """Multiply a group's channels by `factor` where they are made and divide where they are used."""
    for operator in group.producers:
        for place in operator.inputs[1:3]:
            values = graph.constant(place)
            assert values is not None
            # Of a convolution the first axis, of a depthwise one the last; a bias has one axis.
            shape = [1] * values.ndim
            shape[0 if graph.kind(operator) == "CONV_2D" else -1] = -1
            graph.store(place, values * factor.reshape(shape))
    for operator in group.consumers:
        values = graph.constant(operator.inputs[1])
        assert values is not None
        graph.store(operator.inputs[1], values / factor)  # the last axis of both kinds
