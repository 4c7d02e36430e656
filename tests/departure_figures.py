"""How surely a damaged layer is found: one weight of each convolution of a student's float files is changed in turn.

Prints, for each runtime, how many are named rightly, and those that are not. A student folder with exported/, student/
and pairs/; about a minute a runtime.

    python tests/departure_figures.py data/students/oil
"""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from test_parity import CONVOLUTIONS, SUFFIXES, damaged

from models import departure
from models.departure import first_departure, layers_of, told
from models.students import load_student
from models.torch_setup import prepare_torch


def main() -> None:
    """The command above."""
    folder = Path(sys.argv[1])
    prepare_torch(1)
    student = load_student(folder / "student")
    pictures = np.load(folder / "pairs" / "val.inputs.npy", mmap_mode="r")
    picture = pictures[:1].astype(np.float32) / 255
    traces: dict[str, Any] = {}
    make = departure.trace

    def once(form: Any, example: Any) -> Any:
        """A student is traced once for all damages; its steps do not hang on the file."""
        name = type(form).__name__
        traces[name] = traces.get(name) or make(form, example)
        return traces[name]

    departure.trace = once
    for runtime, suffix in SUFFIXES.items():
        content = (folder / "exported" / f"student.fp32.{suffix}").read_bytes()
        operations, layers = layers_of(student, content, runtime, picture)
        places = [place for place, one in enumerate(operations) if one.op in CONVOLUTIONS]
        wrong, started = [], time.perf_counter()
        for place in places:
            right = told(layers.first_step(operations[place]), "")
            found = first_departure(student, damaged(content, runtime, place), runtime, picture)
            if found != right:
                wrong.append(f"{right} -> {found or 'nothing'}")
        seconds = (time.perf_counter() - started) / len(places)
        print(
            f"{runtime}: {len(places) - len(wrong)} of {len(places)} named rightly, {seconds:.1f} s each",
            *wrong,
            sep="\n  ",
        )


if __name__ == "__main__":
    main()
