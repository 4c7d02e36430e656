"""What MLflow is told of a classifier's evaluation: every name is listed, and what is not known is no metric."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from label_results import BENCHMARK, FILES, PHONE, digits

from tasks.classification.facts import FACTS, evaluate_figures
from tasks.classification.phone import student_evidence
from tasks.classification.quality import measure_all, summarise
from tasks.facts import file_names, numbers
from tasks.files import write_json, write_jsonl
from tasks.params import load_params
from tasks.pipeline import LABEL_STAGES
from tasks.tracking import COMPARED, CURVES, LABEL_CURVES, LABELS_COMPARED


def told(labelled: bool) -> dict[str, float]:
    work, models = digits(labelled)
    found = measure_all(models, work)
    quality = summarise(found, work, student_evidence(work, found).to_json())
    return numbers(evaluate_figures(quality, file_names(FILES)))


def test_every_figure_is_listed(repository: Path) -> None:
    schema = yaml.safe_load((repository / "mlflow" / "metrics.yaml").read_text())
    listed = {*(name.replace(".", "/", 1) for name in LABELS_COMPARED), *(f"train/{name}" for name in LABEL_CURVES)}
    assert set(schema["labels_compared"]) == listed
    known = [*map(re.escape, listed), *(re.escape(name).replace("NAME", ".+") for name in schema["stages"])]
    for name in told(labelled=True):
        assert any(re.fullmatch(pattern, name.replace(".", "/", 1)) for pattern in known), name


def test_what_is_compared_is_there_and_of_the_file_a_phone_runs() -> None:
    found = told(labelled=True)
    assert set(LABELS_COMPARED) <= set(found)
    assert not set(LABELS_COMPARED) & set(COMPARED) and not set(LABEL_CURVES) & set(CURVES)
    assert found["quality.accuracy_low"] < found["quality.accuracy"]
    assert found["quality.fp32.accuracy"] == found["quality.torch.accuracy"]
    assert file_names(FILES)[PHONE] == "int8" and "quality.int8.accuracy" not in found


def test_without_labels_nothing_is_made_up() -> None:
    found = told(labelled=False)
    assert set(found) & set(LABELS_COMPARED) == {"quality.agreement", "quality.divergence"}
    assert found["to_float.int8.flipped"] > 0


def test_every_stage_of_a_classifier_is_told(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    params = load_params(repository / "params.yaml")
    block = params.classifiers["digits"]
    monkeypatch.chdir(tmp_path)
    made = write_outputs(tmp_path / "data/students/digits")
    write_json(
        tmp_path / "data/datasets/digits/dataset.json",
        {"digest": "d" * 64, "counts": {"train": 9, "val": 3, "test": 360}, "classes": list(made["classes"])},
    )
    told = {stage: FACTS[stage](params, "digits", block) for stage in FACTS if stage != "bundle"}
    assert [*told, "bundle", "lineage"] == list(LABEL_STAGES)
    assert all(facts.stage == stage and len(facts.digest) == 64 for stage, facts in told.items())
    figures = {key: value for facts in told.values() for key, value in numbers(facts.figures).items()}
    assert figures["quality.accuracy"] == made["files"][PHONE]["accuracy"] and figures["latency.int8.p50_ms"] == 0.14
    assert figures["size.int8.bytes"] == 95_000 and figures["pairs.train"] == 9 and figures["inputs.classes"] == 10
    schema = yaml.safe_load((repository / "mlflow" / "metrics.yaml").read_text())
    names = [*schema["compared"], *schema["labels_compared"], *schema["stages"]]
    known = [re.escape(name).replace("NAME", ".+") for name in names]
    for name in figures:
        assert any(re.fullmatch(pattern, name.replace(".", "/", 1)) for pattern in known), name
    # Each names what it was made from by the digest under which the stage before is known.
    assert told["generate"].made_from["inputs"] == told["dataset"].digest
    assert told["curate"].made_from["raw"] == told["generate"].digest
    assert told["train"].made_from["pairs"] == told["curate"].digest == told["evaluate"].made_from["pairs"]
    assert told["quantise"].made_from["weights"] == told["train"].digest


def write_outputs(folder: Path) -> dict[str, Any]:
    """What the stages of a classifier leave as JSON; returns quality.json."""
    work, models = digits()
    found = measure_all(models, work)
    quality = summarise(found, work, student_evidence(work, found).to_json())
    counts = {"train": 9, "val": 3, "test": 360}
    write_json(folder / "raw" / "teacher.json", {"name": "two", "version": 1, "digest": "b" * 64})
    write_json(folder / "raw" / "answers.json", {"dataset": "d" * 64, "teacher": "b" * 64, "digest": "e" * 64})
    write_json(folder / "pairs" / "pairs.json", {"digest": "a" * 64, "counts": counts})
    write_json(folder / "pairs" / "yield.json", {"train": {"pairs": 10, "kept": 9, "conflict": 1}})
    student = {"weights_sha256": "c" * 64, "pairs": "a" * 64, "init": "scratch", "parameters": 77_450}
    write_json(folder / "student" / "student.json", student)
    write_jsonl(folder / "student" / "curve.jsonl", [{"step": 1, "loss": 1.0}])
    write_json(folder / "exported" / "exported.json", {"student": "c" * 64, "files": FILES})
    write_json(folder / "benchmark" / "benchmark.json", BENCHMARK)
    write_json(folder / "report" / "quality.json", quality)
    return quality
