"""Stage curate: drops pairs that would teach the student nothing or the wrong thing, and says why.

Reads data/students/NAME/raw, shard by shard, each checked against manifest.jsonl, and data/decisions/NAME.jsonl, what
people decided (tasks/decisions.py).
Writes data/students/NAME/pairs: {train,val,test}.{inputs,targets}.npy (N,S,S,3) uint8, kept.jsonl and
rejected.jsonl (Verdict, with the scores), yield.json (pairs, kept and each rule's share by split), curation.json (the
limits in figures, what each rule judged and took), quarantine/ (a page of the dropped pairs), pairs.json (what the set
is, by digest).

Command: python -m tasks.curate --student NAME
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from models.errors import UserError
from tasks.curation_rules import RULES, SCORES, Bounds, bounds, count_yield, judge
from tasks.decisions import DECISIONS, Decisions, read_decisions
from tasks.files import read_json, replacing_folder, write_json
from tasks.limits import NONE, TOO_FEW
from tasks.pair_facts import COMPARED, FEWEST, Source, measure_all
from tasks.pair_set import Arrays, describe
from tasks.params import Params
from tasks.quarantine import Quarantine
from tasks.raw import read_manifest
from tasks.records import SPLITS, Verdict, write_records
from tasks.splits import check_splits
from tasks.stage import STUDENTS, student_main, work_folder
from tasks.student_params import Student

Counts = dict[str, dict[str, int]]


def curate(params: Params, name: str, student: Student) -> None:
    """Write data/students/NAME/pairs; raises UserError for damaged shards or an empty split."""
    raw, size = STUDENTS / name / "raw", student.pairs.size
    teacher = read_json(raw / "teacher.json")
    sources = [
        Source(raw=raw, line=line, size=size, teacher=teacher["digest"], settings=params.curate)
        for line in read_manifest(raw)
    ]
    facts = measure_all(sources, f"curate {name}")
    ids = {one.pair.id for one in facts}
    if len(ids) < len(facts):
        raise UserError(f"{raw} holds a pair twice: delete it and run dvc repro generate@{name}")
    decisions = read_decisions(DECISIONS / f"{name}.jsonl", teacher["digest"], ids)
    limits = bounds(facts, params.curate)
    verdicts = judge(facts, limits, decisions.by_pair)
    counts = count_yield(verdicts)
    told = tell(verdicts, counts, limits, decisions)
    check_yield(counts, lambda: show_all(sources, name, verdicts, limits))
    with replacing_folder(STUDENTS / name / "pairs") as folder:
        write_pictures(folder, sources, name, verdicts, limits)
        write_records(folder / "kept.jsonl", [verdict for verdict in verdicts if not verdict.rule])
        write_records(folder / "rejected.jsonl", [verdict for verdict in verdicts if verdict.rule])
        write_json(folder / "yield.json", counts)
        write_json(folder / "curation.json", told)
        write_json(folder / "pairs.json", describe(folder, verdicts, teacher, size))
        check_splits(folder, params.splits)  # raises where anything is on two sides; then nothing is published
    for note in told["notes"]:
        print(f"curate {name}: {note}", file=sys.stderr)
    Console().print(yield_table(counts, told, f"curate: yield of {name}"))
    if told["rejected"]:
        print(f"curate {name}: what was dropped is in {STUDENTS / name / 'pairs' / 'quarantine' / 'index.html'}")


def write_pictures(folder: Path, sources: Sequence[Source], name: str, verdicts: list[Verdict], limits: Bounds) -> None:
    """The arrays of kept pairs and the quarantine, one shard in memory at a time."""
    arrays = Arrays(folder, verdicts, sources[0].size)
    quarantine = Quarantine(folder / "quarantine", name, verdicts, limits)
    for source in sources:
        shard = source.read()
        arrays.take(shard)
        quarantine.take(shard)
    arrays.close()
    quarantine.close()


def show_all(sources: Sequence[Source], name: str, verdicts: list[Verdict], limits: Bounds) -> Path:
    """The quarantine alone, where there is no set of pairs to put it into; its page."""
    place = work_folder(name) / "quarantine"
    with replacing_folder(place) as folder:
        quarantine = Quarantine(folder, name, verdicts, limits)
        for source in sources:
            quarantine.take(source.read())
        quarantine.close()
    return place / "index.html"


def check_yield(counts: Counts, show: Any) -> None:
    """Refuse a split without pairs, naming the rule that took most; `show` makes a page of the dropped ones."""
    for split, count in counts.items():
        if not count["pairs"]:
            raise UserError(f"curate: no {split} pairs were generated: run dvc repro, or give ingest more photos")
        if not count["kept"]:
            worst = max(RULES, key=lambda rule: count[rule])
            raise UserError(
                f"curate: no {split} pair is left of {count['pairs']}; rule {worst} took {count[worst]}: look at "
                f"{show()}, loosen the rule's limit under `curate` in params.yaml, or add inputs"
            )


def tell(verdicts: list[Verdict], counts: Counts, limits: Bounds, decisions: Decisions) -> dict[str, Any]:
    """curation.json: each rule's limit, how it came about, how many pairs it judged and took, and what to know."""
    taken = {rule: sum(count[rule] for count in counts.values()) for rule in RULES}
    objected = {rule: sum(rule in (one.rule, *one.also) for one in verdicts) for rule in RULES}
    rules: dict[str, dict[str, Any]] = {
        rule: {"rejected": taken[rule], "objected": objected[rule], "judged": len(verdicts), "limit": None, "how": ""}
        for rule in RULES
    }
    for rule, limit in limits.thresholds.items():
        value = None if limit.value is None else round(limit.value, 4)
        rules[rule] |= {"judged": limit.judged, "limit": value, "how": limit.how, "says": SCORES[rule]}
    said = [one.decision for one in decisions.by_pair.values()]
    return {
        "rules": rules,
        "pairs": len(verdicts),
        "rejected": sum(taken.values()),
        "decisions": {"keep": said.count("keep"), "drop": said.count("drop"), "stale": decisions.stale},
        "notes": notes(rules, len(verdicts), decisions),
    }


