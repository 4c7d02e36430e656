"""Architectures beside each other: which there are, what is refused, and a whole comparison at its smallest."""

from pathlib import Path

import pytest
from test_train import write_repository
from test_variants import check_written

from models.errors import UserError
from tasks.architectures import CANDIDATES, architectures, read_candidates
from tasks.bench_device import REFERENCE
from tasks.files import read_json
from tasks.params import load_params
from tasks.pareto import FORMS
from tasks.student_params import Architecture

TINY = {"encoder": "patches4_8_16", "decoder_channels": [8], "skip": "add", "upsample": "bilinear"}


def test_the_shipped_ones_hold_the_default_and_the_reference(repository: Path) -> None:
    found = read_candidates(CANDIDATES, [])
    block = next(iter(load_params(repository / "params.yaml").students.values()))
    assert found["default"] == block.architecture
    assert found["reference"].model_dump() == REFERENCE
    assert list(read_candidates(CANDIDATES, ["default"])) == ["default"]


@pytest.mark.parametrize(
    ("text", "only", "says"),
    [
        ("one: [", [], "cannot be read"),
        ("- a", [], "holds no architectures"),
        ("one: {encoder: x}", ["two"], "has no 'two'; there are: one"),
        ("one: {encoder: x}", [], "one: decoder_channels: Field required"),
    ],
)
def test_a_file_that_holds_none_is_refused(tmp_path: Path, text: str, only: list[str], says: str) -> None:
    path = tmp_path / "architectures.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=says):
        read_candidates(path, only)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_candidates(tmp_path / "none.yaml", [])


@pytest.mark.slow  # two conversions to LiteRT for each student
def test_two_tiny_ones_with_two_seeds(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_repository(tmp_path, repository)
    monkeypatch.chdir(tmp_path)
    both = {
        "early": Architecture.model_validate(TINY | {"head": "pixel-shuffle"}),
        "wide": Architecture.model_validate(
            TINY | {"encoder": "patches4_16_32", "decoder_channels": [16], "head": "pixel-shuffle"}
        ),
    }
    architectures("oil", tmp_path / "out", both, steps=2, seeds=[0, 1])
    told = read_json(tmp_path / "out" / "architectures.json")
    rows = told["rows"]
    assert [(row["student"], row["precision"]) for row in rows] == [
        ("early", "fp32"),
        ("early", "int8"),
        ("wide", "fp32"),
        ("wide", "int8"),
    ]
    assert all(row["seeds"] == 2 and row["explained_effect_sd"] > 0 for row in rows)
    assert rows[0]["mmac"] < rows[2]["mmac"] and all(row[form] > 0 for row in rows for form in FORMS)
    assert told["architectures"]["early"]["encoder"] == "patches4_8_16"
    check_written(tmp_path / "out", "architectures", len(rows))

    made = {path: path.stat().st_mtime_ns for path in Path("data/.work/oil/apart").rglob("*.tflite")}
    assert len(made) == 8
    architectures("oil", tmp_path / "out", both, steps=2, seeds=[0, 1])
    assert {path: path.stat().st_mtime_ns for path in made} == made
