"""Shipped digits that have gone through the stages up to the bundle, made once for all tests that look at them."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from made_once import made_once

from tasks.classification import benchmark, bundle, curate, evaluate, generate, quantise, train
from tasks.dataset import dataset
from tasks.params import Params, load_params

NAME, FOLDER = "digits", Path("data/students/digits")
LOSSES = [{"kind": "kd", "temperature": 4.0, "soft": 0.9}]


def settings(repository: Path, **change: Any) -> Params:
    """The shipped params with a short training; `change` by key of the classifier's block, joined by dots."""
    params = load_params(repository / "params.yaml")
    block = params.classifiers[NAME].model_dump()
    changes = {"train.steps": 60, "train.milestones": [], "pairs.views": 3, **change}
    for key, value in changes.items():
        place = block
        *path, last = key.split(".")
        for part in path:
            place = place[part]
        place[last] = value
    block["teacher"]["path"] = str(repository / block["teacher"]["path"])
    benchmark_settings = params.benchmark.model_copy(update={"warmup": 1, "runs": 5, "threads": [1]})
    made = type(params.classifiers[NAME]).model_validate(block)
    return params.model_copy(update={"classifiers": {NAME: made}, "benchmark": benchmark_settings})


def run(params: Params, *stages: Any) -> None:
    for stage in stages:
        getattr(stage, stage.__name__.rpartition(".")[2])(params, NAME, params.classifiers[NAME])


def made_digits(factory: pytest.TempPathFactory) -> Path:
    """A folder in which everything up to the bundle was made; nobody may change it."""

    def make(root: Path) -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(root)
            params = settings(Path(__file__).parent.parent)
            dataset(NAME, params.datasets[NAME].model_copy(update={"most": 300}))
            run(params, generate, curate, train, quantise, benchmark, evaluate, bundle)
        return ""

    return made_once(factory, "digits", make)[0]


def copy_digits(factory: pytest.TempPathFactory, folder: Path) -> None:
    """A copy of it in a folder, to spoil."""
    shutil.copytree(made_digits(factory) / "data", folder / "data")
