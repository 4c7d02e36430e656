"""What MLflow is told of a classifier's evaluation: every name is listed, and what is not known is no metric."""

import re
from pathlib import Path

import yaml
from label_results import FILES, PHONE, digits

from tasks.classification.facts import evaluate_figures
from tasks.classification.phone import student_evidence
from tasks.classification.quality import measure_all, summarise
from tasks.facts import file_names, numbers
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
