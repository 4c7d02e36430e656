"""Classifiers on other targets than this machine: a board behind a real sshd, and a real browser."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_text_classification as of_texts
from digits import NAME, settings
from test_target_browser import browser  # noqa: F401 (a fixture)
from test_target_ssh import target, there  # noqa: F401 (fixtures)
from test_text_classification import made as texts  # noqa: F401 (a fixture)

from tasks import target_parity
from tasks.classification import benchmark
from tasks.files import read_json
from tasks.params import Params
from tasks.target_parity import beyond


def measured(params: Params, name: str, where: str) -> dict[str, Any]:
    """benchmark.json of a classifier on one target."""
    changed = params.benchmark.model_copy(update={"targets": [where]})
    benchmark.benchmark(params.model_copy(update={"benchmark": changed}), name, params.classifiers[name])
    found: dict[str, Any] = read_json(Path("data/students") / name / "benchmark/benchmark.json")
    return found


def test_a_board_times_a_classifier_and_says_the_same(
    own_digits: Path,
    target: str,  # noqa: F811
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = measured(settings(repository), NAME, target)
    assert found["targets"][0]["not_measured"] == {}
    rows = {one["file"]: one for one in found["files"]}
    assert {"student.fp32.tflite", "student.int8.tflite", "student.fp32.onnx", "student.int8.onnx"} <= set(rows)
    for one in rows.values():
        assert one["p50_ms"] > 0 and one["parity"] == {"max_abs": 0.0, "max_relative": 0.0, "agreement": 1.0}


def test_a_board_times_a_classifier_of_texts(
    texts: Path,  # noqa: F811
    target: str,  # noqa: F811
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(texts)
    found = measured(of_texts.settings(repository), of_texts.NAME, target)
    assert found["targets"][0]["not_measured"] == {} and len(found["files"]) >= 4
    assert all(one["p50_ms"] > 0 and one["parity"] is None for one in found["files"])


@pytest.mark.usefixtures("browser")
def test_a_browser_times_a_classifier_and_says_the_same(
    own_digits: Path,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = measured(settings(repository), NAME, "browser")
    assert "failed" not in found["targets"][0], found["targets"][0]
    rows = {one["file"]: one for one in found["files"] if one["provider"] == "wasm"}
    assert rows["student.fp32.onnx"]["p50_ms"] > 0
    parity = rows["student.fp32.onnx"]["parity"]
    assert parity["agreement"] == 1 and parity["max_relative"] < 1e-3 and parity["litert"]["agreement"] == 1


def test_texts_are_not_timed_in_a_browser(
    texts: Path,  # noqa: F811
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(texts)
    [told] = measured(of_texts.settings(repository), of_texts.NAME, "browser")["targets"]
    assert told == {"target": "browser", "failed": "text classifiers are not timed in a browser so far"}


def test_logits_that_are_none_or_others_are_told(
    own_digits: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from models.errors import UserError
    from tasks.benchmark import job_of
    from tasks.params import load_params

    params = load_params(Path(__file__).parent.parent / "params.yaml")
    pictures = benchmark.validation_pictures(NAME)
    job = job_of(Path("data/students") / NAME, params.benchmark, pictures, frames=0)
    record = next(one for one in job.files if one["file"] == "student.fp32.onnx")
    with pytest.raises(UserError, match=r"gave no logits there \(wanted \[4, 10\] of float32, finite\)"):
        target_parity.parity_here(job, record, np.zeros((4, 3), np.float32))
    found = target_parity.parity_here(job, record, np.zeros((4, 10), np.float32))
    assert "its outputs differ from LiteRT's by up to" in beyond("fp32", found, "LiteRT's")
    assert beyond("int8", {"agreement": 0.25}, "LiteRT's") == "it says LiteRT's class of 25% of the pictures only"
    assert beyond("int8", {"agreement": 0.75}, "LiteRT's") == ""
