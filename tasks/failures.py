"""Where the teacher failed on test pictures, whether the student copies it, and where it fails on its own.

A teacher's answer has failed that curation dropped for what it shows, or that is unusual for an input of its kind
(tasks/usual.py). The student copies it where its own picture is unusual in the same way; it invents a failure where its
picture is unusual and the teacher's is not. None of this needs a right answer, and none of it is proof: what counts is
the gallery in the report. Called by tasks/evaluate.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.effect import describe
from models.errors import UserError
from models.spread import spread
from tasks.curation_rules import BESIDE
from tasks.files import read_json
from tasks.quality import Model, Pictures, painted, read_pairs
from tasks.raw import read_manifest, read_shard
from tasks.records import Record, Verdict, read_records
from tasks.usual import MANNER_OF, Usual, find_usual, in_words, manner, same_way, unusual

Values = npt.NDArray[np.float64]

MOST = 5000  # training pairs, evenly, that say what is usual
SHOWN = 6  # in the gallery
BATCH = 16
KEPT = "unusual"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure(Record):
    """A test picture on which the teacher, the student, or both did something unusual."""

    pair: str
    rule: str  # of curation that dropped it, "unusual" of one that was kept, "" where the teacher did nothing odd
    reason: str  # in words
    student: str  # what is unusual about the student's picture, in words
    copied: bool
    invented: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Failures with the pictures of those to show, by place in `rows`: input, teacher and student, (S,S,3) uint8."""

    rows: list[Failure]
    pictures: dict[int, dict[str, Pictures]]
    tested: int  # kept test pictures that were looked at
    why_not: str = ""  # nothing could be judged

    @property
    def copied(self) -> int:
        """Failures of the teacher's that the student repeats."""
        return sum(one.copied for one in self.rows)

    @property
    def invented(self) -> int:
        """Failures of the student's own."""
        return sum(one.invented for one in self.rows)

    @property
    def looked_at(self) -> int:
        """Test pictures, those that curation dropped included."""
        return self.tested + sum(one.rule not in ("", KEPT) for one in self.rows)

    def to_json(self) -> dict[str, Any]:
        """As in quality.json."""
        told = {"tested": self.tested, "known": sum(bool(one.rule) for one in self.rows)}
        told |= {"copied": self.copied, "invented": self.invented, "looked_at": self.looked_at}
        return told | {"why_not": self.why_not, "rows": [one.to_json() for one in self.rows]}


def find_failures(
    folder: Path, models: Mapping[str, Model], shown: Mapping[str, str], verdicts: Sequence[Verdict]
) -> Judged:
    """Judge the test pictures of data/students/NAME; `shown` says which model is the "student", which the "int8" file.

    `verdicts` are those of the kept test rows. Where there are too few training pairs nothing is judged.
    """
    taught, answers = read_pairs(folder / "pairs", "train")
    rows = spread(len(taught), MOST)
    inputs = {
        one.index: one.input for one in read_records(folder / "pairs/kept.jsonl", Verdict) if one.split == "train"
    }
    try:
        found = describe((taught[row] for row in rows), (answers[row] for row in rows))
        usual = find_usual(*found, [inputs[row] for row in rows])
    except UserError as error:
        return Judged(rows=[], pictures={}, tested=0, why_not=str(error))
    model = models[shown["student"]]
    known = taught[spread(len(taught), MANNER_OF)]
    everywhere = np.median(manner(usual, known, painted(model, known, shown["student"])), axis=0)
    failures: list[Failure] = []
    pictures: dict[int, dict[str, Pictures]] = {}
    for given, made, about in tested(folder, verdicts):
        output = painted(model, given, shown["student"])
        for row, one in enumerate(judge(usual, everywhere, given, made, output, about)):
            if one is None:
                continue
            if len(pictures) < SHOWN:
                small = painted(models[shown["int8"]], given[row : row + 1], shown["int8"])[0]
                panels = {"input": given[row], "teacher": made[row], "student": output[row], "int8": small}
                pictures[len(failures)] = panels
            failures.append(one)
    return Judged(rows=failures, pictures=pictures, tested=len(verdicts))


def tested(folder: Path, verdicts: Sequence[Verdict]) -> Iterator[tuple[Pictures, Pictures, list[Verdict]]]:
    """Test pairs in batches, first those that curation dropped for what the teacher made, then the kept ones."""
    dropped = {
        one.pair: one
        for one in read_records(folder / "pairs" / "rejected.jsonl", Verdict)
        if one.split == "test" and one.rule not in BESIDE
    }
    if dropped:
        yield from _dropped(folder, dropped)
    arrays = read_pairs(folder / "pairs", "test")
    for start in range(0, len(verdicts), BATCH):
        given, made = (np.asarray(array[start : start + BATCH]) for array in arrays)
        yield given, made, list(verdicts[start : start + BATCH])


def _dropped(folder: Path, dropped: Mapping[str, Verdict]) -> Iterator[tuple[Pictures, Pictures, list[Verdict]]]:
    """The test pairs in raw/ that these verdicts are about; those without a picture are left out."""
    pairs = read_json(folder / "pairs" / "pairs.json")
    for line in read_manifest(folder / "raw"):
        shard = read_shard(folder / "raw", line, pairs["size"], pairs["teacher"])
        rows = [row for row, pair in enumerate(shard.pairs) if pair.id in dropped and pair.finite]
        if rows:
            yield shard.inputs[rows], shard.targets[rows], [dropped[shard.pairs[row].id] for row in rows]


def judge(
    usual: Usual, everywhere: Values, given: Pictures, made: Pictures, output: Pictures, about: Sequence[Verdict]
) -> Iterator[Failure | None]:
    """A failure, or None, for each of a batch; `everywhere` (8,) is what the student does to all pictures."""
    scene, teacher = describe(given, made)
    _, student = describe(given, output)
    theirs, ours = usual.deviations(scene, teacher), usual.deviations(scene, student) - everywhere
    for row, verdict in enumerate(about):
        odd = bool(unusual(theirs[row : row + 1])[0])
        own = bool(unusual(ours[row : row + 1])[0])
        if not (odd or own or verdict.rule):
            yield None
            continue
        copied = own and odd and bool(same_way(ours[row : row + 1], theirs[row])[0])
        yield Failure(
            pair=verdict.pair,
            rule=verdict.rule or (KEPT if odd else ""),
            reason=verdict.reason or in_words(theirs[row]),
            student=in_words(ours[row]),
            copied=copied,
            invented=own and not odd and not verdict.rule,
        )
