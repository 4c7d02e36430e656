"""Keys of one student's block, sections and pins, are set in the text of params.yaml; comments and others stay."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from models.errors import UserError
from tasks.params import parse_params
from tasks.params_text import with_values, write_params

NEW = {"encoder": "patches2_8_16_32", "decoder_channels": [32, 8], "skip": "add", "upsample": "nearest"}
NEW["head"] = "pixel-shuffle"
PINNED = {"kind": "painter", "name": "Öl-Maler, neu: #2", "version": 2, "style": "sketch"}
PART = {"teacher": {"kind": "painter", "name": "a", "version": 1, "style": "oil"}, "weight": 0.5}
PARTS = [PART | {"region": None, "mask": None}] * 2
SEVERAL = {"kind": "several", "name": "both", "version": 1, "by": "weight", "teachers": PARTS}
ONNX = {"kind": "onnx", "name": "udnie", "version": 3, "path": "a b/c.onnx", "sha256": "ab" * 32}


@pytest.fixture
def shipped(repository: Path) -> str:
    return (repository / "params.yaml").read_text()


def comments(text: str) -> list[str]:
    return [line.partition("#")[2] for line in text.splitlines() if "#" in line]


@pytest.mark.parametrize("student", ["oil", "sketch"])  # oil has the anchors, sketch the aliases
def test_one_student_is_changed_and_nothing_else(shipped: str, student: str) -> None:
    before = yaml.safe_load(shipped)
    text = with_values(shipped, student, {"architecture": NEW})
    losses = before["students"][student]["train"] | {"losses": {"pixel": 1.0, "chroma": 0.25}}
    text = with_values(text, student, {"train": losses})
    after = yaml.safe_load(text)
    assert after["students"][student] == before["students"][student] | {"architecture": NEW, "train": losses}
    other = "sketch" if student == "oil" else "oil"
    assert after["students"][other] == before["students"][other]
    assert comments(text) == comments(shipped)
    assert parse_params(after).student(student).architecture.encoder == NEW["encoder"]
    assert with_values(text, student, {"architecture": NEW}) == text


def test_a_block_of_its_own_is_changed(shipped: str) -> None:
    plain = shipped.replace("architecture: &architecture", "architecture:   # mine").replace(
        "architecture: *architecture", f"architecture: {yaml.safe_dump(NEW, default_flow_style=True, width=999)}"
    )
    changed = with_values(plain, "oil", {"architecture": NEW})
    assert yaml.safe_load(changed)["students"]["oil"]["architecture"] == NEW
    assert "# further sizes" in changed


def test_what_is_shared_by_a_merge_is_refused(shipped: str) -> None:
    merged = shipped.replace("  oil:\n", "  oil: &oil\n")
    block = merged[merged.index("  sketch:\n") :]
    merged = merged.replace(block, "  sketch: {<<: *oil}\n")
    with pytest.raises(UserError, match="architecture comes from a merge"):
        with_values(merged, "sketch", {"architecture": NEW})
    alias = merged.replace("{<<: *oil}", "*oil")
    with pytest.raises(UserError, match="lies in a part that others share"):
        with_values(alias, "sketch", {"architecture": NEW})


def test_an_invalid_value_is_not_written(shipped: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(shipped)
    wrong: dict[str, Any] = {**NEW, "skip": "multiply"}
    with pytest.raises(UserError, match=r"students\.oil\.architecture\.skip"):
        write_params("oil", {"architecture": wrong})
    assert (tmp_path / "params.yaml").read_text() == shipped


def lines_changed(old: str, new: str) -> list[str]:
    return [line for line in new.splitlines() if line not in old.splitlines()]


@pytest.mark.parametrize("teacher", [PINNED, ONNX, SEVERAL])
@pytest.mark.parametrize("student", ["oil", "sketch"])
def test_one_line_of_the_shipped_file_changes(shipped: str, student: str, teacher: dict[str, Any]) -> None:
    text = "# Grüße vor dem Anfang \U0001f3a8\n" + shipped  # marks count characters, not bytes
    new = with_values(text, student, {"teacher": teacher})
    (line,) = lines_changed(text, new)
    assert line.startswith("    teacher: {kind: ")
    assert new.replace(line, "") == text.replace(next(old for old in text.splitlines() if old not in new), "")
    assert parse_params(yaml.safe_load(new)).student(student).teacher.model_dump() == teacher
    assert with_values(new, student, {"teacher": teacher}) == new
    before = load_params_of(text).student(student).teacher.model_dump()
    assert load_params_of(with_values(new, student, {"teacher": before})) == load_params_of(text)


def test_another_start_changes_one_line_too(shipped: str) -> None:
    new = with_values(shipped, "sketch", {"init": "models/start/champions/sketch"})
    assert lines_changed(shipped, new) == ["    init: models/start/champions/sketch"]
    assert load_params_of(new).student("sketch").init == "models/start/champions/sketch"
    assert load_params_of(new).student("oil") == load_params_of(shipped).student("oil")
    assert with_values(new, "sketch", {"init": "models/start/champions/sketch"}) == new


def load_params_of(text: str) -> Any:
    return parse_params(yaml.safe_load(text))


FLOW = "{kind: painter, name: oil-painter, version: 1, style: oil}"
SKETCH = "{kind: painter, name: sketch-painter, version: 1, style: sketch}"
BLOCK = "\n      kind: painter\n      name: oil-painter\n      version: 1\n      style: oil"


@pytest.mark.parametrize(
    "written",
    [
        BLOCK,
        BLOCK + "  # the first\n\n    # about the pairs",
        "  " + FLOW.replace(", ", ",\n         ") + "   # over lines",
        " &mine " + FLOW,
        """ {kind: painter, "name": 'oil-painter', version: 1, style: oil}""",
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_however_it_is_written(shipped: str, written: str, newline: str) -> None:
    before, after = shipped.split(f" {FLOW}")
    before, after, written = (part.replace("\n", newline) for part in (before, after, written))
    new = with_values(before + written + after, "oil", {"teacher": PINNED})
    assert new.startswith(before) and new.endswith(after)
    assert "# about the pairs" in new or "# about" not in written
    assert load_params_of(new).student("oil").teacher.model_dump() == PINNED


def test_a_pin_that_is_shared_is_changed_for_one_student(shipped: str) -> None:
    text = shipped.replace(f"teacher: {FLOW}", f"teacher: &t {FLOW}").replace(SKETCH, "*t")
    painter = load_params_of(shipped).student("oil").teacher
    for student, other in (("oil", "sketch"), ("sketch", "oil")):
        new = load_params_of(with_values(text, student, {"teacher": PINNED}))
        assert new.student(student).teacher.model_dump() == PINNED and new.student(other).teacher == painter


@pytest.mark.parametrize(("student", "told"), [("oil", "is part of what others share"), ("copy", "comes from a merge")])
def test_a_pin_in_a_block_that_is_shared_is_refused(shipped: str, student: str, told: str) -> None:
    copied = "  copy:\n    <<: *whole\n    approval: true\n  sketch:\n"
    text = shipped.replace("  oil:\n", "  oil: &whole\n").replace("  sketch:\n", copied)
    load_params_of(text)
    with pytest.raises(UserError, match=f"teacher {told}") as caught:
        with_values(text, student, {"teacher": PINNED})
    assert "\n" not in str(caught.value)


def test_what_cannot_be_a_pin_is_refused(shipped: str) -> None:
    with pytest.raises(UserError, match="no student 'water'"):
        with_values(shipped, "water", {"teacher": PINNED})
    with pytest.raises(UserError, match=r"unknown key students\.oil\.teacher\.color"):
        with_values(shipped, "oil", {"teacher": PINNED | {"color": "red"}})
    with pytest.raises(UserError, match="is not YAML"):
        with_values("a: [", "oil", {"teacher": PINNED})
