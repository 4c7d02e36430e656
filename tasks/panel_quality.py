"""How a student does on the frozen panel, apart from the rest of the test side: the `panel` of quality.json.

Students of different teacher versions are measured on the same crops of it where `crops` is the same: crops hang on the
input and params.yaml, not on the teacher, but a pair that curation drops for one teacher is missing from its panel.
Called by tasks/evaluate.py.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tasks.files import sha256_json
from tasks.intervals import explained_interval
from tasks.panel_inputs import PanelInput, panel_digest
from tasks.pictures import pixel_digest
from tasks.quality import TORCH, Columns, Work, pooled, rounded
from tasks.slices import by_photo


def panel_quality(
    panel: Sequence[PanelInput], work: Work, columns: Mapping[str, Columns], phone: str
) -> dict[str, Any] | None:
    """Figures of the torch student and the phone's file on the panel's crops; None where no panel is frozen.

    `measured` is how many of its inputs have a test pair; the figures are None where none has.
    """
    if not panel:
        return None
    frozen = {one.digest: one.origin for one in panel}
    rows = [row for row, verdict in enumerate(work.verdicts) if verdict.input in frozen]
    measured = {work.verdicts[row].input for row in rows}
    told = {
        "digest": panel_digest(panel),
        "inputs": len(panel),
        "measured": len(measured),
        "missing": sorted(origin for digest, origin in frozen.items() if digest not in measured),
        "test_samples": len(rows),
        "crops": sha256_json(sorted(pixel_digest(np.asarray(work.inputs[row])) for row in rows)),
        "file": phone,
    }
    if not rows:
        return told | {"student": None, "phone": None, "explained_effect_interval": None, "photos": []}
    parts = {name: {key: values[rows] for key, values in columns[name].items()} for name in (TORCH, phone)}
    photos = by_photo(parts[phone], [work.photos[row] for row in rows])
    interval = explained_interval([one.error for one in photos], [one.change for one in photos])
    return told | {
        "student": rounded(pooled(parts[TORCH])),
        "phone": rounded(pooled(parts[phone])),
        "explained_effect_interval": interval and interval.to_json(),  # of the phone's file, over photos
        "photos": [one.to_json() for one in photos],
    }
