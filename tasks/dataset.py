"""Stage dataset: labelled examples from wherever they lie, each once, split so that no example is on two sides.

Reads the block of `datasets:` in params.yaml (tasks/dataset_params.py says which sources there are). Writes
data/datasets/NAME: of pictures SPLIT.inputs.npy (N,S,S,3) uint8, of texts SPLIT.texts.jsonl; SPLIT.labels.npy (N,)
int64, -1 where there is none; examples.jsonl (Example), set_aside.jsonl, dataset.json (what the set is, by digest).

An example is what it shows: equal pixels, or equal words, are one. Of two on one side one is kept; of two on two sides
the held-out one goes; where two say different labels, both go. The side of an example, where its source does not say
it, is a pure function of its digest and the seed.

Command: python -m tasks.dataset --name NAME
"""

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import UserError
from tasks.arrays import ArrayFile
from tasks.dataset_params import Dataset, Shares
from tasks.dataset_sources import read_source
from tasks.files import replacing_folder, sha256_file, sha256_json, write_json, write_jsonl
from tasks.ingest import split_of
from tasks.params import load_params
from tasks.pictures import pixel_digest
from tasks.progress import progress
from tasks.records import SPLITS, Record, SetAside, SplitName, write_records
from tasks.stage import guarded, locked, work_folder

DATASETS = Path("data/datasets")
SCHEMA = "understudy-dataset/1"
UNLABELLED = -1
DUPLICATE, LEAK, CONTRADICTION = "duplicate", "on two sides", "two labels"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example(Record):
    """One example: row `row` of its split's files."""

    digest: str  # sha256 of its pixels, or of its text
    split: SplitName
    row: int
    label: int  # of dataset.json's classes; UNLABELLED
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """An example before it has its place; its content waits in a scratch file."""

    digest: str
    origin: str
    label: str
    side: str
    at: int  # in the scratch array of pictures, or in the list of texts


def dataset(name: str, settings: Dataset) -> None:
    """Write data/datasets/NAME; UserError where nothing, or a class without a training example, is found."""
    with replacing_folder(DATASETS / name) as folder:
        seen, texts, aside = take_in(name, settings, folder / "scratch.npy")
        kept, dropped = sort_out(seen, settings)
        classes = name_classes(kept, settings)
        examples = place(kept, classes, settings.most)
        check_classes(examples, classes)
        aside += dropped
        write_contents(folder, examples, {one.digest: one for one in kept}, texts)
        write_records(folder / "examples.jsonl", examples)
        write_records(folder / "set_aside.jsonl", aside)
        record = describe(folder, examples, classes, texts is not None)
        write_json(
            folder / "dataset.json", record | {"dropped": dict(sorted(Counter(one.reason for one in dropped).items()))}
        )
    counts = ", ".join(f"{count} {split}" for split, count in record["counts"].items())
    print(
        f"dataset {name}: {counts}, {len(classes)} classes; {len(aside)} set aside ({DATASETS / name}/set_aside.jsonl)"
    )


def take_in(name: str, settings: Dataset, scratch: Path) -> tuple[list[Seen], list[str] | None, list[SetAside]]:
    """Every usable example, pictures put into `scratch`; the texts, None of a set of pictures; what was not usable."""
    seen: list[Seen] = []
    texts: list[str] = []
    aside: list[SetAside] = []
    pictures: ArrayFile | None = None
    with ExitStack() as opened, progress(f"dataset {name}", 0, "examples") as advance:
        for found in read_source(settings):
            advance(1)
            if found.reason:
                aside.append(SetAside(origin=found.origin, reason=found.reason))
                continue
            if found.picture is not None:
                pictures = pictures or opened.enter_context(closing(ArrayFile(scratch, found.picture.shape, np.uint8)))
                at, digest = pictures.append(found.picture), pixel_digest(found.picture)
            else:
                assert found.text is not None
                at, digest = len(texts), text_digest(found.text)
                texts.append(found.text)
            seen.append(Seen(digest=digest, origin=found.origin, label=found.label, side=found.side, at=at))
    if not seen:
        told = f": {aside[0].origin}: {aside[0].reason}" if aside else ""
        raise UserError(f"datasets.{name} holds no example that can be used{told}")
    return seen, None if pictures else texts, aside


def text_digest(text: str) -> str:
    """The digest of a text; case and blanks make no other example."""
    return sha256_json(" ".join(text.casefold().split()))


def sort_out(seen: Sequence[Seen], settings: Dataset) -> tuple[list[Seen], list[SetAside]]:
    """Each example once, on one side, with one label; and those that went, with the reason."""
    alike: dict[str, list[Seen]] = defaultdict(list)
    for one in seen:
        alike[one.digest].append(one)
    kept, dropped = [], []
    for digest in sorted(alike):
        twins = sorted(alike[digest], key=lambda one: (_order(one.side), one.origin))
        labels = {one.label for one in twins if one.label}
        if len(labels) > 1:
            dropped += [SetAside(origin=one.origin, reason=CONTRADICTION) for one in twins]
            continue
        first, *rest = twins
        kept.append(first)
        dropped += [SetAside(origin=one.origin, reason=DUPLICATE if one.side == first.side else LEAK) for one in rest]
    return with_sides(kept, settings.split, settings.seed), dropped


