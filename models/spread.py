"""Which of many samples to look at where not all can be."""

import numpy as np
import numpy.typing as npt


def spread(count: int, samples: int) -> npt.NDArray[np.intp]:
    """At most `samples` row numbers of `count`, spread evenly from the first to the last."""
    return np.unique(np.linspace(0, count - 1, min(samples, count)).round().astype(np.intp))
