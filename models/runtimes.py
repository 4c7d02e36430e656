"""Open a model file on the runtime it is made for: LiteRT (XNNPACK delegate) or ONNX Runtime, on the CPU.

Whatever the runtime, an opened model is a callable on (1,S,S,3) float32 in [0,1], and on a strength of the effect if
its file takes one (models/controls.py). A detector's file (models/outside.py) gives a number instead of a picture; what
takes tokens is opened by models/token_runtimes.py. The three steps of a call can be taken one by one, so that a
benchmark times the runtime and not the copying around it.
"""

from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from models.errors import UserError
from models.silence import silence

Images = npt.NDArray[np.float32]

# What a file gives: a student's a picture, a detector's a number, a classifier's logits, one of texts those of tokens.
Gives = Literal["picture", "number", "logits", "logits-of-tokens"]
OF_TOKENS: Gives = "logits-of-tokens"
FULL = 1.0  # strength, where nothing else is said
Sample = tuple[Images] | tuple[Images, float]  # what a model is called on: a picture, or a picture and a strength


class Model(Protocol):
    """An opened model file."""

    size: int  # S: both sides of its pictures, in pixels

    def example(self) -> Any:
        """What to time it on: something it can load, the same every time."""

    def load(self, images: Images, strength: float = FULL) -> None:
        """Hand over the input, (1,S,S,3) in [0,1]; UserError for another strength where the file takes none."""

    def invoke(self) -> None:
        """Run the model on the loaded input."""

    def read(self) -> Images:
        """The output of the last run, (1,S,S,3) in [0,1], (1,) of a detector, or (1,C) of a classifier."""
        ...

    def __call__(self, images: Images, strength: float = FULL) -> Images:
        """load, invoke, read."""
        ...


class LiteRtModel:
    """A .tflite file; its own layout is NHWC, ours."""

    def __init__(self, path: Path, threads: int, gives: Gives = "picture") -> None:
        self._interpreter = litert_interpreter(path, threads)
        taken = sorted(self._interpreter.get_input_details(), key=lambda one: -len(one["shape"]))  # the picture first
        inputs = [(one["dtype"].__name__, one["shape"].tolist()) for one in taken]
        outputs = [(one["dtype"].__name__, one["shape"].tolist()) for one in self._interpreter.get_output_details()]
        self.size = check_contract(path, inputs, outputs, "NHWC", gives)
        self._path, (self._input, *self._strength) = path, [one["index"] for one in taken]
        self._output = self._interpreter.get_output_details()[0]["index"]

    def example(self) -> Images:
        """A picture of noise."""
        return noise(self.size)

    def load(self, images: Images, strength: float = FULL) -> None:
        """Hand over the input, (1,S,S,3) in [0,1]."""
        self._interpreter.set_tensor(self._input, images)
        for one in settable(self._path, self._strength, strength):
            self._interpreter.set_tensor(one, np.array([strength], np.float32))

    def invoke(self) -> None:
        """Run the model on the loaded input."""
        self._interpreter.invoke()

    def read(self) -> Images:
        """The output of the last run, (1,S,S,3) in [0,1]."""
        output: Images = self._interpreter.get_tensor(self._output)
        return output

    def __call__(self, images: Images, strength: float = FULL) -> Images:
        """load, invoke, read."""
        self.load(images, strength)
        self.invoke()
        return self.read()


class OnnxModel:
    """An .onnx file; its own layout is NCHW."""

    def __init__(self, path: Path, threads: int, gives: Gives = "picture") -> None:
        self._session = onnx_session(path, threads)
        taken = sorted(self._session.get_inputs(), key=lambda one: -len(one.shape))  # the picture first
        inputs = [(one.type, one.shape) for one in taken]
        outputs = [(one.type, one.shape) for one in self._session.get_outputs()]
        self.size = check_contract(path, inputs, outputs, "NCHW", gives)
        self._path, (self._name, *self._strength) = path, [one.name for one in taken]
        self._feed: dict[str, Images] = {}
        self._result: list[Images] = []

    def example(self) -> Images:
        """A picture of noise."""
        return noise(self.size)

    def load(self, images: Images, strength: float = FULL) -> None:
        """Hand over the input, (1,S,S,3) in [0,1]."""
        self._feed = {self._name: np.ascontiguousarray(images.transpose(0, 3, 1, 2))}
        for one in settable(self._path, self._strength, strength):
            self._feed[one] = np.array([strength], np.float32)

    def invoke(self) -> None:
        """Run the model on the loaded input."""
        self._result = self._session.run(None, self._feed)

    def read(self) -> Images:
        """The output of the last run, (1,S,S,3) in [0,1]."""
        output = self._result[0]
        return np.ascontiguousarray(output.transpose(0, 2, 3, 1)) if output.ndim == 4 else output

    def __call__(self, images: Images, strength: float = FULL) -> Images:
        """load, invoke, read."""
        self.load(images, strength)
        self.invoke()
        return self.read()


