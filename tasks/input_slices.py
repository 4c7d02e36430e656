"""The test inputs in slices that hang on the inputs alone, besides the halves: the frozen panel, and clusters.

The same for every student on the same pairs, so candidate and champion are judged on the same. Clusters
(tasks/clusters.py) have no name but a number: `typical` says which inputs show what one is. Made by tasks/evaluate.py,
used by tasks/phone.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.spread import spread
from tasks.charts import png
from tasks.panel_inputs import PanelInput
from tasks.records import Verdict

Mask = npt.NDArray[np.bool_]
Pictures = npt.NDArray[np.uint8]

PANEL_SLICE = "panel"
SEED = 0
MOST = 2000  # training inputs, evenly, that say which clusters there are
TYPICAL = 4  # inputs that show what a cluster is
SHOWN_SIDE = 96  # pixels of each


@dataclass(frozen=True, slots=True)
class InputSlices:
    """Which test rows are in each slice, (N,) by name, and the rows that are typical of each cluster."""

    masks: Mapping[str, Mask]
    typical: Mapping[str, list[int]]


NO_SLICES = InputSlices({}, {})


def input_slices(
    inputs: Pictures, verdicts: Sequence[Verdict], panel: Sequence[PanelInput], taught: Pictures
) -> InputSlices:
    """The slices of the test rows: inputs (N,S,S,3), perhaps memory-mapped, and their verdicts (N,).

    Clusters are those of the training inputs `taught` (M,S,S,3), of which there are more; a test row is in the nearest.
    """
    from tasks.clusters import Clusters, embedded  # torch, which the command line does without

    masks: dict[str, Mask] = {}
    frozen = {one.digest for one in panel}
    of_panel = np.array([verdict.input in frozen for verdict in verdicts], bool)
    if of_panel.any():
        masks[PANEL_SLICE] = of_panel
    clusters = Clusters(embedded(np.asarray(taught[spread(len(taught), MOST)])), SEED)
    typical: dict[str, list[int]] = {}
    if len(clusters) > 1:
        distances = clusters.distances(embedded(inputs))
        nearest = distances.argmin(axis=1)
        for number in range(len(clusters)):
            rows = np.flatnonzero(nearest == number)
            if len(rows):
                name = f"cluster {number + 1}"
                masks[name] = nearest == number
                typical[name] = _apart(rows[np.argsort(distances[rows, number], kind="stable")], verdicts)
    return InputSlices(masks, typical)


def _apart(rows: npt.NDArray[np.intp], verdicts: Sequence[Verdict]) -> list[int]:
    """The first TYPICAL rows of different inputs; crops of one photo show one thing."""
    first: dict[str, int] = {}
    for row in rows.tolist():
        first.setdefault(verdicts[row].input or str(row), row)
    return list(first.values())[:TYPICAL]


def cluster_strips(inputs: Pictures, slices: InputSlices) -> dict[str, bytes]:
    """By cluster a PNG of its typical inputs side by side."""
    return {
        name: png(np.concatenate([_small(np.asarray(inputs[row])) for row in rows], axis=1))
        for name, rows in slices.typical.items()
    }


def _small(picture: Pictures) -> Pictures:
    return np.asarray(Image.fromarray(picture).resize((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.BOX))
