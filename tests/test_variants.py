"""Variants of a trained student: which are best, and a whole run at its smallest."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_train import write_repository

from models.errors import UserError
from models.students import load_student
from tasks.files import read_json, read_jsonl
from tasks.params import load_params
from tasks.pareto import export_beside, front
from tasks.train import train
from tasks.training_params import Compress
from tasks.variants import make as make_variant
from tasks.variants import named, variants

OUT = Path("data/students/oil/variants")


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
    change_block(compress={"prune": 0.5, "recovery_steps": 1}, variants={"steps": 2})
    with pytest.raises(UserError, match=r"variants\.steps: a whole student is compared"):
        load_params()


def test_none_are_made_where_none_are_asked_for(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_repository(tmp_path, repository)
    monkeypatch.chdir(tmp_path)
    make()
    assert [path.name for path in OUT.iterdir()] == ["variants.json"]
    assert read_json(OUT / "variants.json") == {"student": "oil", "steps": 0, "rows": []}


def test_a_student_that_began_factorised_stays_so(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_repository(tmp_path, repository, steps=2)
    monkeypatch.chdir(tmp_path)
    student = Path("data/students/oil/student")
    change_block(compress={"low_rank": 0.5, "recovery_steps": 1})
    train(load_params(), "oil", load_params().student("oil"))
    shutil.copytree(student, "small")
    ranks = read_json(student / "student.json")["ranks"]
    assert ranks
    block = load_params().student("oil")
    whole = Compress(prune=0.0, low_rank=1.0, recovery_steps=1, recovery_rate=0.3)
    block = block.model_copy(update={"init": "small", "compress": whole})
    train(load_params(), "oil", block)
    assert read_json(student / "student.json")["ranks"] == ranks

    for compress in (whole, whole.model_copy(update={"prune": 0.5})):
        made = make_variant(load_params(), "oil", block.model_copy(update={"compress": compress}))
        assert read_json(made / "student/student.json")["ranks"] == ranks
        load_student(made / "student")


def test_files_are_exported_anew_where_the_settings_changed_or_it_was_cut_off(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Path] = []
    monkeypatch.setattr("tasks.quantise.export", lambda folder, *_, **__: seen.append(folder))
    params = load_params(repository / "params.yaml")
    finer = params.model_copy(update={"quantise": params.quantise.model_copy(update={"min_psnr_db": 50.0})})
    (tmp_path / "student").mkdir()
    for settings, times in ((params, 1), (params, 1), (finer, 2), (finer, 2), (params, 3)):
        export_beside(tmp_path / "student", tmp_path, settings)
        assert len(seen) == times

    def cut_off(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tasks.quantise.export", cut_off)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            export_beside(tmp_path / "student", tmp_path, finer)


def change_block(**changes: Any) -> None:
    raw = yaml.safe_load(Path("params.yaml").read_text())
    for key, value in changes.items():
        raw["students"]["oil"][key] |= value
    Path("params.yaml").write_text(yaml.safe_dump(raw))


def make() -> None:
    params = load_params()
    variants(params, "oil", params.student("oil"))


@pytest.mark.slow
def test_variants_of_a_tiny_student(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_repository(tmp_path, repository)
    monkeypatch.chdir(tmp_path)
    change_block(variants={"steps": 2, "prune": [0.0, 0.5], "low_rank": [1.0]}, quantise_aware={"steps": 2})
    params = load_params()
    train(params, "oil", params.student("oil"))
    make()
    rows = read_json(OUT / "variants.json")["rows"]
    assert [(row["student"], row["precision"]) for row in rows] == [
        ("whole", "fp32"),
        ("whole", "int8"),
        ("pruned 0.5", "fp32"),
        ("pruned 0.5", "int8"),
    ]
    assert rows[2]["mmac"] < 0.6 * rows[0]["mmac"]
    assert rows[3]["bytes"] < rows[1]["bytes"]
    assert any(row["front"] for row in rows)
    check_written(OUT, "variants", len(rows))
    kept = Path("data/.work/oil/variants")
    steps = [read_jsonl(path)[-1]["step"] for path in kept.glob("*/student/curve.jsonl")]
    assert steps == [4, 4]  # two after the cut, two rounded
    assert not list(kept.glob("*/*.safetensors"))

    made = {path: path.stat().st_mtime_ns for path in kept.rglob("*.tflite")}
    make()
    assert {path: path.stat().st_mtime_ns for path in made} == made
