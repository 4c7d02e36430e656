"""What the inputs are like, in numbers and pictures, and what those the app sees have that training lacks.

Reads data/inputs, and the serving folder `drift.folder` where it is there. Writes data/coverage: coverage.json,
index.html, thumbnails/. Like drift it tells of a day, not of an output: the serving folder changes, and may be missing,
without a stage being stale. Of pictures that belong together one is counted. docs/decisions/0020-coverage.md

Command: python -m tasks.coverage [--folder FOLDER]
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.errors import UserError
from tasks.clusters import Clusters, embedded
from tasks.coverage_figures import (
    RECENT,
    TRAIN,
    Axis,
    Slice,
    collect_next,
    feature_axes,
    judge,
    seen,
    size_up,
    slices_of,
)
from tasks.coverage_page import write_page
from tasks.drift import compare_features
from tasks.face_figures import ALL_POSES, EYES, SIZES, TONES, FaceFigures, measure_faces
from tasks.features import FEATURES, Features, plain_features
from tasks.files import replacing_folder, write_json
from tasks.neighbours import Neighbours
from tasks.params import Params, load_params
from tasks.progress import progress
from tasks.recent import Sample, pictures_in, read_recent, read_training
from tasks.records import SPLITS
from tasks.stage import WORK, guarded, locked

COVERAGE = Path("data/coverage")
SCHEMA = "understudy-coverage/1"
SIZE = 256  # pixels at which pictures are looked at
USUAL = 0.95  # share of training pictures that have another as near as counts for near
LEAST = 5  # pictures of a side: fewer are no distribution
DIGITS = 4
NAMED = 16  # slices that a line names; the page has them all
FACE_COUNTS = ("none found", "one", "several")


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """Everything measured of the pictures of every side."""

    samples: dict[str, Sample]
    features: dict[str, Features]
    vectors: dict[str, npt.NDArray[np.float32]]
    faces: dict[str, list[FaceFigures | None]]
    clusters: Clusters


def read_sides(params: Params, folder: Path) -> tuple[dict[str, Sample], str]:
    """The pictures of every side, and in words why there are none of serving, or ""."""
    asked = params.coverage
    samples: dict[str, Sample] = {split: read_training(SIZE, asked.max_inputs, asked.seed, split) for split in SPLITS}
    if not folder.is_dir():
        return samples, f"there is no serving folder at {folder}: put photos that the app has seen there"
    if not pictures_in(folder):
        return samples, f"the serving folder {folder} holds no pictures; of histogram files `understudy drift` tells"
    recent = read_recent(folder, params.ingest, SIZE, asked.max_inputs, asked.seed)
    if not recent.squares:
        told = ", ".join(f"{count} {kind}" for kind, count in recent.set_aside.items())
        return samples, f"no picture in the serving folder {folder} can be used ({told})"
    return samples | {RECENT: recent}, ""


def look(samples: dict[str, Sample], seed: int) -> Looked:
    """Measure every picture."""
    features, vectors = {}, {}
    faces: dict[str, list[FaceFigures | None]] = {}
    with progress("coverage", sum(len(one.squares) for one in samples.values()), "pictures") as advance:
        for side, sample in samples.items():
            vectors[side] = embedded(np.stack(sample.squares))
            features[side] = plain_features(sample.squares)
            faces[side] = []
            for square in sample.squares:
                faces[side].append(measure_faces(square))
                advance(1)
    clusters = Clusters(np.concatenate(list(vectors.values())), seed)
    return Looked(samples=samples, features=features, vectors=vectors, faces=faces, clusters=clusters)


def axes_of(looked: Looked) -> list[Axis]:
    """Every way the pictures are taken apart: clusters, plain features, and faces where any is found."""
    labels = {side: looked.clusters.distances(vectors).argmin(axis=1) for side, vectors in looked.vectors.items()}
    names = tuple(f"cluster {number + 1}" for number in range(len(looked.clusters)))
    axes = [Axis(name="cluster", slices=names, labels=labels), *feature_axes(looked.features)]
    if not any(one for faces in looked.faces.values() for one in faces):
        return axes

    def axis(name: str, slices: Sequence[str], of: Any) -> Axis:
        found = {
            side: np.array([-1 if of(one) not in slices else slices.index(of(one)) for one in faces], np.int64)
            for side, faces in looked.faces.items()
        }
        return Axis(name=name, slices=tuple(slices), labels=found)

    return [
        *axes,
        axis("faces", FACE_COUNTS, lambda one: FACE_COUNTS[min(one.count, 2) if one else 0]),
        axis("face size", tuple(SIZES), lambda one: one and one.size),
        axis("face pose", ALL_POSES, lambda one: one and one.pose),
        axis("eyes", EYES, lambda one: one and one.eyes),
        axis("skin tone", tuple(TONES), lambda one: one and one.tone),
    ]


def examples(axes: Sequence[Axis], looked: Looked, count: int) -> dict[tuple[str, str], list[tuple[str, int]]]:
    """Up to `count` pictures of each side, as (side, row), of each slice (axis, name): a cluster's most typical."""
    found: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for axis in axes:
        for index, name in enumerate(axis.slices):
            for side, labels in axis.labels.items():
                rows = np.flatnonzero(labels == index)
                if axis.name == "cluster":
                    rows = rows[
                        np.argsort(looked.clusters.distances(looked.vectors[side][rows])[:, index], kind="stable")
                    ]
                found.setdefault((axis.name, name), []).extend((side, int(row)) for row in rows[:count])
    return found


