"""What the rules of curation find of known faults, and what they drop of good pairs.

Reads data/students/NAME/raw. In each round every fault of tasks/planted_faults.py is planted into other training pairs,
together a share of them, and all pairs are judged by the limits of params.yaml, whose relative ones therefore see the
faults too. Pixels of all pairs that are used are in memory (400 MiB for 1,000 of 256 pixels).

Prints, as Markdown, per fault how many were dropped and by which rules, and per rule how many pairs without a planted
fault it objects to, with faults among them and without.

Command: python -m tasks.curation_check --student NAME [--pairs 1200] [--rounds 5] [--share 0.1]
"""

import argparse
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.errors import UserError
from models.spread import spread
from tasks.curate_params import Curate
from tasks.curation_rules import ALONE, bounds, judge
from tasks.files import read_json
from tasks.pair_facts import Measured, compare, measure
from tasks.params import Params, load_params
from tasks.pictures import Pixels
from tasks.planted_faults import FAULTS
from tasks.progress import progress
from tasks.raw import Shard, read_manifest, read_shard
from tasks.records import Verdict
from tasks.stage import STUDENTS, guarded

ROW_FIELDS = ("given", "target", "spectra", "vectors")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The verdicts of one round, and which pairs had which fault."""

    verdicts: list[Verdict]
    planted: Mapping[str, str]  # pair id -> fault


def read_pairs(name: str, params: Params, count: int) -> Shard:
    """So many pairs of the student, evenly over its shards, as one."""
    raw, size = STUDENTS / name / "raw", params.student(name).pairs.size
    teacher = read_json(raw / "teacher.json")["digest"]
    lines = read_manifest(raw)
    wanted = set(spread(sum(line["pairs"] for line in lines), count).tolist())
    parts, at = [], 0
    for line in lines:
        rows = [row for row in range(line["pairs"]) if at + row in wanted]
        at += line["pairs"]
        if rows:
            shard = read_shard(raw, line, size, teacher)
            parts.append(([shard.pairs[row] for row in rows], shard.inputs[rows], shard.targets[rows]))
    return Shard(
        pairs=[pair for pairs, _, _ in parts for pair in pairs],
        inputs=np.concatenate([inputs for _, inputs, _ in parts]),
        targets=np.concatenate([targets for _, _, targets in parts]),
    )


def one(shard: Shard, row: int, target: Any) -> Shard:
    """A pair with another target."""
    return Shard(pairs=[shard.pairs[row]], inputs=shard.inputs[row : row + 1], targets=target[None])


def measured_one_by_one(shard: Shard, settings: Curate) -> Measured:
    """All pairs of a shard, with a progress bar."""
    parts = []
    with progress("curation-check", len(shard.pairs), "pairs") as advance:
        for row in range(len(shard.pairs)):
            parts.append(measure(one(shard, row, shard.targets[row]), settings))
            advance(1)
    return joined(parts)


def joined(parts: Sequence[Measured]) -> Measured:
    """Several as one."""
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ROW_FIELDS}
    return Measured(facts=[facts for part in parts for facts in part.facts], **arrays)


def plant(
    shard: Shard, clean: Measured, settings: Curate, share: float, seed: int
) -> tuple[Measured, Pixels, dict[str, str]]:
    """The pairs with every fault in as many training pairs, none in two; their targets; and which pair has which."""
    targets = shard.targets.copy()
    random = np.random.default_rng(seed)
    order = [int(row) for row in random.permutation(len(shard.pairs)) if shard.pairs[int(row)].split == "train"]
    with_face = [row for row in order if "identity" in clean.facts[row].scores]
    each = max(1, round(share * len(order) / len(FAULTS)))
    facts, arrays = list(clean.facts), {name: getattr(clean, name).copy() for name in ROW_FIELDS}
    planted: dict[str, str] = {}
    # Faces are few, so their pairs are taken first.
    for fault in sorted(FAULTS, key=lambda fault: fault != "other-face"):
        rows = [row for row in (with_face if fault == "other-face" else order) if shard.pairs[row].id not in planted]
        # Where every second face is another's, that is what is usual: of the few faces the same share is spoilt.
        for row in rows[: min(each, max(1, round(share * len(rows))))]:
            other = shard.targets[order[int(random.integers(len(order)))]]
            target = FAULTS[fault](shard.inputs[row], shard.targets[row], other, random)
            if target is None:
                continue
            targets[row] = target
            part = measure(one(shard, row, target), settings)
            facts[row] = part.facts[0]
            for name in ROW_FIELDS:
                arrays[name][row] = getattr(part, name)[0]
            planted[shard.pairs[row].id] = fault
    return Measured(facts=facts, **arrays), targets, planted


def judged(measured: Measured, settings: Curate) -> list[Verdict]:
    """The verdicts on pairs as the stage gives them; no person decides."""
    facts = compare([measured], settings)
    return judge(facts, bounds(facts, settings), {})


def objecting(verdict: Verdict) -> list[str]:
    """The rules that object to a pair for what it is by itself."""
    return [rule for rule in (verdict.rule, *verdict.also) if rule in ALONE]


def fault_table(rounds: Iterable[Found]) -> list[str]:
    """Markdown: per fault how many were planted and dropped, and the rules that objected, most frequent first."""
    planted: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    by: dict[str, Counter[str]] = {}
    for found in rounds:
        for verdict in found.verdicts:
            fault = found.planted.get(verdict.pair)
            if fault is None:
                continue
            rules = objecting(verdict)
            planted[fault] += 1
            dropped[fault] += bool(rules)
            by.setdefault(fault, Counter()).update(rules)
    lines = ["| planted | pairs | dropped | by |", "|---|---:|---:|---|"]
    for fault in FAULTS:
        if planted[fault]:
            told = ", ".join(f"{rule} {count / planted[fault]:.0%}" for rule, count in by[fault].most_common(4))
            lines.append(f"| {fault} | {planted[fault]} | {dropped[fault] / planted[fault]:.0%} | {told} |")
        else:
            lines.append(f"| {fault} | 0 | - | no pair to plant it in |")
    return lines


def false_table(clean: list[Verdict], rounds: Sequence[Found]) -> list[str]:
    """Markdown: per rule the share of pairs without a fault it objects to, without and with faults among them."""
    lines = ["| rule | objects, nothing planted | objects, faults among them |", "|---|---:|---:|"]
    spared = [verdict for found in rounds for verdict in found.verdicts if verdict.pair not in found.planted]
    for rule in (*ALONE, "any"):
        shares = [share_of(verdicts, rule) for verdicts in (clean, spared)]
        lines.append(f"| {rule} | {shares[0]:.2%} | {shares[1]:.2%} |")
    return lines


def share_of(verdicts: Sequence[Verdict], rule: str) -> float:
    """The share of pairs to which a rule objects, or "any" of them."""
    asked = [set(objecting(verdict)) for verdict in verdicts]
    return sum(bool(found) if rule == "any" else rule in found for found in asked) / max(len(verdicts), 1)


def check(params: Params, name: str, count: int, rounds: int, share: float) -> list[str]:
    """Both tables of a student."""
    # Two answers of the teacher are not made again here, so inconsistency has nothing to judge.
    shard = read_pairs(name, params, count)
    if not any(pair.split == "train" for pair in shard.pairs):
        raise UserError(f"{STUDENTS / name / 'raw'} holds no training pairs to plant faults into")
    clean = measured_one_by_one(shard, params.curate)
    found = []
    for number in range(rounds):
        measured, _, planted = plant(shard, clean, params.curate, share, seed=number)
        found.append(Found(verdicts=judged(measured, params.curate), planted=planted))
    about = f"{name}: {len(shard.pairs)} pairs, faults in {share:.0%} of the training pairs, {rounds} rounds"
    return [about, "", *fault_table(found), "", *false_table(judged(clean, params.curate), found)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tasks.curation_check")
    parser.add_argument("--student", required=True, help="a name under `students:` in params.yaml, generated")
    parser.add_argument("--pairs", type=int, default=1200, help="at most so many, evenly over all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--share", type=float, default=0.1, help="of the training pairs that get a fault")
    asked = parser.parse_args()
    guarded(
        "curation-check",
        lambda: print("\n".join(check(load_params(), asked.student, asked.pairs, asked.rounds, asked.share))),
        asked.student,
    )
