"""Teacher pins: read at a commit of git, compared between two, and set in the text of a params.yaml; `init` likewise.

A pin is the `teacher:` value of a student's block. Nothing is written here; tasks/workspace.py does.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from models.errors import UserError
from tasks.git import commit_id, file_at
from tasks.params import YAML_LOADER, Params, parse_params, parse_yaml, with_profile

FILE = "params.yaml"
Block = dict[str, Any]


def params_at(ref: str) -> Params:
    """params.yaml as it is at a commit (id, branch or tag) of the repository here, parsed and checked."""
    return parse_params(_raw_at(ref))


def changed_pins(base_ref: str, head_ref: str) -> list[tuple[str, Block | None, Block]]:
    """(student, its teacher block at base or None, its teacher block at head) where the two differ, new students too.

    The params.yaml at base may be of an older version with other keys, or not be there at all.
    """
    try:
        base = _raw_at(base_ref)
        before = {name: block.get("teacher") for name, block in base["students"].items()}
    except (UserError, TypeError, KeyError, AttributeError):
        commit_id(base_ref)  # a misspelt branch is an error, though
        before = {}
    after = {name: block.teacher.model_dump() for name, block in params_at(head_ref).students.items()}
    return [(name, before.get(name), teacher) for name, teacher in after.items() if before.get(name) != teacher]


def set_pin(text: str, student: str, teacher: Mapping[str, Any]) -> str:
    """The text of a params.yaml with another `teacher:` for one student, everything else byte for byte.

    Raises UserError when there is no such student, when its teacher is not written out in its own block (an alias or
    a merge, where a change would be one of other students too), or when the result would not be valid.
    """
    return _with_value(text, student, "teacher", dict(teacher))


def set_init(text: str, student: str, folder: str) -> str:
    """The text of a params.yaml with another `init:` for one student; as `set_pin`."""
    return _with_value(text, student, "init", folder)


def _with_value(text: str, student: str, key: str, value: Any) -> str:
    raw = parse_yaml(text)
    expected = parse_params(raw).student(student).model_dump()  # names the students there are
    if expected[key] == value:
        return text
    node = _own_node(text, student, key)
    dumped = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=2**31)
    line = dumped.partition("\n")[0]  # behind a scalar comes a line that ends the document
    new = text[: node.start_mark.index] + line + text[_end(node) :]
    changed = copy.copy(raw) | {"students": {**raw["students"]}}
    changed["students"][student] = {**raw["students"][student], key: value}
    if parse_yaml(new) != changed:  # never expected; but what goes to git is not left to expectation
        raise UserError(f"{FILE}: students.{student}.{key} could not be replaced in place: write it on one line")
    parse_params(changed)
    return new


def apply_profile(raw: Mapping[str, Any], student: str, profile: str) -> dict[str, Any]:
    """A parsed params.yaml with the values of one of its profiles for one student; the given one stays as it is."""
    params = parse_params(raw)
    params.student(student)
    if profile not in params.profiles:
        raise UserError(f"no profile {profile!r} in {FILE}; there are: {', '.join(params.profiles) or 'none'}")
    changed = with_profile(raw["students"][student], params.profiles[profile])
    changed_raw = {**raw, "students": {**raw["students"], student: changed}}
    parse_params(changed_raw)
    return changed_raw


def _raw_at(ref: str) -> Any:
    return parse_yaml(file_at(commit_id(ref), FILE), f"{FILE} at {ref}")


def _own_node(text: str, student: str, wanted: str) -> yaml.Node:
    """The value of a key in the student's own block; UserError if it is shared with anything else."""
    node = yaml.compose(text, Loader=YAML_LOADER)
    assert node is not None  # an empty text has no students, and was refused
    shared = _shared(node)
    for key in ("students", student, wanted):
        found = [value for name, value in node.value if name.value == key]
        if not found or id(found[-1]) in shared:
            raise UserError(
                f"{FILE}: the {wanted} of {student} comes from an anchor (&, * or <<) that others share: "
                f"write `{wanted}: ...` into its own block"
            )
        node = found[-1]
    return node


def _shared(root: yaml.Node) -> set[int]:
    """The ids of the nodes that more than one place refers to."""
    seen, shared, rest = set[int](), set[int](), [root]
    while rest:
        node = rest.pop()
        if id(node) in seen:
            shared.add(id(node))
            continue
        seen.add(id(node))
        rest.extend(_below(node))
    return shared


def _below(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from (key, value)
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _end(node: yaml.Node) -> int:
    """Where a value ends; a block's own mark lies behind the comments and empty lines that follow it."""
    while isinstance(node, yaml.MappingNode | yaml.SequenceNode) and not node.flow_style and node.value:
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    return int(node.end_mark.index)
