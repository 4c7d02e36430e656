"""Variants of a trained student: which are best, and a whole run at its smallest."""

from pathlib import Path

import pytest
from test_train import write_repository

from models.errors import UserError
from tasks.files import read_json
from tasks.params import load_params
from tasks.pareto import front
from tasks.train import train
from tasks.variants import named, variants

ASKED = {"steps": 2, "rate": 0.3, "prunes": [0.0, 0.5], "energies": [1.0]}


def check_written(out: Path, what: str, rows: int) -> None:
    """Both pictures, the page and the table of a comparison, with so many rows."""
    for picture in (f"{what}.png", "samples.png"):
        assert (out / picture).read_bytes().startswith(b"\x89PNG")
    page = (out / "index.html").read_text()
    assert page.count("<tr") == 1 + rows and f'<img src="{what}.png"' in page
    assert (out / f"{what}.md").read_text().count("\n") == 2 + rows


def test_the_front_holds_what_nothing_beats_in_both() -> None:
    points = [(5.0, 0.7), (4.0, 0.7), (3.0, 0.6), (6.0, 0.65), (4.0, 0.7)]
    assert front(points) == [False, True, True, False, True]
    assert front([]) == []


def test_a_variant_is_named_by_what_is_cut() -> None:
    assert [named(0.0, 1.0), named(0.25, 1.0), named(0.5, 0.9)] == ["whole", "pruned 0.25", "pruned 0.5, rank 0.9"]


def test_a_student_that_is_cut_already_has_no_variants(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_repository(tmp_path, repository)
    monkeypatch.chdir(tmp_path)
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(
        text.replace("prune: 0.0", "prune: 0.5").replace("recovery_steps: 0", "recovery_steps: 1")
    )
    with pytest.raises(UserError, match="cut from a whole student"):
        variants("oil", tmp_path / "out", **ASKED)  # type: ignore[arg-type]


@pytest.mark.slow
def test_variants_of_a_tiny_student(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_repository(tmp_path, repository)
    monkeypatch.chdir(tmp_path)
    params = load_params()
    train(params, "oil", params.student("oil"))
    variants("oil", tmp_path / "out", **ASKED)  # type: ignore[arg-type]
    rows = read_json(tmp_path / "out" / "variants.json")["rows"]
    assert [(row["student"], row["precision"]) for row in rows] == [
        ("whole", "fp32"),
        ("whole", "int8"),
        ("pruned 0.5", "fp32"),
        ("pruned 0.5", "int8"),
    ]
    assert rows[2]["mmac"] < 0.6 * rows[0]["mmac"]
    assert rows[3]["bytes"] < rows[1]["bytes"]
    assert any(row["front"] for row in rows)
    check_written(tmp_path / "out", "variants", len(rows))

    made = {path: path.stat().st_mtime_ns for path in Path("data/.work/oil/variants").rglob("*.tflite")}
    variants("oil", tmp_path / "out", **ASKED)  # type: ignore[arg-type]
    assert {path: path.stat().st_mtime_ns for path in made} == made