RUNTIMES: dict[str, type[LiteRtModel] | type[OnnxModel]] = {"litert": LiteRtModel, "onnx": OnnxModel}


def open_model(path: Path, runtime: str, threads: int = 1, gives: Gives = "picture") -> Model:
    """Open a file on "litert" or "onnx"; UserError if it is missing, no model, or has another contract."""
    if runtime not in RUNTIMES:
        raise UserError(f"{path}: unknown runtime {runtime!r}; there are: {', '.join(RUNTIMES)}")
    if not path.is_file():
        raise UserError(f"missing {path}: run the stage that writes it (dvc repro quantise)")
    if gives == OF_TOKENS:
        from models.token_runtimes import TOKEN_RUNTIMES

        return TOKEN_RUNTIMES[runtime](path, threads)
    return RUNTIMES[runtime](path, threads, gives)


def litert_interpreter(path: Path, threads: int) -> Any:
    """A .tflite file opened, its tensors allocated."""
    content = path.read_bytes()
    with silence():
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:  # what older boards have (tasks/board_runner.py)
            from tflite_runtime.interpreter import Interpreter

        try:
            interpreter = Interpreter(model_content=content, num_threads=threads)
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise broken(path, "LiteRT", error) from None
    return interpreter


def onnx_session(path: Path, threads: int) -> Any:
    """An .onnx file opened on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # Idle workers that spin would take time from whatever is run next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    content = path.read_bytes()
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's exceptions have no public base class
        raise broken(path, "ONNX Runtime", error) from None


def noise(size: int) -> Images:
    """(1,S,S,3) float32 in [0,1], the same every time: latency does not depend on what is shown."""
    return np.random.default_rng(0).random((1, size, size, 3), dtype=np.float32)


def arrays(sample: Sample) -> list[Images]:
    """A sample as a file takes it: the picture (1,S,S,3), and the strength (1,) if there is one."""
    picture, *strength = sample
    return [picture, *(np.array([one], np.float32) for one in strength)]


def settable(path: Path, inputs: list[Any], strength: float) -> list[Any]:
    """The inputs that take the strength, if it can be had."""
    if strength != FULL and not inputs:
        raise UserError(f"{path} takes no strength: open the file that does (control in params.yaml)")
    return inputs


def check_contract(
    path: Path, inputs: list[tuple[str, Any]], outputs: list[tuple[str, Any]], layout: str, gives: Gives = "picture"
) -> int:
    """S, if the file takes one float32 picture of S x S in `layout` and gives another, or a number; else a UserError.

    A second input may be a float32 number, the strength of the effect.
    """
    pictures = inputs[:1] if [list(shape) for _, shape in inputs[1:]] == [[1]] else inputs
    first = list(inputs[0][1]) if inputs else []
    size = first[2] if len(first) == 4 else 0
    picture = [1, size, size, 3] if layout == "NHWC" else [1, 3, size, size]
    logits = [1, *list(outputs[0][1])[1:]] if outputs and len(outputs[0][1]) == 2 else [1, 0]
    for ends, expected in (
        (pictures, picture),
        (outputs, {"number": [1], "logits": logits}.get(gives, picture)),
    ):
        if len(ends) != 1 or ends[0][0] not in ("float32", "tensor(float)") or list(ends[0][1]) != expected:
            found = ", ".join(f"{kind} {list(shape)}" for kind, shape in inputs) or "none"
            given = ", ".join(f"{kind} {list(shape)}" for kind, shape in outputs) or "none"
            shape = "[1,S,S,3]" if layout == "NHWC" else "[1,3,S,S]"
            wanted, stage = f"a student takes and gives one float32 picture, {shape}", "quantise"
            if gives == "number":
                wanted, stage = f"a detector takes one float32 picture, {shape}, and gives a number, [1]", "detector"
            if gives == "logits":
                wanted = f"a classifier takes one float32 picture, {shape}, and gives logits, [1,C]"
            raise UserError(f"{path}: takes {found} and gives {given}; {wanted}: export it again (dvc repro {stage})")
    return int(size)


def broken(path: Path, runtime: str, error: Exception) -> UserError:
    """One line for a file that the runtime cannot open."""
    reason = " ".join(str(error).split())
    return UserError(
        f"{path} is no model that {runtime} can open ({reason:.120}): export it again (dvc repro quantise)"
    )
