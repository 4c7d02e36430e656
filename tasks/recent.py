"""What drift compares: squares of recent pictures and of training inputs, or the histogram files of recent ones.

Reads a folder of photos, videos and *.json histogram files (tasks/features.py), and data/inputs. Pictures are opened,
scaled and refused exactly as ingest would: what drifts must be what a retrain can learn from. Of pictures that
belong together (frames of a clip, near-duplicates) one is drawn, because the others are no further evidence.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from models.errors import UserError
from tasks import pictures, videos
from tasks.features import centre_square, check_histograms, merge_histograms
from tasks.files import sha256_json
from tasks.ingest import INPUTS, Found, drop_duplicates, read_source
from tasks.pictures import Pixels, Unfit, count_kinds, read_input
from tasks.records import Input, SetAside, SplitName, read_records
from tasks.sources import folder_sources
from tasks.stage_params import Ingest

COUNTS = ".json"
MAX_COUNTS_BYTES = 1 << 20  # a histogram file has a few kilobytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Independent pictures, each cut to the student's square."""

    squares: list[Pixels]
    origins: list[str]  # of each square
    digest: str  # of all usable pictures, the drawn and the others
    usable: int  # pictures and frames, before one of each group was drawn
    set_aside: dict[str, int]  # files that could not be used, by kind of reason


def pictures_in(folder: Path) -> bool:
    """Whether there is any file in `folder` that is a picture or video by its name."""
    known = pictures.SUFFIXES | videos.SUFFIXES
    return any(source.path.suffix.lower() in known for source in folder_sources(folder))


def draw(groups: Mapping[str, str], at_most: int, seed: int) -> list[str]:
    """One key of each group, at most `at_most` of them: {key: group} -> keys, the same for a seed in any order."""
    members: dict[str, list[str]] = {}
    for key, group in sorted(groups.items()):
        members.setdefault(group, []).append(key)
    rng = np.random.default_rng(seed)
    one_each = [keys[rng.integers(len(keys))] for _, keys in sorted(members.items())]
    chosen = rng.permutation(len(one_each))[:at_most]
    return [one_each[index] for index in sorted(chosen)]


def read_recent(folder: Path, ingest: Ingest, size: int, at_most: int, seed: int) -> Sample:
    """The recent pictures below `folder`; what cannot be used is counted, never fatal."""
    found: list[Found] = []
    set_aside: list[SetAside] = []
    with TemporaryDirectory(prefix="understudy-drift-") as name:
        images = Path(name)
        for source in folder_sources(folder):
            if source.path.suffix.lower() != COUNTS:
                for result in read_source(source, images, ingest):
                    (found if isinstance(result, Found) else set_aside).append(result)  # type: ignore[arg-type]
        kept, duplicates = drop_duplicates(found)
        grouped = pictures.groups([one.key for one in kept], [one.hashes for one in kept], ingest.near_duplicate_bits)
        groups = {one.digest: group for one, group in zip(kept, grouped, strict=True)}
        drawn = draw(groups, at_most, seed)
        squares = [centre_square(read_input(images, digest), size) for digest in drawn]
    origins = {one.digest: one.origin for one in kept}
    return Sample(
        squares=squares,
        origins=[origins[digest] for digest in drawn],
        digest=sha256_json(sorted(groups)),
        usable=len(groups),
        set_aside=count_kinds([one.reason for one in set_aside + duplicates]),
    )


def read_training(size: int, at_most: int, seed: int, split: SplitName = "train") -> Sample:
    """The training split of data/inputs, or another; a UserError where it is missing or damaged."""
    inputs = {one.digest: one for one in read_records(INPUTS / "inputs.jsonl", Input) if one.split == split}
    groups = {digest: one.group for digest, one in inputs.items()}
    drawn = draw(groups, at_most, seed)
    return Sample(
        squares=[centre_square(read_input(INPUTS / "images", digest), size) for digest in drawn],
        origins=[inputs[digest].origin for digest in drawn],
        digest=sha256_json(sorted(groups)),
        usable=len(groups),
        set_aside={},
    )


def read_counts(path: Path, size: int) -> dict[str, Any]:
    """One histogram file, checked; raises Unfit."""
    try:
        if path.stat().st_size > MAX_COUNTS_BYTES:
            raise Unfit("huge", f"more than {MAX_COUNTS_BYTES} bytes")
        return check_histograms(json.loads(path.read_bytes()), size)
    except OSError as error:
        raise Unfit("unreadable", error.strerror or "cannot be read") from None
    except (ValueError, RecursionError) as error:
        raise Unfit("broken", " ".join(str(error).split())) from None


def read_histograms(folder: Path, size: int) -> tuple[dict[str, Any], str, dict[str, int]]:
    """All histogram files below `folder` as one, their digest, and how many could not be used, by kind of reason.

    A file that is there twice counts once.
    """
    parts: dict[str, dict[str, Any]] = {}
    reasons: list[str] = []
    for source in folder_sources(folder):
        if source.path.suffix.lower() != COUNTS:
            continue
        try:
            part = read_counts(source.path, size)
            key = sha256_json(part)
            if key in parts:
                raise Unfit("duplicate", "the same counts")
            parts[key] = part
        except Unfit as unfit:
            reasons.append(str(unfit))
    return merge_histograms(list(parts.values()), size), sha256_json(sorted(parts)), count_kinds(reasons)


def need_folder(folder: Path) -> Path:
    """The folder, or one line that says where it should be."""
    if not folder.is_dir():
        raise UserError(f"no folder of recent inputs at {folder}: make it, or change drift.folder in params.yaml")
    return folder
