"""Stage ingest: collects photos and video frames, groups what looks alike and splits by group.

Reads the folder of params.ingest.folder, the photographs of params.ingest.libraries and the frozen panel in
data/panel.json (tasks/panel_inputs.py).
Writes data/inputs: images/DIGEST.png, inputs.jsonl (Input), set_aside.jsonl (SetAside), summary.json.
A file that cannot be used is set aside with the reason and never stops the others.

The side of a group is a pure function of the seed and the group's key, the smallest sha256 among the
files in it. Adding files therefore moves no input that is there already - with one exception: a new file
that is a (near-)duplicate of a group joins it, and may give it a new key, or join two groups into one. A group
that an input of the frozen panel belongs to is on the test side, whatever its key and the seed say.

Command: python -m tasks.ingest
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.errors import UserError
from tasks import pictures, videos
from tasks.files import replacing_folder, sha256_bytes, sha256_file, write_json
from tasks.panel_inputs import PanelInput, check_present, read_panel
from tasks.params import Params
from tasks.pictures import Pixels, Unfit
from tasks.progress import progress
from tasks.records import SPLITS, Input, SetAside, SplitName, write_records
from tasks.sources import Source, folder_sources, library_sources
from tasks.stage import main
from tasks.stage_params import Ingest, Split

INPUTS = Path("data/inputs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A usable picture before it has a group."""

    digest: str
    origin: str
    licence: str
    width: int
    height: int
    clip: str
    key: str  # sha256 of the file it comes from
    hashes: tuple[int, int]


def split_of(key: str, seed: int, shares: Split) -> SplitName:
    """The side a group is on: a pure function of its key and the seed."""
    draw = int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8], "big") / 2**64
    if draw < shares.test:
        return "test"
    return "val" if draw < shares.test + shares.val else "train"


def find_sources(ingest: Ingest) -> list[Source]:
    """Every file there is, of the libraries and of the folder; UserError where there is none."""
    sources = [source for name in ingest.libraries for source in library_sources(name)]
    sources += folder_sources(Path(ingest.folder))
    if not sources:
        raise UserError(
            f"no inputs: put photos or videos into {ingest.folder} (ingest.folder), or name a library "
            "in ingest.libraries"
        )
    return sources


def _take(source: Source, origin: str, pixels: Pixels, key: str, clip: str, images: Path, ingest: Ingest) -> Found:
    """Scale, check and write one picture; raises Unfit."""
    scaled = pictures.scale_down(pixels, ingest.max_side)
    pictures.check_fit(scaled, ingest.min_side, ingest.min_chroma)
    digest = pictures.pixel_digest(scaled)
    if not (images / f"{digest}.png").exists():
        pictures.write_input(images, digest, scaled)
    height, width = scaled.shape[:2]
    hashes = pictures.perceptual_hashes(scaled)
    return Found(
        digest=digest,
        origin=origin,
        licence=source.licence,
        width=width,
        height=height,
        clip=clip,
        key=key,
        hashes=hashes,
    )


def _read_video(source: Source, images: Path, ingest: Ingest) -> Iterator[Found | SetAside]:
    key = sha256_file(source.path)
    for seconds, pixels in videos.sample_frames(source.path, ingest.frames_per_second, ingest.max_frames):
        origin = f"{source.origin}#{seconds:.3f}"
        try:
            yield _take(source, origin, pixels, key, key, images, ingest)
        except Unfit as unfit:
            yield SetAside(origin=origin, reason=str(unfit))


def read_source(source: Source, images: Path, ingest: Ingest) -> Iterator[Found | SetAside]:
    """What one file gives: pictures, each written to images/DIGEST.png, and reasons where it gives none."""
    suffix = source.path.suffix.lower()
    try:
        if not source.path.is_file():
            raise Unfit("unreadable", "not a file, or a link to nothing")
        if not os.access(source.path, os.R_OK):
            raise Unfit("unreadable", "no permission to read it")
        if suffix in videos.SUFFIXES:
            yield from _read_video(source, images, ingest)
        elif suffix in pictures.SUFFIXES:
            data = source.path.read_bytes()
            yield _take(source, source.origin, pictures.decode_picture(data), sha256_bytes(data), "", images, ingest)
        else:
            known = ", ".join(sorted(name[1:] for name in pictures.SUFFIXES | videos.SUFFIXES))
            raise Unfit("unknown", f"neither picture nor video by its name ({suffix or 'no suffix'}); known: {known}")
    except Unfit as unfit:
        yield SetAside(origin=source.origin, reason=str(unfit))


