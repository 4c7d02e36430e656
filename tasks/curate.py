"""Stage curate: drops pairs that would teach the student nothing or the wrong thing, and says why.

Reads data/students/NAME/raw, shard by shard, each checked against manifest.jsonl.
Writes data/students/NAME/pairs: {train,val,test}.{inputs,targets}.npy (N,S,S,3) uint8, kept.jsonl and
rejected.jsonl (Verdict), yield.json (pairs, kept and each rule's share by split), pairs.json (what the set is,
by digest).

The rules are asked in the order of RULES and the first that objects decides. Training pairs come first, so of
two pairs that look alike on two sides of a split, the held-out one goes.

Command: python -m tasks.curate --student NAME
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from models.errors import UserError
from tasks.files import read_json, replacing_folder, sha256_file, sha256_json, write_json
from tasks.params import Curate, Params, Student
from tasks.pictures import Pixels, near, perceptual_hashes, pixel_digest
from tasks.raw import Shard, read_manifest, read_shard
from tasks.records import SPLITS, Pair, SplitName, Verdict, write_records
from tasks.splits import check_splits
from tasks.stage import STUDENTS, student_main

SIDES = ("inputs", "targets")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the rules need to know of a pair; kept in memory in the place of its pixels."""

    pair: Pair
    change: float  # mean absolute difference between input and target, 0..1
    contrast: float  # standard deviation of the target, 0..1
    digest: str  # of the input crop's pixels
    hashed: int  # perceptual hash of the input crop


@dataclass(slots=True)
class Kept:
    """The pairs kept so far, for the rules that compare."""

    pairs: list[Pair] = field(default_factory=list)
    digests: dict[str, Pair] = field(default_factory=dict)
    hashes: npt.NDArray[np.uint64] = field(default_factory=lambda: np.empty(1024, dtype=np.uint64))

    def add(self, facts: Facts) -> None:
        """Take a pair in; the array of hashes doubles when it is full."""
        if len(self.pairs) == len(self.hashes):
            self.hashes = np.concatenate([self.hashes, np.empty_like(self.hashes)])
        self.hashes[len(self.pairs)] = facts.hashed
        self.pairs.append(facts.pair)
        self.digests[facts.digest] = facts.pair


def broken(facts: Facts, kept: Kept, limits: Curate) -> str:
    """The teacher gave NaN or infinity, a constant picture, or mostly values outside [0,1]."""
    if not facts.pair.finite:
        return f"the teacher refused it: {facts.pair.refused}" if facts.pair.refused else "values that are not finite"
    if facts.contrast < limits.min_contrast:
        return f"contrast {facts.contrast:.4f} is below min_contrast {limits.min_contrast:g}"
    if facts.pair.clipped > limits.max_clipped:
        return f"{facts.pair.clipped:.3f} of the values are clipped, above max_clipped {limits.max_clipped:g}"
    return ""


def no_op(facts: Facts, kept: Kept, limits: Curate) -> str:
    """The teacher barely changed the input."""
    if facts.change < limits.min_change:
        return f"mean change {facts.change:.4f} is below min_change {limits.min_change:g}"
    return ""


def duplicate(facts: Facts, kept: Kept, limits: Curate) -> str:
    """A kept pair has the very same input pixels."""
    twin = kept.digests.get(facts.digest)
    return f"same input pixels as {twin.split} pair {twin.id}" if twin else ""


def near_duplicate(facts: Facts, kept: Kept, limits: Curate) -> str:
    """A kept pair's input looks the same (perceptual hash)."""
    twins = near(kept.hashes[: len(kept.pairs)], facts.hashed, limits.near_duplicate_bits)
    if not twins.size:
        return ""
    twin = kept.pairs[twins[0]]
    bits = (int(kept.hashes[twins[0]]) ^ facts.hashed).bit_count()
    return f"{bits} bits from {twin.split} pair {twin.id}, near_duplicate_bits is {limits.near_duplicate_bits}"


RULES: dict[str, Callable[[Facts, Kept, Curate], str]] = {
    "broken": broken,
    "no-op": no_op,
    "duplicate": duplicate,
    "near-duplicate": near_duplicate,
}


def measure(pair: Pair, given: Pixels, target: Pixels) -> Facts:
    """The facts of one pair; given and target are (S,S,3) uint8."""
    difference = np.abs(given.astype(np.int16) - target)
    return Facts(
        pair=pair,
        change=float(difference.mean()) / 255,
        contrast=float(target.std()) / 255,
        digest=pixel_digest(given),
        hashed=perceptual_hashes(given)[0],
    )


def first_objection(facts: Facts, kept: Kept, limits: Curate) -> tuple[str, str]:
    """The first rule that objects and its reason, or two empty texts."""
    for rule, objects in RULES.items():
        reason = objects(facts, kept, limits)
        if reason:
            return rule, reason
    return "", ""


def judge(facts: list[Facts], limits: Curate) -> list[Verdict]:
    """A verdict for every pair: training pairs first, then val, then test, each in the order given."""
    kept = Kept()
    verdicts = []
    for split in SPLITS:
        row = 0
        for one in facts:
            if one.pair.split != split:
                continue
            rule, reason = first_objection(one, kept, limits)
            if not rule:
                kept.add(one)
            verdicts.append(
                Verdict(
                    pair=one.pair.id,
                    split=split,
                    rule=rule,
                    reason=reason,
                    index=-1 if rule else row,
                    input=one.pair.input,
                    seed=one.pair.seed,
                )
            )
            row += not rule
    return verdicts


