"""Classifiers of one student's pairs beside each other: at equal training, with their costs and the knee."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from digits import NAME, settings

from models.errors import UserError
from tasks import recipes as command
from tasks.classification import recipes
from tasks.classification.recipes import Asked, gain, knee, table
from tasks.classification.trained_apart import last_and_best
from tasks.files import read_json, write_jsonl
from tasks.params import load_params
from tasks.recipes import read_plan

PLAN: dict[str, dict[str, Any]] = {
    "plain": {"train.losses": [{"kind": "labels", "weight": 1.0}]},
    "kd": {"train.losses": [{"kind": "kd", "temperature": 4.0, "soft": 0.9}]},
    "narrow": {"architecture.widths": [4, 8, 16]},
}


def test_a_plan_is_followed_measured_and_not_done_twice(
    own_digits: Path,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    params = settings(repository)
    params = params.model_copy(update={"train": params.train.model_copy(update={"validate_every": 5})})
    monkeypatch.setattr(recipes, "load_params", lambda: params)
    asked = Asked(steps=20, seeds=[0, 1], workers=2, latency=True, examples=100)
    out = own_digits / "out"
    recipes.recipes(NAME, params.classifiers[NAME], out, PLAN, asked)
    found = read_json(out / "recipes.json")
    plain, kd, narrow = found["rows"]
    assert [row["recipe"] for row in found["rows"]] == list(PLAN) and found["seeds"] == [0, 1]
    assert plain["figure"] == "accuracy" and len(plain["values"]) == 2 and "gain" not in plain
    assert kd["gain"] == pytest.approx(kd["last"] - plain["last"], abs=1e-6)
    assert narrow["parameters"] < kd["parameters"] and narrow["mmac"] < 0.5 * kd["mmac"]
    assert all(row["int8_ms"] > 0 and row["int8_kib"] > 0 and 0 < row["int8"] <= 1 for row in found["rows"])
    assert any(row["front"] for row in found["rows"])
    shown = (out / "recipes.md").read_text()
    assert shown.count("\n") == 5 and "| plain |" in shown and "±" in shown and shown in capsys.readouterr().out
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in ("curves.png", "pareto.png"))

    apart = sorted(path for path in (Path("data/.work") / NAME / "apart").iterdir())
    assert len(apart) == 6
    before = [(path / "seconds.json").stat().st_mtime_ns for path in apart]
    recipes.recipes(NAME, params.classifiers[NAME], out, PLAN, replace(asked, latency=False))
    assert [(path / "seconds.json").stat().st_mtime_ns for path in apart] == before
    assert [row["values"] for row in read_json(out / "recipes.json")["rows"]] == [
        row["values"] for row in found["rows"]
    ]


def test_best_is_chosen_by_validation_and_told_of_the_test(tmp_path: Path) -> None:
    lines = [
        {"step": 5, "val_accuracy": 0.8, "test_accuracy": 0.7, "val_agreement": 0.5, "test_agreement": 0.5},
        {"step": 10, "val_accuracy": 0.9, "test_accuracy": 0.75, "val_agreement": 0.5, "test_agreement": 0.6},
        {"step": 15, "val_accuracy": 0.9, "test_accuracy": 0.85, "val_agreement": 0.5, "test_agreement": 0.7},
    ]
    write_jsonl(tmp_path / "tested.jsonl", lines)
    found = last_and_best(tmp_path)
    assert (found["accuracy"], found["best"], found["best_step"], found["figure"]) == (0.85, 0.75, 10, "accuracy")
    write_jsonl(tmp_path / "tested.jsonl", [{k: v for k, v in line.items() if "accuracy" not in k} for line in lines])
    assert last_and_best(tmp_path)["figure"] == "agreement"  # nothing is labelled


def test_a_gain_is_told_in_standard_errors_of_the_difference() -> None:
    plain, other = ({"last": last, "last_sd": sd, "seeds": 4} for last, sd in ((0.60, 0.03), (0.70, 0.04)))
    assert gain(plain, other) == {"gain": 0.1, "errors": 4.0}
    assert gain(plain | {"last_sd": None}, other | {"last_sd": None})["errors"] is None


def test_the_knee_is_where_quality_begins_to_cost() -> None:
    points = [(1.0, 0.5), (2.0, 0.8), (4.0, 0.85), (8.0, 0.87), (3.0, 0.6)]
    assert knee(points) == 1
    assert knee(points[:2]) is None  # two ends and nothing between
    assert knee([(1.0, 0.5), (2.0, 0.6), (4.0, 0.7)]) is None  # each doubling buys as much


def test_the_plans_that_ship_fit_a_classifier(repository: Path) -> None:
    from tasks.params import changed_student, parse_yaml

    block = load_params(repository / "params.yaml").classifiers["digits"]
    block = changed_student(block, {"pairs.pooled": True}, "test")
    plans = parse_yaml(recipes.PLANS.read_text())
    assert {"losses", "students", "born-again"} <= plans.keys()
    kinds = set()
    for plan in plans:
        for label, change in read_plan(recipes.PLANS, plan, ()).items():
            fits = changed_student(block, change, label)
            kinds |= {loss.kind for loss in fits.train.losses}
    assert kinds >= {"kd", "dkd", "dist", "fitnets", "attention", "sp", "vid", "relations", "crd", "mutual"}


def test_what_belongs_to_another_kind_is_one_line(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    asked = argparse.Namespace(
        plan="losses", student="digits", plans=None, only=[], steps=None, seeds=[0], latency=False, out=None
    )
    asked.library, asked.workers, asked.examples = True, 1, None
    with pytest.raises(UserError, match="--library: digits is no effect"):
        command.compare(asked)
    asked.library, asked.examples = False, 0
    with pytest.raises(UserError, match="--examples 0: there has to be one at least"):
        command.compare(asked)
    asked.student, asked.examples, asked.workers = "oil", None, 2
    with pytest.raises(UserError, match="--workers and --examples are of classifiers"):
        command.compare(asked)


def test_a_table_without_costs_has_no_columns_for_them() -> None:
    rows = [
        {"recipe": "plain", "figure": "accuracy", "seconds": [1.0], **dict.fromkeys(("last", "best", "agreement"), 0.5)}
    ]
    rows[0] |= dict.fromkeys(("last_sd", "best_sd", "agreement_sd"), None)
    assert "MMAC" not in table(rows) and "50.00" in table(rows)
