"""Pins in the text of params.yaml and in git: one value changes, and nothing else."""

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from models.errors import UserError
from tasks.params import load_params, parse_params
from tasks.pin import apply_profile, changed_pins, params_at, set_init, set_pin

NEW = {"kind": "painter", "name": "Öl-Maler, neu: #2", "version": 2, "style": "sketch"}
PART = {"teacher": {"kind": "painter", "name": "a", "version": 1, "style": "oil"}, "weight": 0.5}
PARTS = [PART | {"region": None, "mask": None}] * 2
SEVERAL = {"kind": "several", "name": "both", "version": 1, "by": "weight", "teachers": PARTS}
ONNX = {"kind": "onnx", "name": "udnie", "version": 3, "path": "a b/c.onnx", "sha256": "ab" * 32}


@pytest.fixture(scope="module")
def shipped(repository: Path) -> str:
    return (repository / "params.yaml").read_bytes().decode()


def lines_changed(old: str, new: str) -> list[str]:
    return [line for line in new.splitlines() if line not in old.splitlines()]


@pytest.mark.parametrize("teacher", [NEW, ONNX, SEVERAL])
@pytest.mark.parametrize("student", ["oil", "sketch"])
def test_one_line_of_the_shipped_file_changes(shipped: str, student: str, teacher: dict[str, Any]) -> None:
    text = "# Grüße vor dem Anfang \U0001f3a8\n" + shipped  # marks count characters, not bytes
    new = set_pin(text, student, teacher)
    (line,) = lines_changed(text, new)
    assert line.startswith("    teacher: {kind: ")
    assert new.replace(line, "") == text.replace(next(old for old in text.splitlines() if old not in new), "")
    assert parse_params(yaml.safe_load(new)).student(student).teacher.model_dump() == teacher
    assert set_pin(new, student, teacher) == new
    before = load_params_of(text).student(student).teacher.model_dump()
    assert load_params_of(set_pin(new, student, before)) == load_params_of(text)


def test_another_start_changes_one_line_too(shipped: str) -> None:
    new = set_init(shipped, "sketch", "models/start/champions/sketch")
    assert lines_changed(shipped, new) == ["    init: models/start/champions/sketch"]
    assert load_params_of(new).student("sketch").init == "models/start/champions/sketch"
    assert load_params_of(new).student("oil") == load_params_of(shipped).student("oil")
    assert set_init(new, "sketch", "models/start/champions/sketch") == new


def load_params_of(text: str) -> Any:
    return parse_params(yaml.safe_load(text))


FLOW = "{kind: painter, name: oil-painter, version: 1, style: oil}"
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
    new = set_pin(before + written + after, "oil", NEW)
    assert new.startswith(before) and new.endswith(after)
    assert "# about the pairs" in new or "# about" not in written
    assert load_params_of(new).student("oil").teacher.model_dump() == NEW


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (f"teacher: {FLOW}", f"teacher: &t {FLOW}"),
        ("  sketch:\n", f"  copy: &copy\n    <<: *whole\n    approval: true\n  sketch:\n    teacher: {FLOW}\n"),
    ],
)
def test_a_teacher_that_is_shared_is_refused(shipped: str, old: str, new: str) -> None:
    sketch = "{kind: painter, name: sketch-painter, version: 1, style: sketch}"
    text = shipped.replace(old, new)
    text = text.replace(sketch, "*t") if "&t" in new else text.replace("  oil:\n", "  oil: &whole\n")
    load_params_of(text)
    for student in ("oil", "sketch") if "&t" in new else ("oil", "copy"):
        with pytest.raises(UserError, match=f"the teacher of {student} comes from an anchor") as caught:
            set_pin(text, student, NEW)
        assert "\n" not in str(caught.value)


def test_what_cannot_be_a_pin_is_refused(shipped: str) -> None:
    with pytest.raises(UserError, match="no student 'water'"):
        set_pin(shipped, "water", NEW)
    with pytest.raises(UserError, match=r"unknown key students\.oil\.teacher\.color"):
        set_pin(shipped, "oil", NEW | {"color": "red"})
    with pytest.raises(UserError, match="is not YAML"):
        set_pin("a: [", "oil", NEW)


def test_a_profile_changes_its_student_alone(shipped: str) -> None:
    raw = yaml.safe_load(shipped)
    assert raw["students"]["oil"]["train"] is raw["students"]["sketch"]["train"]
    small = apply_profile(raw, "oil", "small")
    assert small["students"]["oil"]["train"]["steps"] == raw["profiles"]["small"]["train.steps"]
    assert small["students"]["sketch"] == raw["students"]["sketch"] == yaml.safe_load(shipped)["students"]["sketch"]
    assert raw == yaml.safe_load(shipped)
    with pytest.raises(UserError, match="no profile 'tiny' in params.yaml; there are: small"):
        apply_profile(raw, "oil", "tiny")


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("train.stepz", 3, "unknown key train.stepz"),
        ("trane.steps", 3, "unknown key trane.steps"),
        ("init.steps", 3, "unknown key init.steps"),
        ("train.steps", 0, "train.steps: "),
        ("pairs.size", 64, "train.crop 128 is larger than pairs.size 64"),
        ("teacher.version", 2, "teacher.version may not be changed"),
    ],
)
def test_a_profile_that_fits_no_student_is_refused_at_loading(shipped: str, key: str, value: Any, told: str) -> None:
    raw = yaml.safe_load(shipped)
    raw["profiles"]["small"] = {key: value}
    with pytest.raises(UserError) as caught:
        parse_params(raw)
    assert str(caught.value).startswith("params.yaml: profiles.small for student oil: ")
    assert told in str(caught.value)


def git(*args: str) -> None:
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *args], check=True, capture_output=True)


def test_pins_at_commits(shipped: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="this is no git repository"):
        params_at("HEAD")
    git("init", "-q")
    with pytest.raises(UserError, match="git knows no commit 'HEAD'"):
        params_at("HEAD")
    path = tmp_path / "params.yaml"
    old = set_pin(shipped, "oil", ONNX)
    versions = {
        "empty": None,
        "older": old.replace("    approval: false\n", ""),
        "first": old,
        "second": set_pin(old, "oil", NEW),
    }
    for tag, text in versions.items():
        if text is not None:
            path.write_text(text)
            git("add", "params.yaml")
        git("commit", "-q", "--allow-empty", "-m", tag)
        git("tag", tag)
    path.write_text("what is not committed does not count")
    assert params_at("first").student("oil").teacher.model_dump() == ONNX
    assert changed_pins("first", "second") == [("oil", ONNX, NEW)]
    assert changed_pins("older", "second") == [("oil", ONNX, NEW)]  # whose keys are not today's
    assert changed_pins("first", "first") == []
    assert [(name, before) for name, before, _ in changed_pins("empty", "first")] == [("oil", None), ("sketch", None)]
    for ref in ("nowhere", "--help", ""):
        with pytest.raises(UserError, match="git knows no commit"):
            changed_pins(ref, "first")
    with pytest.raises(UserError, match=r"params\.yaml"):
        params_at("empty")


def test_a_thousand_students_load_in_about_a_second(shipped: str, tmp_path: Path) -> None:
    head, sketch, tail = shipped.partition("  sketch:\n")
    path = tmp_path / "params.yaml"
    path.write_text(head + "".join(sketch.replace("sketch", f"s{number}") + tail for number in range(1000)))
    started = time.process_time()
    assert len(load_params(path).students) == 1001
    assert time.process_time() - started < 3  # 0.6 s on a free core
