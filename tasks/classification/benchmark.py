"""benchmark, of classifiers: every file on every target, as tasks/benchmark.py does it.

Of pictures a board's or a browser's logits are compared with this machine's too; of texts there is latency alone, at
the longest row, and none in a browser.
"""

import numpy as np

from models.spread import spread
from tasks.benchmark import PARITY_PICTURES, job_of, measured, publish
from tasks.classification.examples import open_examples
from tasks.classification.params import Classifier
from tasks.params import Params
from tasks.stage import STUDENTS
from tasks.target import Images


def benchmark(params: Params, name: str, block: Classifier) -> None:
    """Make data/students/NAME/benchmark."""
    pictures = validation_pictures(block.dataset) if block.takes == "images" else []
    job = job_of(STUDENTS / name, params.benchmark, pictures, frames=0)
    publish(name, measured(job, params.benchmark.targets))


def validation_pictures(dataset: str) -> list[Images]:
    """A few validation pictures, evenly over their order, each (1,S,S,3) in [0,1]."""
    inputs = open_examples(dataset, ("val",)).splits["val"].inputs
    rows = spread(len(inputs), PARITY_PICTURES)
    return [np.asarray(inputs[row])[None].astype(np.float32) / np.float32(255) for row in rows]
