"""Teacher pins read at a commit of git and compared between two, and a params.yaml with one of its profiles.

A pin is the `teacher:` value of a student's block. Nothing is written here; tasks/workspace.py does.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from models.errors import UserError
from tasks.git import commit_id, file_at
from tasks.params import Params, parse_params, parse_yaml, with_profile

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
        blocks = {**base["students"], **base.get("classifiers", {})}
        before = {name: block.get("teacher") for name, block in blocks.items()}
    except (UserError, TypeError, KeyError, AttributeError):
        commit_id(base_ref)  # a misspelt branch is an error, though
        before = {}
    found = []
    for name, block in params_at(head_ref).every.items():
        was, now = _whole(before.get(name), type(block.teacher)), block.teacher.model_dump()
        if was != now:
            found.append((name, was, now))
    return found


def _whole(block: Block | None, kind: type[BaseModel]) -> Block | None:
    """A teacher's block with what it leaves to defaults, where it is of this kind; as it is elsewhere."""
    try:
        return None if block is None else kind.model_validate(block).model_dump()
    except ValidationError:
        return block


def apply_profile(raw: Mapping[str, Any], student: str, profile: str) -> dict[str, Any]:
    """A parsed params.yaml with the values of one of its profiles for one student; the given one stays as it is."""
    params = parse_params(raw)
    params.block(student)
    if profile not in params.profiles:
        raise UserError(f"no profile {profile!r} in {FILE}; there are: {', '.join(params.profiles) or 'none'}")
    section = params.section_of(student)
    changed = with_profile(raw[section][student], params.profiles[profile].of(section))
    changed_raw = {**raw, section: {**raw[section], student: changed}}
    parse_params(changed_raw)
    return changed_raw


def _raw_at(ref: str) -> Any:
    return parse_yaml(file_at(commit_id(ref), FILE), f"{FILE} at {ref}")
