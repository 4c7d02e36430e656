"""Open a text classifier's file on LiteRT or ONNX Runtime: token ids and a mask go in, logits come out.

An opened model is a callable on (ids, mask), both (1,L) integers, the mask 1 where there is a token. A LiteRT file
takes rows of one length, and shorter ones are filled up to it; an ONNX file takes any up to the one its metadata says.
The steps of a call are those of models/runtimes.py.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.errors import UserError
from models.runtimes import litert_interpreter, onnx_session

IDS, MASK = "ids", "mask"
MAX_TOKENS = "max_tokens"  # what the ONNX file's metadata calls the length of the longest row
Row = tuple[npt.NDArray[Any], npt.NDArray[Any]]  # ids and mask of one text, (1,L) each


class _TokenModel:
    """What both runtimes share."""

    size: int  # the most tokens of a text

    def example(self) -> Row:
        """A row as long as rows can be, which takes longest."""
        return np.ones((1, self.size), np.int64), np.ones((1, self.size), np.int64)

    def load(self, row: Row) -> None:
        """Hand over ids and mask, (1,L); UserError where they are more than the file takes."""
        if row[0].shape[1] > self.size:
            raise UserError(f"{row[0].shape[1]} tokens, and the file takes {self.size}: cut them off")
        self._take(row)

    def _take(self, row: Row) -> None:
        raise NotImplementedError

    def invoke(self) -> None:
        """Run the model on the loaded input."""
        raise NotImplementedError

    def read(self) -> npt.NDArray[np.float32]:
        """The logits of the last run, (1,C)."""
        raise NotImplementedError

    def __call__(self, row: Row) -> npt.NDArray[np.float32]:
        """load, invoke, read."""
        self.load(row)
        self.invoke()
        return self.read()


class LiteRtTokens(_TokenModel):
    """A .tflite file; it takes int32 rows of one length."""

    def __init__(self, path: Path, threads: int) -> None:
        self._interpreter = litert_interpreter(path, threads)
        taken = {one["name"].rpartition("_")[2]: one for one in self._interpreter.get_input_details()}
        given = self._interpreter.get_output_details()
        inputs = {name: (one["dtype"].__name__, one["shape"].tolist()) for name, one in taken.items()}
        check_contract(path, inputs, [(one["dtype"].__name__, one["shape"].tolist()) for one in given], "int32")
        self.size = inputs[IDS][1][1]
        self._places = [taken[name]["index"] for name in (IDS, MASK)]
        self._output = given[0]["index"]

    def _take(self, row: Row) -> None:
        for place, values in zip(self._places, row, strict=True):
            # What fills is hidden by the mask, so any token will do.
            self._interpreter.set_tensor(place, np.pad(values, ((0, 0), (0, self.size - values.shape[1]))).astype("i4"))

    def invoke(self) -> None:
        """Run the model on the loaded input."""
        self._interpreter.invoke()

    def read(self) -> npt.NDArray[np.float32]:
        """The logits of the last run, (1,C)."""
        logits: npt.NDArray[np.float32] = self._interpreter.get_tensor(self._output)
        return logits


class OnnxTokens(_TokenModel):
    """An .onnx file; it takes int64 rows of any length up to its longest."""

    def __init__(self, path: Path, threads: int) -> None:
        self._session = onnx_session(path, threads)
        inputs = {one.name: (one.type, one.shape) for one in self._session.get_inputs()}
        outputs = [(one.type, one.shape) for one in self._session.get_outputs()]
        check_contract(path, inputs, outputs, "tensor(int64)")
        told = self._session.get_modelmeta().custom_metadata_map
        if not str(told.get(MAX_TOKENS, "")).isdecimal():
            raise UserError(f"{path} does not say {MAX_TOKENS} in its metadata: export it again (dvc repro quantise)")
        self.size = int(told[MAX_TOKENS])
        self._feed: dict[str, npt.NDArray[Any]] = {}
        self._result: list[npt.NDArray[np.float32]] = []

    def _take(self, row: Row) -> None:
        self._feed = {name: values.astype(np.int64) for name, values in zip((IDS, MASK), row, strict=True)}

    def invoke(self) -> None:
        """Run the model on the loaded input."""
        self._result = self._session.run(None, self._feed)

    def read(self) -> npt.NDArray[np.float32]:
        """The logits of the last run, (1,C)."""
        return self._result[0]


TOKEN_RUNTIMES: dict[str, Any] = {"litert": LiteRtTokens, "onnx": OnnxTokens}


def check_contract(path: Path, inputs: dict[str, tuple[str, Any]], outputs: list[tuple[str, Any]], kind: str) -> None:
    """UserError where a file does not take `ids` and `mask`, (1,L) of `kind`, and give one row of float32 logits."""
    told = f"{inputs} and gives {outputs}"
    shapes = [shape for _, shape in inputs.values()]
    takes = set(inputs) == {IDS, MASK} and all(one == kind for one, _ in inputs.values())
    takes = takes and shapes[0] == shapes[1] and len(shapes[0]) == 2 and shapes[0][0] == 1
    gives = len(outputs) == 1 and outputs[0][0] in ("float32", "tensor(float)") and len(outputs[0][1]) == 2
    if not (takes and gives):
        raise UserError(
            f"{path} takes {told:.200}; a text classifier takes {IDS} and {MASK}, [1,L] {kind}, and gives logits, "
            "[1,C]: export it again (dvc repro quantise)"
        )