def notes(rules: Mapping[str, Any], pairs: int, decisions: Decisions) -> list[str]:
    """What a person should know besides the figures: rules that could not judge, decisions that do not count."""
    found = []
    if rules["identity"]["how"] == NONE:
        found.append(f"identity judged none of {pairs} pairs: no face was found in any input")
    usual = [rule for rule in COMPARED if rules[rule]["how"] == NONE]
    if usual:
        found.append(f"{', '.join(usual)} judged no pair: what is usual takes {FEWEST} good training pairs to say")
    few = [rule for rule in SCORES if rules[rule]["how"].startswith(TOO_FEW)]
    for how in sorted({rules[rule]["how"] for rule in few}):
        which = ", ".join(rule for rule in few if rules[rule]["how"] == how)
        found.append(f"{which} judged no pair: {how}; a number as a limit asks for none")
    if decisions.stale:
        found.append(f"{decisions.stale} decisions are about another teacher's pictures and do not count: look again")
    return found


def yield_table(counts: Counts, told: Mapping[str, Any], title: str) -> Table:
    """The yield as a table: a row per rule with what it took of each split, its limit and how many pairs it judged."""
    table = Table(title=title)
    table.add_column("rule")
    for column in (*SPLITS, "judged", "limit"):
        table.add_column(column, justify="right")
    for row in ("pairs", "kept", *RULES):
        rule = told["rules"].get(row, {"judged": "", "limit": None, "how": ""})
        limit = rule["how"] if rule["limit"] is None else f"{rule['limit']:.3f}"
        judged = str(rule["judged"])
        table.add_row(row, *(str(counts[split][row]) for split in SPLITS), judged, limit)
    return table


if __name__ == "__main__":
    student_main("curate", curate)
