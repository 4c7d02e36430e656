"""decisions: the later line counts, another teacher's do not, and what cannot be meant is refused by its line."""

import json
from pathlib import Path
from typing import Any

import pytest

from models.errors import UserError
from tasks.decisions import read_decisions

OURS, OTHERS = "t" * 64, "u" * 64


def line(pair: Any, decision: str = "drop", teacher: str = OURS, **changes: Any) -> str:
    told = {"pair": pair, "teacher": teacher, "decision": decision, "by": "ada", "reason": "six fingers"}
    return json.dumps(told | changes)


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_no_file_is_no_decision(tmp_path: Path) -> None:
    found = read_decisions(tmp_path / "none.jsonl", OURS, {"a"})
    assert (found.by_pair, found.stale) == ({}, 0)


def test_the_later_line_counts_and_another_teachers_do_not(tmp_path: Path) -> None:
    lines = line("a"), line("b", "keep"), "", line("a", "keep", reason="no, a glove"), line("gone", teacher=OTHERS)
    found = read_decisions(write(tmp_path / "oil.jsonl", *lines), OURS, {"a", "b", "c"})
    assert {pair: one.decision for pair, one in found.by_pair.items()} == {"a": "keep", "b": "keep"}
    assert found.by_pair["a"].reason == "no, a glove"
    assert found.stale == 1


def test_unknown_pairs_are_named_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "oil.jsonl", line("a"), *(line(f"unknown{i}") for i in range(5)))
    message = (
        r"oil\.jsonl decides on 5 pairs .* 1 there are: unknown0 \(line 2\), .* and 2 more; .*take these lines out"
    )
    with pytest.raises(UserError, match=message):
        read_decisions(path, OURS, {"a"})


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", "line 2 is not JSON"),
        ("[]", "line 2: the line: .*mend the line"),
        (line("a", "maybe"), "line 2: decision: Input should be 'keep' or 'drop'"),
        (line("a", by=""), "line 2: by: "),
        (line("a", reason="two\nlines"), "line 2: reason: "),
        (line("a", because="x"), "line 2: because: "),
        (line(7), "line 2: pair: "),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, bad: str, message: str) -> None:
    path = write(tmp_path / "oil.jsonl", line("a"), bad)
    with pytest.raises(UserError, match=message):
        read_decisions(path, OURS, {"a"})