def _order(side: str) -> int:
    """Training first: of two on two sides the held-out one goes."""
    return (*SPLITS, "").index(side)


def with_sides(kept: Iterable[Seen], shares: Shares, seed: int) -> list[Seen]:
    """The same with a side each: the source's, or by shares; a source without one side has it taken from training."""
    found = list(kept)
    said = {one.side for one in found}
    placed = []
    for one in found:
        drawn = split_of(one.digest, seed, shares)  # type: ignore[arg-type]  # it has the same two shares
        lacking = one.side == "train" and drawn not in said
        placed.append(replace(one, side=drawn) if not one.side or lacking else one)
    return placed


def name_classes(kept: Sequence[Seen], settings: Dataset) -> list[str]:
    """The classes in the order of the logits; UserError for a label that is none of those that params.yaml names."""
    found = sorted({one.label for one in kept if one.label}, key=_by_number)
    if not settings.classes:
        if len(found) < 2:
            raise UserError(f"datasets: {len(found)} classes were found ({', '.join(found) or 'none'}); it takes two")
        return found
    unknown = [one for one in kept if one.label and one.label not in settings.classes]
    if unknown:
        one = unknown[0]
        raise UserError(
            f"datasets: {one.origin} has the label {one.label!r}, which is none of `classes` "
            f"({', '.join(settings.classes)}): mend the label, or add the class"
        )
    return list(settings.classes)


def _by_number(name: str) -> tuple[int, float, str]:
    """Numbers by value, before names by letter."""
    return (0, float(name), name) if name.lstrip("-").isdecimal() else (1, 0.0, name)


def place(kept: Sequence[Seen], classes: Sequence[str], most: int) -> list[Example]:
    """Rows by split, in the order of digests, the first `most` of each if that is not 0."""
    numbers = {name: number for number, name in enumerate(classes)}
    examples = []
    for split in SPLITS:
        mine = sorted((one for one in kept if one.side == split), key=lambda one: one.digest)
        for row, one in enumerate(mine[:most] if most else mine):
            label = numbers[one.label] if one.label else UNLABELLED
            examples.append(Example(digest=one.digest, split=split, row=row, label=label, origin=one.origin))
    return examples


def check_classes(examples: Sequence[Example], classes: Sequence[str]) -> None:
    """Refuse a class without a training example, and a side without any."""
    for split in SPLITS:
        mine = Counter(one.label for one in examples if one.split == split)
        if not mine:
            raise UserError(f"datasets: no {split} examples: give the source more, or raise split.{split}")
        if split == "train" and sum(mine.values()) > mine[UNLABELLED]:
            empty = [name for number, name in enumerate(classes) if not mine[number]]
            if empty:
                raise UserError(
                    f"datasets: class {empty[0]!r} has no training example: add some, or leave the class out"
                )


def write_contents(folder: Path, examples: Sequence[Example], kept: dict[str, Seen], texts: list[str] | None) -> None:
    """SPLIT.inputs.npy or SPLIT.texts.jsonl, and SPLIT.labels.npy; the scratch file goes."""
    scratch = folder / "scratch.npy"
    pictures = None if texts is not None else np.load(scratch, mmap_mode="r", allow_pickle=False)
    for split in SPLITS:
        mine = [one for one in examples if one.split == split]
        np.save(folder / f"{split}.labels.npy", np.array([one.label for one in mine], np.int64))
        if texts is not None:
            write_jsonl(folder / f"{split}.texts.jsonl", ({"text": texts[kept[one.digest].at]} for one in mine))
            continue
        assert pictures is not None
        file = ArrayFile(folder / f"{split}.inputs.npy", pictures.shape[1:], np.uint8, len(mine))
        for one in mine:
            file.put(one.row, np.asarray(pictures[kept[one.digest].at]))
        file.close()
    scratch.unlink(missing_ok=True)


def describe(folder: Path, examples: Sequence[Example], classes: Sequence[str], is_text: bool) -> dict[str, Any]:
    """dataset.json."""
    names = sorted(path.name for path in folder.iterdir() if path.suffix == ".npy" or path.name.endswith("texts.jsonl"))
    files = {name: sha256_file(folder / name) for name in names}
    size = None if is_text else int(np.load(folder / "train.inputs.npy", mmap_mode="r", allow_pickle=False).shape[1])
    return {
        "schema": SCHEMA,
        "kind": "texts" if is_text else "images",
        "classes": list(classes),
        "size": size,
        "counts": {split: sum(one.split == split for one in examples) for split in SPLITS},
        "labelled": {split: sum(one.split == split and one.label >= 0 for one in examples) for split in SPLITS},
        "files": files,
        "digest": sha256_json({"classes": list(classes), "files": files}),
    }


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m tasks.dataset")
    parser.add_argument("--name", required=True, help="a name under `datasets:` in params.yaml")
    name = parser.parse_args().name

    def work() -> None:
        settings = load_params().dataset(name)
        with locked(work_folder(None) / f"dataset-{name}.lock"):
            dataset(name, settings)

    guarded("dataset", work)


if __name__ == "__main__":
    main()
