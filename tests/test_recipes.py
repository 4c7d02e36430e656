"""Recipes: plans are read or refused in one line, students compared on equal samples, a killed comparison goes on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from test_train import write_repository

from models.distribution import kid, pooled
from models.errors import UserError
from tasks.files import read_json
from tasks.recipes import PLANS, read_plan, recipes


@pytest.fixture
def here(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_repository(tmp_path, repository)
    pairs = tmp_path / "data/students/oil/pairs"
    inputs = np.load(pairs / "train.inputs.npy").repeat(2, axis=0)
    np.save(pairs / "test.inputs.npy", inputs)
    np.save(pairs / "test.targets.npy", 255 - inputs)
    monkeypatch.chdir(tmp_path)
    return tmp_path


PLAN: dict[str, dict[str, Any]] = {"default": {}, "plain L1": {"train.losses": {"l1": 1.0}}}


def test_recipes_are_compared_over_their_seeds(here: Path) -> None:
    out = here / "out"
    recipes("oil", out, PLAN, steps=10, seeds=[0, 1], latency=False)
    found = read_json(out / "recipes.json")
    default, plain = found["rows"]
    assert [default["recipe"], plain["recipe"]] == list(PLAN)
    assert default["seeds"] == 2 and default["explained_effect_sd"] > 0
    assert default["explained_effect"] != plain["explained_effect"]
    lines = (out / "recipes.md").read_text().splitlines()
    assert len(lines) == 4 and lines[2].startswith("| default | ") and "±" in lines[2]
    assert (out / "samples.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")

    # Again: nothing is trained twice, and the figures are the same but for what it took.
    before = {path: path.stat().st_mtime_ns for path in (here / "data/.work").rglob("weights.safetensors")}
    assert len(before) == 4
    sheet = (out / "samples.png").read_bytes()
    recipes("oil", out, PLAN, steps=10, seeds=[0, 1], latency=False, library=True)
    assert (out / "samples.png").read_bytes() != sheet
    assert {path: path.stat().st_mtime_ns for path in (here / "data/.work").rglob("weights.safetensors")} == before
    assert read_json(out / "recipes.json")["rows"] == found["rows"]


def test_the_shipped_plans_fit_the_shipped_students(repository: Path) -> None:
    from tasks.params import changed_student, load_params

    block = load_params(repository / "params.yaml").student("oil")
    for plan in yaml.safe_load(PLANS.read_text()):
        for name, change in read_plan(PLANS, plan, []).items():
            changed_student(block, change, name)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("losses: 3", "must be recipes by name"),
        ("other: {}", "no plan 'losses'; there are: other"),
        ("losses: {a: {}}", "losses has no 'b'; there are: a"),
        ("losses: [", "is not YAML"),
    ],
)
def test_a_wrong_plan_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "plans.yaml").write_text(text)
    with pytest.raises(UserError, match=says):
        read_plan(tmp_path / "plans.yaml", "losses", ["b"])


def test_a_wrong_change_names_the_recipe(here: Path) -> None:
    with pytest.raises(UserError, match=r"recipe one: unknown key train\.colour\.x"):
        recipes("oil", here / "out", {"one": {"train.colour.x": 1}}, steps=1, seeds=[0], latency=False)


def test_the_kid_of_one_seed_is_told_with_its_own_deviation(here: Path) -> None:
    recipes("oil", here / "out", {"default": {}}, steps=1, seeds=[0], latency=False)
    [row] = read_json(here / "out/recipes.json")["rows"]
    assert row["kid_sd"] is None and row["kid_own_sd"] > 0
    assert f"{row['kid']:.1f} ± {row['kid_own_sd']:.1f}" in (here / "out/recipes.md").read_text()


def test_kid_is_nothing_for_two_draws_of_one_kind_and_much_for_another() -> None:
    generator = torch.Generator().manual_seed(0)
    coarse, other = (torch.rand(24, 3, 8, 8, generator=generator) for _ in range(2))
    one, two = (pooled([torch.nn.functional.interpolate(x, size=32)]) for x in (coarse, other))
    fine = pooled([torch.rand(24, 3, 32, 32, generator=generator)])
    same, deviation = kid(two, one)
    apart, _ = kid(fine, one)
    assert abs(same) < 3 * deviation
    assert apart > 10 * abs(same)
    assert kid(fine, one) == kid(fine, one)  # subsets by seed, not by chance
    with pytest.raises(UserError, match="at least 8"):
        kid(fine[:6], one[:6])
