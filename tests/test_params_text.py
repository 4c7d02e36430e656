"""Sections of one student's block are replaced in the text of params.yaml; comments and other students stay."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from models.errors import UserError
from tasks.params import parse_params
from tasks.params_text import with_section, write_params

NEW = {"encoder": "patches2_8_16_32", "decoder_channels": [32, 8], "skip": "add", "upsample": "nearest"}
NEW["head"] = "pixel-shuffle"


@pytest.fixture
def shipped(repository: Path) -> str:
    return (repository / "params.yaml").read_text()


def comments(text: str) -> list[str]:
    return [line.partition("#")[2] for line in text.splitlines() if "#" in line]


@pytest.mark.parametrize("student", ["oil", "sketch"])  # oil has the anchors, sketch the aliases
def test_one_student_is_changed_and_nothing_else(shipped: str, student: str) -> None:
    before = yaml.safe_load(shipped)
    text = with_section(shipped, student, "architecture", NEW)
    losses = before["students"][student]["train"] | {"losses": {"pixel": 1.0, "chroma": 0.25}}
    text = with_section(text, student, "train", losses)
    after = yaml.safe_load(text)
    assert after["students"][student] == before["students"][student] | {"architecture": NEW, "train": losses}
    other = "sketch" if student == "oil" else "oil"
    assert after["students"][other] == before["students"][other]
    assert comments(text) == comments(shipped)
    assert parse_params(after).student(student).architecture.encoder == NEW["encoder"]
    assert with_section(text, student, "architecture", NEW) == text


def test_a_block_of_its_own_is_changed(shipped: str) -> None:
    plain = shipped.replace("architecture: &architecture", "architecture:   # mine").replace(
        "architecture: *architecture", f"architecture: {yaml.safe_dump(NEW, default_flow_style=True, width=999)}"
    )
    changed = with_section(plain, "oil", "architecture", NEW)
    assert yaml.safe_load(changed)["students"]["oil"]["architecture"] == NEW
    assert "# further sizes" in changed


def test_what_is_shared_by_a_merge_is_refused(shipped: str) -> None:
    merged = shipped.replace("  oil:\n", "  oil: &oil\n")
    block = merged[merged.index("  sketch:\n") :]
    merged = merged.replace(block, "  sketch: {<<: *oil}\n")
    with pytest.raises(UserError, match="architecture comes from a merge"):
        with_section(merged, "sketch", "architecture", NEW)
    alias = merged.replace("{<<: *oil}", "*oil")
    with pytest.raises(UserError, match="lies in a part that others share"):
        with_section(alias, "sketch", "architecture", NEW)


def test_an_invalid_value_is_not_written(shipped: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(shipped)
    wrong: dict[str, Any] = {**NEW, "skip": "multiply"}
    with pytest.raises(UserError, match=r"students\.oil\.architecture\.skip"):
        write_params("oil", {"architecture": wrong})
    assert (tmp_path / "params.yaml").read_text() == shipped