def count_yield(verdicts: list[Verdict]) -> dict[str, dict[str, int]]:
    """Per split: how many pairs there were, how many were kept, how many each rule took."""
    counts: dict[str, dict[str, int]] = {}
    for split in SPLITS:
        rules = [verdict.rule for verdict in verdicts if verdict.split == split]
        counts[split] = {"pairs": len(rules), "kept": rules.count(""), **{rule: rules.count(rule) for rule in RULES}}
    return counts


def check_yield(counts: dict[str, dict[str, int]]) -> None:
    """Refuse a split without pairs, naming the rule that took most."""
    for split, count in counts.items():
        if not count["pairs"]:
            raise UserError(f"curate: no {split} pairs were generated: run dvc repro, or give ingest more photos")
        if not count["kept"]:
            worst = max(RULES, key=lambda rule: count[rule])
            raise UserError(
                f"curate: no {split} pair is left of {count['pairs']}; rule {worst} took {count[worst]}: look at the "
                "teacher's outputs, loosen the rule's limit under `curate` in params.yaml, or add inputs"
            )


def write_arrays(folder: Path, shards: Iterator[Shard], verdicts: list[Verdict], size: int) -> None:
    """Copy the kept pairs into folder/SPLIT.{inputs,targets}.npy, one shard in memory at a time."""
    kept = {verdict.pair: verdict for verdict in verdicts if not verdict.rule}
    arrays: dict[tuple[SplitName, str], npt.NDArray[np.uint8]] = {}
    for split in SPLITS:
        shape = (sum(verdict.split == split for verdict in kept.values()), size, size, 3)
        for side in SIDES:
            path = folder / f"{split}.{side}.npy"
            arrays[split, side] = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    for shard in shards:
        for row, pair in enumerate(shard.pairs):
            if pair.id in kept:
                arrays[pair.split, "inputs"][kept[pair.id].index] = shard.inputs[row]
                arrays[pair.split, "targets"][kept[pair.id].index] = shard.targets[row]
    for array in arrays.values():
        array.flush()  # type: ignore[attr-defined]  # a memmap, which open_memmap's type does not say


def describe(folder: Path, verdicts: list[Verdict], teacher: dict[str, Any], size: int) -> dict[str, Any]:
    """pairs.json: what the set is, by digest of its pairs, its arrays and its teacher."""
    names = sorted(path.name for path in folder.glob("*.npy"))
    files = {name: sha256_file(folder / name) for name in [*names, "kept.jsonl"]}
    kept = [verdict.pair for verdict in verdicts if not verdict.rule]
    arrays = {name: files[name] for name in names}
    return {
        "digest": sha256_json({"pairs": kept, "arrays": arrays, "teacher": teacher["digest"]}),
        "teacher": teacher["digest"],
        "teacher_name": teacher["name"],
        "teacher_version": teacher["version"],
        "size": size,
        "counts": {split: count["kept"] for split, count in count_yield(verdicts).items()},
        "files": files,
    }


def yield_table(counts: dict[str, dict[str, int]], title: str) -> Table:
    """The yield as a table: a row per split, a column per rule."""
    table = Table(title=title)
    columns = ["pairs", "kept", *RULES]
    table.add_column("split")
    for column in columns:
        table.add_column(column, justify="right")
    for split, count in counts.items():
        table.add_row(split, *(str(count[column]) for column in columns))
    return table


def curate(params: Params, name: str, student: Student) -> None:
    """Write data/students/NAME/pairs; raises UserError for damaged shards or an empty split."""
    raw, size = STUDENTS / name / "raw", student.pairs.size
    teacher = read_json(raw / "teacher.json")
    lines = read_manifest(raw)
    facts = [
        measure(pair, shard.inputs[row], shard.targets[row])
        for shard in (read_shard(raw, line, size, teacher["digest"]) for line in lines)
        for row, pair in enumerate(shard.pairs)
    ]
    if len({one.pair.id for one in facts}) < len(facts):
        raise UserError(f"{raw} holds a pair twice: delete it and run dvc repro generate@{name}")
    verdicts = judge(facts, params.curate)
    counts = count_yield(verdicts)
    check_yield(counts)
    with replacing_folder(STUDENTS / name / "pairs") as folder:
        shards = (read_shard(raw, line, size, teacher["digest"]) for line in lines)
        write_arrays(folder, shards, verdicts, size)
        write_records(folder / "kept.jsonl", [verdict for verdict in verdicts if not verdict.rule])
        write_records(folder / "rejected.jsonl", [verdict for verdict in verdicts if verdict.rule])
        write_json(folder / "yield.json", counts)
        write_json(folder / "pairs.json", describe(folder, verdicts, teacher, size))
        check_splits(folder, params.splits)  # raises where anything is on two sides; then nothing is published
    Console().print(yield_table(counts, f"curate: yield of {name}"))


if __name__ == "__main__":
    student_main("curate", curate)
