"""Pins and params.yaml as they are at commits of git, and profiles of the latter."""

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from models.errors import UserError
from tasks.params import load_params, parse_params
from tasks.params_text import with_values
from tasks.pin import apply_profile, changed_pins, params_at

NEW = {"kind": "painter", "name": "Öl-Maler, neu: #2", "version": 2, "style": "sketch"}
ONNX = {"kind": "onnx", "name": "udnie", "version": 3, "path": "a b/c.onnx", "sha256": "ab" * 32}


@pytest.fixture(scope="module")
def shipped(repository: Path) -> str:
    return (repository / "params.yaml").read_bytes().decode()


def test_a_profile_changes_its_student_alone(shipped: str) -> None:
    raw = yaml.safe_load(shipped)
    assert raw["students"]["oil"]["train"] is raw["students"]["sketch"]["train"]
    small = apply_profile(raw, "oil", "small")
    assert small["students"]["oil"]["train"]["steps"] == raw["profiles"]["small"]["students"]["train.steps"]
    assert small["students"]["sketch"] == raw["students"]["sketch"] == yaml.safe_load(shipped)["students"]["sketch"]
    assert raw == yaml.safe_load(shipped)
    with pytest.raises(UserError, match="no profile 'tiny' in params.yaml; there are: small"):
        apply_profile(raw, "oil", "tiny")


def test_a_profile_changes_classifiers_too(shipped: str) -> None:
    raw = yaml.safe_load(shipped)
    small = apply_profile(raw, "digits", "small")
    values = raw["profiles"]["small"]["classifiers"]
    assert (
        small["classifiers"]["digits"]["train"]["steps"]
        == values["train.steps"]
        < raw["classifiers"]["digits"]["train"]["steps"]
    )
    assert small["students"] == raw["students"]
    raw["profiles"]["small"]["classifiers"] = {"train.crop": 64}
    with pytest.raises(UserError, match=r"profiles\.small\.classifiers for digits: unknown key train\.crop"):
        parse_params(raw)


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
    raw["profiles"]["small"] = {"students": {key: value}}
    with pytest.raises(UserError) as caught:
        parse_params(raw)
    assert str(caught.value).startswith("params.yaml: profiles.small.students for oil: ")
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
    old = with_values(shipped, "oil", {"teacher": ONNX})
    versions = {
        "empty": None,
        "older": old.replace("    approval: false\n", ""),
        "first": old,
        "second": with_values(old, "oil", {"teacher": NEW}),
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
    told = [(name, before) for name, before, _ in changed_pins("empty", "first")]
    assert told == [("oil", None), ("sketch", None), ("digits", None)]
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
