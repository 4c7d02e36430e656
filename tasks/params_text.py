"""Keys of a student's block set in the text of a params.yaml, everything else as it was, comments too; those within a
value go with what it held.

A value that is shared (an anchor, as `&train`) is changed for this student alone: another's `*train` then holds what
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


def write_params(student: str, values: Mapping[str, Any]) -> None:
    """Set keys of a student in params.yaml, whole or not at all; UserError as `with_values`."""
    write_text(FILE, with_values(FILE.read_text(), student, values))


def with_values(text: str, student: str, values: Mapping[str, Any]) -> str:
    """The text with SECTION.STUDENT.KEY set for each key, such as a teacher's pin or an architecture.

    Raises UserError when there is no such student, when a key is not written out in the student's own block (a merge,
    or a block that others share, where the change would be one of other students too), or when the result would not be
    valid.
    """
    params = parse_params(parse_yaml(text))
    section, known = params.section_of(student), params.block(student).model_dump()
    for key, value in values.items():
        if value != known[key]:
            text = _with_value(text, section, student, key, value)
    parse_params(parse_yaml(text))
    return text


def _with_value(text: str, section: str, student: str, key: str, value: Any) -> str:
    raw = parse_yaml(text)
    block = raw[section][student]
    new = _replaced(text, (section, student, key), block[key], value)
    expected = raw | {section: {**raw[section], student: {**block, key: value}}}
    try:
        done = parse_yaml(new) == expected
    except UserError:
        done = False
    if not done:
        raise UserError(f"{FILE}: {section}.{student}.{key} is part of what others share: write it into its own block")
    return new


def _replaced(text: str, path: Sequence[str], before: Any, value: Any) -> str:
    events: list[Any] = list(yaml.parse(text, Loader=YAML_LOADER))
    at = 2  # behind the beginnings of stream and document
    for name in path:
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
    return line.partition("\n")[0]  # behind a scalar comes a line that ends the document


def _value(events: Sequence[Any], at: int, key: str) -> int:
    """Where the value of a key begins in the mapping that begins at `at`."""
    if not isinstance(events[at], yaml.MappingStartEvent):
        shared = events[at].anchor
        raise UserError(f"{FILE}: {key} lies in a part that others share (*{shared}): write the student's own block")
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
    """Where a value's text ends; a block's own end, a mark alone, lies behind the comments and empty lines after it."""
    written = [one for one in events if isinstance(one, yaml.ScalarEvent) or one.end_mark.index > one.start_mark.index]
    return max(int(one.end_mark.index) for one in written)
