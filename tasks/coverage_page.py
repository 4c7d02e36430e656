"""The page of tasks/coverage.py: index.html and the thumbnails it shows; opens without a network."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tasks import templates
from tasks.coverage_figures import RECENT, TRAIN, Slice
from tasks.files import write_bytes, write_text
from tasks.pictures import Pixels
from tasks.recent import Sample

TEMPLATE = Path(__file__).with_name("coverage.html")
SIDE = 128  # pixels of a thumbnail
SIDES = {TRAIN: "training", "val": "validation", "test": "test", RECENT: "serving"}
AXES = {
    "cluster": "Clusters of like pictures",
    "luma": "Brightness",
    "contrast": "Contrast",
    "chroma": "Colour",
    "warmth": "Warmth of the colours",
    "detail": "Sharpness: fine detail, noise, blur",
    "shadows": "Share that is black",
    "highlights": "Share that is blown out",
    "faces": "Faces",
    "face size": "Size of the largest face, in sides of the picture",
    "face pose": "Pose of the largest face, as the viewer sees it",
    "eyes": "Eyes of the largest face, if it is seen from the front",
    "skin tone": "Skin tone, as photographed",
}
Examples = Mapping[tuple[str, str], Sequence[tuple[str, int]]]


def thumbnail(picture: Pixels) -> bytes:
    """(S,S,3) as a small JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def write_page(folder: Path, told: Mapping[str, Any], examples: Examples, samples: Mapping[str, Sample]) -> None:
    """Write index.html and thumbnails/ into `folder`."""
    slices = {(one["axis"], one["name"]): Slice.from_json(one) for one in told["slices"]}
    shown: set[tuple[str, int]] = set()

    def pictures(key: tuple[str, str], sides: Sequence[str], count: int) -> list[dict[str, str]]:
        chosen = [one for side in sides for one in examples[key] if one[0] == side][:count]
        shown.update(chosen)
        return [
            {"src": f"thumbnails/{side}-{row}.jpg", "alt": f"{SIDES[side]}: {samples[side].origins[row]}"}
            for side, row in chosen
        ]

    page = render(
        told,
        [{"slice": slices[tuple(key)], "pictures": pictures(tuple(key), [RECENT], 6)} for key in told["collect_next"]],
        _axes(slices, pictures),
        [side for side in SIDES if side in samples],
    )
    (folder / "thumbnails").mkdir()
    for side, row in sorted(shown):
        write_bytes(folder / "thumbnails" / f"{side}-{row}.jpg", thumbnail(np.asarray(samples[side].squares[row])))
    write_text(folder / "index.html", page)


def _axes(slices: Mapping[tuple[str, str], Slice], pictures: Any) -> list[dict[str, Any]]:
    """Each axis with its rows: slice, examples, and the length of its bars over the axis's longest."""
    found: dict[str, dict[str, Any]] = {}
    for key, one in slices.items():
        axis = found.setdefault(one.axis, {"name": one.axis, "title": AXES[one.axis], "rows": []})
        axis["rows"].append({"slice": one, "pictures": pictures(key, list(SIDES), 6 if one.axis == "cluster" else 2)})
    for axis in found.values():
        axis["longest"] = max((share for row in axis["rows"] for share in row["slice"].shares.values()), default=0) or 1
    return list(found.values())


def render(
    told: Mapping[str, Any],
    wanted: Sequence[Mapping[str, Any]],
    axes: Sequence[Mapping[str, Any]],
    sides: Sequence[str],
) -> str:
    """index.html as text."""
    return templates.render(
        TEMPLATE, told=told, wanted=wanted, axes=axes, sides={side: SIDES[side] for side in sides}, titles=AXES
    )
