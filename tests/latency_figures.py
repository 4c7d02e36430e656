"""Where a LiteRT file's time goes: the file is cut behind every block, and all beginnings are timed in turn.

Prints what each block adds to the p50 in ms on one thread, with its share and its multiplications; a beginning's last
tensor is one more output to write, so shares are good to about a hundredth. Takes a student folder with exported/ and
student/.

    python tests/latency_figures.py data/students/oil [fp32|int8]
"""

import copy
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools import flatbuffer_utils

from models.litert_int8 import find_layers
from models.students import load_student

ROUNDS = 100


def beginning(model: Any, last: int) -> bytes:
    """The file up to and including operator number `last`."""
    cut = copy.deepcopy(model)
    graph = cut.subgraphs[0]
    graph.operators = graph.operators[: last + 1]
    graph.outputs = [graph.operators[last].outputs[0]]
    cut.signatureDefs = None
    return bytes(flatbuffer_utils.convert_object_to_bytearray(cut))


def opened(content: bytes) -> Interpreter:
    """An interpreter with a picture of noise in it."""
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    [entry] = interpreter.get_input_details()
    interpreter.set_tensor(entry["index"], np.random.default_rng(0).random(entry["shape"], dtype=np.float32))
    return interpreter


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
    interpreters = [opened(beginning(model, ends[block])) for block in blocks]
    times = np.empty((len(blocks), ROUNDS))
    for turn in range(-5, ROUNDS):
        for row, one in enumerate(interpreters):
            started = time.perf_counter()
            one.invoke()
            if turn >= 0:
                times[row, turn] = 1000 * (time.perf_counter() - started)
    until = np.median(times, axis=1)
    print(f"{precision}: {until[-1]:.2f} ms")
    for block, added in zip(blocks, np.diff(until, prepend=0.0), strict=True):
        print(f"{block or 'end':24} {added:6.3f} ms {added / until[-1]:6.1%} {work[block] / 1e6:7.1f} MMAC")


if __name__ == "__main__":
    main()