def drop_duplicates(found: list[Found]) -> tuple[list[Found], list[SetAside]]:
    """The first of each digest, and the others with the reason."""
    first: dict[str, Found] = {}
    duplicates = []
    for one in found:
        kept = first.setdefault(one.digest, one)
        if kept is not one:
            duplicates.append(SetAside(origin=one.origin, reason=f"duplicate: same pixels as {kept.origin}"))
    return list(first.values()), duplicates


def assign(found: list[Found], ingest: Ingest, panel: Sequence[PanelInput] = ()) -> list[Input]:
    """Give every picture its group and its side; sorted by origin.

    What is of one group with a panel input - of its file, of its clip, or near it - is on the test side.
    """
    keys = [one.key for one in found] + [one.file for one in panel]
    hashes = [one.hashes for one in found] + [one.hash_bits for one in panel]
    names = pictures.groups(keys, hashes, ingest.near_duplicate_bits)
    frozen = set(names[len(found) :])
    inputs = [
        Input(
            digest=one.digest,
            origin=one.origin,
            licence=one.licence,
            width=one.width,
            height=one.height,
            clip=one.clip,
            group=group,
            split="test" if group in frozen else split_of(group, ingest.seed, ingest.split),
        )
        for one, group in zip(found, names[: len(found)], strict=True)
    ]
    return sorted(inputs, key=lambda one: one.origin)


def _check_splits(inputs: list[Input], set_aside: list[SetAside], ingest: Ingest) -> None:
    if not inputs:
        reasons = pictures.count_kinds([one.reason for one in set_aside])
        told = ", ".join(f"{count} {kind}" for kind, count in reasons.items())
        raise UserError(f"no usable inputs in {ingest.folder}: all {len(set_aside)} files were set aside ({told})")
    for split in SPLITS:
        if not any(one.split == split for one in inputs):
            groups = len({one.group for one in inputs})
            raise UserError(
                f"no input of {len(inputs)} in {groups} groups fell to {split}: add photos to {ingest.folder}, "
                "or change ingest.seed or ingest.split"
            )


def _summary(inputs: list[Input], set_aside: list[SetAside]) -> dict[str, dict[str, int]]:
    return {
        "inputs": {split: sum(one.split == split for one in inputs) for split in SPLITS},
        "groups": {split: len({one.group for one in inputs if one.split == split}) for split in SPLITS},
        "set_aside": pictures.count_kinds([one.reason for one in set_aside]),
    }


def _read_all(sources: list[Source], images: Path, section: Ingest) -> tuple[list[Found], list[SetAside]]:
    found: list[Found] = []
    set_aside: list[SetAside] = []
    with progress("ingest", len(sources), "files") as advance:
        for source in sources:
            for result in read_source(source, images, section):
                if isinstance(result, Found):
                    found.append(result)
                else:
                    set_aside.append(result)
            advance(1)
    return found, set_aside


def ingest(params: Params) -> None:
    """Write data/inputs; raises UserError where an empty split, or not the whole panel, would come out."""
    section, panel = params.ingest, read_panel()
    sources = find_sources(section)
    with replacing_folder(INPUTS) as folder:
        images = folder / "images"
        images.mkdir()
        found, set_aside = _read_all(sources, images, section)
        kept, duplicates = drop_duplicates(found)
        check_present(panel, {one.digest for one in kept}, {one.key for one in found})
        # Groups are made of all that was found: two clips that share a frame belong together.
        origins = {one.origin for one in kept}
        inputs = [one for one in assign(found, section, panel) if one.origin in origins]
        set_aside = sorted(set_aside + duplicates, key=lambda one: one.origin)
        _check_splits(inputs, set_aside, section)
        write_records(folder / "inputs.jsonl", inputs)
        write_records(folder / "set_aside.jsonl", set_aside)
        summary = _summary(inputs, set_aside)
        write_json(folder / "summary.json", summary)
    _tell(summary)


def _tell(summary: dict[str, dict[str, int]]) -> None:
    def words(counts: dict[str, int]) -> str:
        return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"

    print(
        f"ingest: inputs {words(summary['inputs'])}; groups {words(summary['groups'])}; "
        f"set aside {words(summary['set_aside'])} (reasons in {INPUTS / 'set_aside.jsonl'})"
    )


if __name__ == "__main__":
    main("ingest", ingest)