def against_training(looked: Looked, params: Params) -> dict[str, Any]:
    """Serving's pictures and training's as two samples; what cannot be told is None and said in `told`."""
    recent, training = looked.features[RECENT], looked.features[TRAIN]
    n, m = (len(looked.samples[side].squares) for side in (RECENT, TRAIN))
    if min(n, m) < LEAST:
        return {"told": f"{n} serving and {m} training pictures: too few to compare, {LEAST} of each are needed"}
    plain = {name: np.concatenate([recent[name], training[name]]) for name in recent}
    found = compare_features(plain, None, n, params.drift)
    near = Neighbours(looked.vectors[TRAIN])
    limit = float(np.quantile(near.of_each_other(1)[0], USUAL))
    far = float((near.nearest(looked.vectors[RECENT], 1)[0] > limit).mean())
    return {
        "distance": round(found.distance, DIGITS),
        "p_value": round(found.p_value, DIGITS),
        "features": found.features,
        "far_share": round(far, DIGITS),
        "told": f"distance {found.distance:.2f} (0 alike, 1 no overlap), p = {found.p_value:.3f}; {far:.0%} of "
        f"serving's pictures are farther from any training picture than {USUAL:.0%} of training's own are from another",
    }


def describe(params: Params, looked: Looked, axes: Sequence[Axis], missing: str) -> dict[str, Any]:
    """coverage.json."""
    slices = [one for axis in axes for one in slices_of(axis)]
    limits = params.coverage
    slices = size_up(slices, limits.min_slice) if missing else judge(slices, limits.min_slice, limits.min_ratio)
    found = {side: sum(one is not None for one in faces) for side, faces in looked.faces.items()}
    return {
        "schema": SCHEMA,
        "pictures": {
            side: {
                "looked_at": len(one.squares),
                "usable": one.usable,
                "set_aside": one.set_aside,
                "digest": one.digest,
            }
            for side, one in looked.samples.items()
        },
        "serving": missing,
        "limits": limits.model_dump(),
        "silhouette": round(looked.clusters.score, DIGITS),
        "faces": found,
        "slices": [one.to_json() for one in slices],
        "against_training": None if missing else against_training(looked, params),
        "collect_next": [[one.axis, one.name] for one in collect_next(slices)],
        "notes": notes(looked, slices, missing, limits.min_slice),
    }


def notes(looked: Looked, slices: Sequence[Slice], missing: str, min_slice: int) -> list[str]:
    """What could not be told, in words."""
    told = [f"Nothing is compared: {missing}."] if missing else []
    pictures = sum(len(one.squares) for one in looked.samples.values())
    if not any(one for faces in looked.faces.values() for one in faces):
        told.append(
            f"No face is found in any of {pictures} pictures, so size, pose, eyes and skin tone are not told. "
            "That is as it should be where the effect is not about faces."
        )
    small = sorted((one for one in slices if one.verdict == "too small"), key=lambda one: one.axis in FEATURES)
    if small:
        names = ", ".join(f"{_words(one)} ({seen(one)})" for one in small[:NAMED])
        more = f" and {len(small) - NAMED} more" if len(small) > NAMED else ""
        told.append(f"Slices of fewer than {min_slice} pictures are named, not judged: {names}{more}.")
    if len(looked.clusters) == 1:
        told.append(f"{pictures} pictures are too few, or too much alike, to be put in clusters.")
    return told


def _words(one: Slice) -> str:
    return one.name if one.axis == "cluster" else f"{one.axis} {one.name}"


def coverage(params: Params, folder: Path) -> dict[str, Any]:
    """Write data/coverage; UserError where data/inputs is missing or damaged."""
    samples, missing = read_sides(params, folder)
    if not samples[TRAIN].squares:
        raise UserError("data/inputs holds no training pictures: run dvc repro ingest")
    looked = look({side: one for side, one in samples.items() if one.squares}, params.coverage.seed)
    axes = axes_of(looked)
    told = describe(params, looked, axes, missing)
    with replacing_folder(COVERAGE) as made:
        write_json(made / "coverage.json", told)
        write_page(made, told, examples(axes, looked, 6), looked.samples)
    return told


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m tasks.coverage")
    parser.add_argument("--folder", type=Path, help="photos that the app has seen; drift.folder if left out")
    asked = parser.parse_args()

    def work() -> None:
        params = load_params()
        with locked(WORK / "coverage.lock"):
            told = coverage(params, asked.folder or Path(params.drift.folder))
        for note in told["notes"]:
            print(f"coverage: {note}")
        if told["against_training"]:
            print(f"coverage: {told['against_training']['told']}")
        print(f"coverage: {len(told['collect_next'])} slices to collect; {COVERAGE}/index.html")

    guarded("coverage", work)


if __name__ == "__main__":
    main()
