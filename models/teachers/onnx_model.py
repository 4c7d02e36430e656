"""A teacher from a file: any image-to-image ONNX model, pinned by the sha256 of its bytes.

The bytes that are hashed are the bytes that run, so a file swapped in between cannot slip through.
Raise its number in models/teachers/digests.py when the output changes.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.errors import UserError
from models.teachers.digests import teacher_digest

if TYPE_CHECKING:
    import onnx
    import onnxruntime


class OnnxTeacher:
    """The `onnx` teacher: one float32 image in [0,1] in, one of the same size out, NCHW or NHWC."""

    def __init__(self, *, path: str, sha256: str, name: str, version: int) -> None:
        self.name = f"{name} v{version}"
        data = read_pinned(Path(path), sha256, self.name)
        refuse_external_weights(data, self.name)
        self.session = start(data, self.name)
        self.layout, self.shape = _image_contract(self.session, self.name)
        self.digest = teacher_digest({"kind": "onnx", "sha256": sha256})

    def __call__(self, inputs: npt.NDArray[np.uint8], seeds: Sequence[int]) -> npt.NDArray[np.float32]:
        """(B,H,W,3) uint8 RGB -> (B,H,W,3) float32, meant to lie in [0,1]; `seeds` are not used.

        One image at a time: a model may mix what shares a batch, and on one thread it costs the same
        (0.24 s an image against 0.25 s in batches of 4, udnie at 256x256).
        """
        return np.stack([self._run(image) for image in inputs])

    def _run(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        values = image.astype(np.float32) / 255
        batch = (values if self.layout == "NHWC" else values.transpose(2, 0, 1))[None]
        self._check_size(batch.shape)
        # A model with a fixed batch gets copies of the one image: nothing else may decide its output.
        batch = np.ascontiguousarray(np.repeat(batch, self.shape[0] or 1, axis=0))
        (output,) = self.session.run(None, {self.session.get_inputs()[0].name: batch})
        if output.shape != batch.shape or output.dtype != np.float32:
            raise UserError(
                f"teacher {self.name}: it gives {output.dtype} {output.shape} for an image of {batch.shape}; "
                "use an image-to-image model that keeps the size"
            )
        return output[0] if self.layout == "NHWC" else output[0].transpose(1, 2, 0)

    def _check_size(self, shape: tuple[int, ...]) -> None:
        for axis in (1, 2, 3):
            if self.shape[axis] not in (None, shape[axis]):
                raise UserError(
                    f"teacher {self.name}: the model takes {self.layout} images of {self.shape[1:]}, the pairs are "
                    f"{shape[1:]}: set pairs.size to the model's"
                )


def read_pinned(path: Path, sha256: str, name: str) -> bytes:
    """The bytes of `path`, or a UserError if they are not there or not the pinned ones."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"teacher {name}: cannot read {path} ({error.strerror}): put the file there") from None
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise UserError(
            f"teacher {name}: {path} has sha256 {found}, expected {sha256}: restore the file or change the pin"
        )
    return data


def _tensors(graph: "onnx.GraphProto") -> Iterator["onnx.TensorProto"]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("g"):
                yield from _tensors(attribute.g)
            yield from attribute.tensors
            for inner in attribute.graphs:
                yield from _tensors(inner)


def refuse_external_weights(data: bytes, name: str) -> None:
    """Weights in a second file are not covered by the pin."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(data)
    except DecodeError:
        raise UserError(f"teacher {name}: the file is not an ONNX model: give the path of a .onnx file") from None
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(model.graph)):
        raise UserError(
            f"teacher {name}: its weights lie in another file, which the sha256 does not pin: save it whole"
        )


def start(data: bytes, name: str, threads: int = 1) -> "onnxruntime.InferenceSession":
    """A session on one thread: sums are then added in one order, whatever the machine or the workers."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # the one-line error below says what went wrong
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors share no base of their own
        raise UserError(f"teacher {name}: ONNX Runtime refuses the model: {_first_line(error)}") from None


def _image_contract(session: "onnxruntime.InferenceSession", name: str) -> tuple[str, tuple[int | None, ...]]:
    """The layout ("NCHW" or "NHWC") and the input shape with None where it is free."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    described = ", ".join(f"{value.name}: {value.type} {value.shape}" for value in [*inputs, *outputs])
    if len(inputs) == len(outputs) == 1 and inputs[0].type == outputs[0].type == "tensor(float)":
        shape, layout = _sizes(inputs[0].shape), _layout(inputs[0].shape)
        if layout and _may_equal(shape, _sizes(outputs[0].shape)):
            return layout, shape
    raise UserError(
        f"teacher {name}: not an image-to-image model ({described}); it must have one float32 input and one float32 "
        "output of 3 channels, NCHW or NHWC"
    )


def _sizes(shape: Sequence[Any]) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in shape)


def _may_equal(shape: tuple[int | None, ...], other: tuple[int | None, ...]) -> bool:
    """Whether nothing that is known of two shapes differs; a shape of unknown rank is checked at the call."""
    same_rank = len(other) in (0, len(shape))
    return same_rank and all(a is None or b is None or a == b for a, b in zip(shape, other, strict=False))


def _layout(shape: Sequence[Any]) -> str | None:
    """Where the 3 channels are, or None when that cannot be told."""
    if len(shape) != 4 or (shape[1] == 3) == (shape[3] == 3):
        return None
    return "NCHW" if shape[1] == 3 else "NHWC"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
