"""Where a LiteRT file's time goes: the file is cut behind every block, and all beginnings are timed in turn.

Prints what each block adds to the p50 in ms on one thread, with its share and its multiplications; a beginning's last
tensor is one more output to write, so shares are good to about a hundredth. Takes a student folder with exported/ and
student/.

    python tests/latency_figures.py data/students/oil [fp32|int8]
"""

import copy
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools import flatbuffer_utils

from models.litert_int8 import find_layers
from models.students import load_student
from tasks.timing import interleaved

ROUNDS = 100


def beginning(model: Any, last: int) -> bytes:
    """The file up to and including operator number `last`."""
    cut = copy.deepcopy(model)
    graph = cut.subgraphs[0]
    graph.operators = graph.operators[: last + 1]
    graph.outputs = [graph.operators[last].outputs[0]]
    cut.signatureDefs = None
    return bytes(flatbuffer_utils.convert_object_to_bytearray(cut))


class Opened:
    """A file on one thread as tasks/timing.py takes it; open_model would refuse a beginning, which gives no picture."""

    def __init__(self, content: bytes) -> None:
        self.interpreter = Interpreter(model_content=content, num_threads=1)
        self.interpreter.allocate_tensors()
        [self.entry] = self.interpreter.get_input_details()
        self.size = int(self.entry["shape"][1])
        self.invoke = self.interpreter.invoke

    def load(self, picture: Any) -> None:
        """Put a picture (1,S,S,3) in."""
        self.interpreter.set_tensor(self.entry["index"], picture)


def main() -> None:
    """The command above."""
    folder, precision = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "int8"
    content = (folder / "exported" / f"student.{precision}.tflite").read_bytes()
    layers = find_layers(content, [name for name, _ in load_student(folder / "student").named_modules()])
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    graph = model.subgraphs[0]
    place = {graph.tensors[one.outputs[0]].name.decode(): number for number, one in enumerate(graph.operators)}
    ends: dict[str, int] = {}
    work: dict[str, int] = {}
    for layer in layers:
        ends[layer.block] = max(place[name] for name in layer.outputs)
        work[layer.block] = work.get(layer.block, 0) + layer.multiplications
    blocks = sorted(ends, key=lambda block: ends[block])
    opened = [Opened(beginning(model, ends[block])) for block in blocks]
    until = np.median(interleaved(opened, warmup=5, runs=ROUNDS), axis=1)
    print(f"{precision}: {until[-1]:.2f} ms")
    for block, added in zip(blocks, np.diff(until, prepend=0.0), strict=True):
        print(f"{block or 'end':24} {added:6.3f} ms {added / until[-1]:6.1%} {work[block] / 1e6:7.1f} MMAC")


if __name__ == "__main__":
    main()
