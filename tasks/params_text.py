"""Sections of a student's block set in the text of a params.yaml, everything else as it was, comments too; those within
a section go with what it held.

A section that is shared (an anchor, as `&train`) is changed for this student alone: another's `*train` then holds what
was there.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from models.errors import UserError
from tasks.files import write_text
from tasks.params import YAML_LOADER, parse_params, parse_yaml

FILE = Path("params.yaml")


def write_params(student: str, sections: Mapping[str, Any]) -> None:
    """Set sections of a student in params.yaml, whole or not at all; a UserError where the result would be invalid."""
    text = FILE.read_text()
    for key, value in sections.items():
        text = with_section(text, student, key, value)
    parse_params(parse_yaml(text))
    write_text(FILE, text)


def with_section(text: str, student: str, key: str, value: Any) -> str:
    """The text with students.STUDENT.KEY set; a UserError where that cannot be done in place."""
    raw = parse_yaml(text)
    parse_params(raw).student(student)
    before = raw["students"][student][key]
    if before == value:
        return text
    new = _replaced(text, student, key, before, value)
    expected = raw | {"students": {**raw["students"], student: {**raw["students"][student], key: value}}}
    try:
        done = parse_yaml(new) == expected
    except UserError:
        done = False
    if not done:
        raise UserError(f"{FILE}: students.{student}.{key} cannot be replaced in place: paste it in by hand")
    return new


def _replaced(text: str, student: str, key: str, before: Any, value: Any) -> str:
    events: list[Any] = list(yaml.parse(text, Loader=YAML_LOADER))
    at = 2  # behind the beginnings of stream and document
    for name in ("students", student, key):
        at = _value(events, at, name)
    node: Any = events[at]
    end = _after(events, at)
    edits: list[tuple[int, int, str]] = [(node.start_mark.index, _end(events[at:end]), _flow(value))]
    if node.anchor and not isinstance(node, yaml.AliasEvent):
        later: list[Any] = [
            one for one in events[end:] if isinstance(one, yaml.AliasEvent) and one.anchor == node.anchor
        ]
        edits += [(one.start_mark.index, one.end_mark.index, f"&{node.anchor} {_flow(before)}") for one in later[:1]]
    for start, stop, written in reversed(edits):
        text = text[:start] + written + text[stop:]
    return text


def _flow(value: Any) -> str:
    line = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=2**31)
    return line.rstrip("\n")


def _value(events: Sequence[Any], at: int, key: str) -> int:
    """Where the value of a key begins in the mapping that begins at `at`."""
    if not isinstance(events[at], yaml.MappingStartEvent):
        raise UserError(f"{FILE}: {key} lies in a part that others share (*{events[at].anchor}): paste it in by hand")
    at += 1
    while not isinstance(events[at], yaml.MappingEndEvent):
        value = _after(events, at)
        if isinstance(events[at], yaml.ScalarEvent) and events[at].value == key:
            return value
        at = _after(events, value)
    raise UserError(f"{FILE}: {key} comes from a merge (<<): write it into the student's own block")


def _after(events: Sequence[Any], at: int) -> int:
    """The place behind the value that begins at `at`."""
    depth = 0
    while True:
        depth += isinstance(events[at], yaml.CollectionStartEvent)
        depth -= isinstance(events[at], yaml.CollectionEndEvent)
        at += 1
        if depth == 0:
            return at


def _end(events: Sequence[Any]) -> int:
    """Where a value's text ends; the end of a block lies behind the comments and empty lines after it."""
    return max(int(one.end_mark.index) for one in events if one.end_mark.index > one.start_mark.index)
