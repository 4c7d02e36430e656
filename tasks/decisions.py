"""What people decided about single pairs: data/decisions/STUDENT.jsonl, which git keeps; one line a pair.

    {"pair": "9f...", "teacher": "1c...", "decision": "drop", "by": "ada", "reason": "the hand has six fingers"}

The quarantine page (tasks/quarantine.py) offers such lines to copy. The file is a log: of two lines on one pair the
later one counts. A decision is about a picture that a teacher made, so one about another teacher's is set aside, and
said to be; one about a pair that this teacher was not asked for is refused.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import StringConstraints, ValidationError

from models.errors import UserError
from tasks.schema import Section

DECISIONS = Path("data/decisions")
NAMED = 3  # pairs that a message names
Words = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^[^\r\n]*$")]


class Decision(Section):
    """A line of the file."""

    pair: Words  # Pair.id
    teacher: Words  # Pair.teacher
    decision: Literal["keep", "drop"]
    by: Words
    reason: Words


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """Those that count, by pair, and how many are about another teacher's pictures."""

    by_pair: Mapping[str, Decision]
    stale: int


def read_decisions(path: Path, teacher: str, pairs: Collection[str]) -> Decisions:
    """The decisions in `path`, none where there is no such file; a UserError names lines that cannot be meant.

    teacher: the digest of the one whose pairs are curated; pairs: their ids.
    """
    lines = path.read_text().splitlines() if path.is_file() else []
    told = [(number, _parse(path, number, line)) for number, line in enumerate(lines, 1) if line.strip()]
    ours = [(number, one) for number, one in told if one.teacher == teacher]
    known = set(pairs)
    unknown = [(number, one.pair) for number, one in ours if one.pair not in known]
    if unknown:
        named = ", ".join(f"{pair[:12]} (line {number})" for number, pair in unknown[:NAMED])
        more = f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
        raise UserError(
            f"{path} decides on {len(unknown)} pairs that are not among the {len(known)} there are: {named}{more}; "
            "their photos or the crops (students.NAME.pairs) are others now: take these lines out"
        )
    return Decisions(by_pair={one.pair: one for _, one in ours}, stale=len(told) - len(ours))


def _parse(path: Path, number: int, line: str) -> Decision:
    try:
        return Decision.model_validate(json.loads(line))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the line"
        raise UserError(f"{path}, line {number}: {key}: {first['msg']}: mend the line or take it out") from None
    except ValueError as error:
        raise UserError(f"{path}, line {number} is not JSON ({error}): mend the line or take it out") from None
