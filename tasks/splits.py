"""Is anything on two sides of the split? A check that asks neither ingest nor curate, and fails the run.

Reads data/inputs and a student's pairs/ (kept.jsonl, *.inputs.npy), and works out anew from their pixels whether a kept
pair's input - or its clip, its group, its near-duplicate, a photo it is cut out of, or a face in it - is on another
side too, and whether the frozen panel is taught. Writes pairs/splits.json: what was compared, and how near it came.

Called by tasks/curate.py before it publishes pairs. How often it errs: docs/decisions/0020-coverage.md.
Command: python -m tasks.splits --student NAME
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.errors import UserError
from tasks import cutouts
from tasks.arrays import stream
from tasks.faces import load_embedding
from tasks.files import write_json
from tasks.ingest import INPUTS
from tasks.panel_inputs import check_not_taught, panel_digest, read_panel
from tasks.params import Params
from tasks.pictures import perceptual_hashes
from tasks.records import SPLITS, Verdict, read_records
from tasks.split_photos import Photo, clip_of, read_photos
from tasks.stage import STUDENTS, student_main
from tasks.stage_params import Splits
from tasks.student_params import Student

BLOCK = 1024  # hashes compared at a time
DIGITS = 4


def check_splits(folder: Path, settings: Splits) -> dict[str, Any]:
    """Compare the pairs in `folder` across the sides and write splits.json there.

    Raises a UserError that names two origins, what they share and what to do, at the first thing found.
    """
    kept = read_records(folder / "kept.jsonl", Verdict)
    panel = read_panel()
    remedy = "run dvc repro ingest, and then the student's stages again"
    check_not_taught(panel, {one.input: one.split for one in kept}, "splits", remedy)
    photos = read_photos(kept, settings.min_same_face < 1)
    check_keys(photos)
    check_hashes(photos, settings.near_duplicate_bits)
    found = {
        "photos": {side: sum(one.side == side for one in photos) for side in SPLITS},
        "faces": {side: sum(len(one.faces) for one in photos if one.side == side) for side in SPLITS},
        "panel": panel_digest(panel) if panel else None,
        "limits": settings.model_dump(exclude={"faces"}),
        "nearest": {
            "cutout": check_cutouts(photos, settings),
            "face": check_faces(photos, settings),
            "crop_bits": check_crops(folder, kept, {one.input.digest: one.input.origin for one in photos}, settings),
        },
    }
    write_json(folder / "splits.json", found)
    return found


KEYS: dict[str, Callable[[Photo], str]] = {
    "the same picture": lambda one: one.input.digest,
    "frames of one clip": lambda one: clip_of(one.input),
    "of one group": lambda one: one.input.group,
}


def check_keys(photos: Sequence[Photo]) -> None:
    """Refuse a picture, clip or group that is on two sides, and pairs that are on another side than their input."""
    for what, key in KEYS.items():
        first: dict[str, Photo] = {}
        for one in photos:
            other = first.setdefault(key(one), one) if key(one) else one
            if other.side != one.side:
                raise _leak(other, one, f"are {what}", "run dvc repro ingest and make the pairs again")
    for one in photos:
        if one.side != one.input.split:
            raise UserError(f"splits: {one.told} is on the {one.input.split} side in {INPUTS} by now: run dvc repro")


def check_hashes(photos: Sequence[Photo], bits: int) -> None:
    """Refuse near-duplicates on two sides, mirrored or not."""
    for one, other in _across(photos):
        found = _nearest_hash(one, other)
        if found and found[0] <= bits:
            distance, row, column = found
            raise _leak(
                one[row],
                other[column],
                f"are near-duplicates ({distance} bits apart, splits.near_duplicate_bits is {bits})",
                f"set ingest.near_duplicate_bits to {distance} or more, which keeps them together, or take one of them "
                "out of the sources",
            )


def _across(photos: Sequence[Photo]) -> Iterator[tuple[list[Photo], list[Photo]]]:
    """Every two sides that have photos."""
    sides = [[one for one in photos if one.side == side] for side in SPLITS]
    return ((one, other) for one, other in combinations(sides, 2) if one and other)


def _nearest_hash(one: Sequence[Photo], other: Sequence[Photo]) -> tuple[int, int, int] | None:
    first, second = (np.array([photo.hashes for photo in some], np.uint64).reshape(-1, 2) for some in (one, other))
    return nearest_bits(first, second)


def nearest_bits(first: npt.NDArray[np.uint64], second: npt.NDArray[np.uint64]) -> tuple[int, int, int] | None:
    """The fewest bits between hashes (N,2) and (M,2) of pictures and their mirror images, and their rows."""
    best: tuple[int, int, int] | None = None
    for at in range(0, len(first), BLOCK):
        some = first[at : at + BLOCK]
        # As tasks.pictures.groups does: plain to plain, and each mirrored.
        ways = ((some[:, 0], second[:, 0]), (some[:, 1], second[:, 0]), (some[:, 0], second[:, 1]))
        bits = np.minimum.reduce([np.bitwise_count(mine[:, None] ^ theirs[None]) for mine, theirs in ways])
        if bits.size and (best is None or bits.min() < best[0]):
            row, column = np.unravel_index(int(bits.argmin()), bits.shape)
            best = int(bits.min()), at + int(row), int(column)
    return best


def check_cutouts(photos: Sequence[Photo], settings: Splits) -> dict[str, Any] | None:
    """Refuse a photo that is cut out of one on another side; returns the best fit, None where none was compared."""
    if not settings.nearest:
        return None
    vectors = cutouts.vectors_of([one.thumbnail for one in photos])
    mirrored = cutouts.vectors_of([np.ascontiguousarray(one.thumbnail[:, ::-1]) for one in photos])
    best: dict[str, Any] | None = None
    for held_out, other in combinations(reversed(SPLITS), 2):
        rows, others = ([i for i, one in enumerate(photos) if one.side == side] for side in (held_out, other))
        if not rows or not others:
            continue
        proposed = cutouts.likest(vectors[rows], mirrored[rows], vectors[others], settings.nearest)
        for row, column in ((row, others[at]) for row, places in zip(rows, proposed, strict=True) for at in places):
            one, two = photos[row], photos[column]
            fit = cutouts.fit(one.thumbnail, two.thumbnail)
            if fit >= settings.min_fit:
                words = f"are one photo, cut differently (fit {fit:.3f}, splits.min_fit is {settings.min_fit:g})"
                raise _leak(one, two, words, "take one of them out of the sources")
            if best is None or fit > best["fit"]:
                best = {"fit": round(fit, DIGITS), "first": one.told, "second": two.told}
    return best


def check_faces(photos: Sequence[Photo], settings: Splits) -> dict[str, Any] | None:
    """Refuse a face that is on two sides; returns the two most alike, None where there are none to compare."""
    best: dict[str, Any] | None = None
    embedding = load_embedding(settings.faces)
    for first, second in _across(photos):
        owners = [[one for one in side for _ in one.faces] for side in (first, second)]
        if not all(owners):
            continue
        mine, theirs = (
            embedding(np.concatenate([one.faces for one in side if len(one.faces)])) for side in (first, second)
        )
        alike = mine @ theirs.T
        row, column = np.unravel_index(int(alike.argmax()), alike.shape)
        one, two, value = owners[0][row], owners[1][column], float(alike[row, column])
        if value >= settings.min_same_face:
            words = f"show one person (faces alike by {value:.3f}, splits.min_same_face is {settings.min_same_face:g})"
            remedy = "take one of them out of the sources, or raise the limit if these are two people"
            raise _leak(one, two, words, remedy)
        if best is None or value > best["alike"]:
            best = {"alike": round(value, DIGITS), "first": one.told, "second": two.told}
    return best


def check_crops(folder: Path, kept: Sequence[Verdict], origins: dict[str, str], settings: Splits) -> int | None:
    """Refuse crops on two sides that look the same; returns the fewest bits between any two."""
    hashes, rows = {}, {}
    for side in SPLITS:
        crops = stream(folder / f"{side}.inputs.npy")
        hashes[side] = np.array([perceptual_hashes(crop) for crop in crops], np.uint64).reshape(-1, 2)
        rows[side] = {one.index: one for one in kept if one.split == side}
    least: int | None = None
    for first, second in combinations(SPLITS, 2):
        found = nearest_bits(hashes[first], hashes[second])
        if found and found[0] <= settings.crop_bits:
            pairs = (rows[first][found[1]], rows[second][found[2]])
            told = [f"{origins.get(one.input, 'a drawn picture')} ({one.split} pair {one.pair[:12]})" for one in pairs]
            raise UserError(
                f"splits: {told[0]} and {told[1]} have crops that look the same ({found[0]} bits apart, "
                f"splits.crop_bits is {settings.crop_bits}): take one of the two out of the sources, or raise "
                "curate.near_duplicate_bits, which drops the held-out crop"
            )
        least = min((one for one in (least, found and found[0]) if one is not None), default=None)
    return least


def _leak(one: Photo, other: Photo, words: str, remedy: str) -> UserError:
    return UserError(f"splits: {one.told} and {other.told} {words}, and would be on two sides of the split: {remedy}")


def tell(found: dict[str, Any]) -> str:
    """What was compared, in a line."""
    photos = ", ".join(f"{count} {side}" for side, count in found["photos"].items())
    nearest = found["nearest"]
    parts = [f"fewest bits between crops {nearest['crop_bits']}"]
    parts += [f"best fit {nearest['cutout']['fit']:.2f}"] if nearest["cutout"] else []
    parts += [f"most alike faces {nearest['face']['alike']:.2f}"] if nearest["face"] else []
    return f"splits: nothing is on two sides of {photos} photos and frames ({'; '.join(parts)})"


def splits(params: Params, name: str, student: Student) -> None:
    """Check the pairs there are."""
    print(tell(check_splits(STUDENTS / name / "pairs", params.splits)))


if __name__ == "__main__":
    student_main("splits", splits)
