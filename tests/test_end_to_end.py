"""The whole pipeline at its smallest, by the command a user runs: real stages, real converters, real MLflow."""

import json
from pathlib import Path

import pytest
import yaml
from whole_pipeline import understudy, whole

from tasks.files import read_json, sha256_file
from tasks.manifest import verify_bundle


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A copy of the repository in which `understudy run` has run, and what it printed."""
    return whole(tmp_path_factory)


def test_a_bundle_an_app_can_ship(made: tuple[Path, str]) -> None:
    bundle = made[0] / "data/students/oil/bundle"
    manifest = verify_bundle(bundle)
    assert {(entry.runtime, entry.precision) for entry in manifest.files} == {
        (runtime, precision) for runtime in ("litert", "onnx") for precision in ("fp32", "int8")
    }
    for entry in manifest.files:
        assert sha256_file(bundle / entry.file) == entry.sha256
        assert entry.latency
        assert entry.quality.psnr_db
    assert not manifest.gate.passed  # eight steps make no painter, and the gate says so


def test_the_report_and_the_lineage_speak_of_the_same_weights(made: tuple[Path, str]) -> None:
    student = made[0] / "data/students/oil"
    weights = sha256_file(student / "student/weights.safetensors")
    assert weights in (student / "report/index.html").read_text()
    assert weights in (student / "lineage.json").read_text()
    assert read_json(student / "report/quality.json")["test_samples"] > 0


def test_mlflow_has_all_that_runs_are_compared_by(made: tuple[Path, str], repository: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{made[0]}/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("oil")
    assert experiment
    (run,) = client.search_runs([experiment.experiment_id], "tags.gate = 'failed' and tags.workspace LIKE '%'")
    listed = yaml.safe_load((repository / "mlflow/metrics.yaml").read_text())
    no_slice = {"quality/worst_slice"}  # of so few pictures
    assert set(run.data.metrics) == set(listed["compared"]) - no_slice
    names = {file.path.partition("/")[2].partition("+")[0] for file in client.list_artifacts(run.info.run_id, "images")}
    assert {name.replace("~", "/").replace("worst", "BAND") for name in names if "worst" in name} == set(
        listed["pictures"]
    )


def test_it_says_where_things_are(made: tuple[Path, str]) -> None:
    for part in ("report/index.html", "bundle"):
        assert f"data/students/oil/{part}" in made[1]
    assert made[1].count("  quality explained effect") == 1
    assert "make ui" in made[1]


def test_a_second_run_does_nothing_and_says_the_same(made: tuple[Path, str]) -> None:
    folder = made[0]
    before = {path: path.stat().st_mtime_ns for path in (folder / "data/students").rglob("*")}
    told = understudy(folder, "run")
    assert told.count("nothing to do") == 1
    assert told.splitlines()[-8:] == made[1].splitlines()[-8:]
    assert {path: path.stat().st_mtime_ns for path in (folder / "data/students").rglob("*")} == before


def with_a_second_student(toy: Path) -> None:
    """Let the toy's stages be those of two students."""
    params = yaml.safe_load((toy / "params.yaml").read_text())
    params["students"]["sketch"] = params["students"]["oil"]
    (toy / "params.yaml").write_text(yaml.safe_dump(params))
    stages = json.loads((toy / "dvc.yaml").read_text())["stages"]
    for name, entry in stages.items():
        if "do" in entry:
            text = json.dumps(entry["do"])
            for old in ("students/oil", f"{name} oil", "--student oil"):
                text = text.replace(old, old.replace("oil", "${key}"))
            students = entry["foreach"] if "${item" in text else {"oil": 1, "sketch": 1}
            stages[name] = {"foreach": students, "do": json.loads(text)}
    (toy / "dvc.yaml").write_text(json.dumps({"stages": stages}))


def test_all_students_one_after_the_other(toy: Path) -> None:
    with_a_second_student(toy)
    told = understudy(toy, "run", "--all")
    for name in ("oil", "sketch"):
        assert f"data/students/{name}/report/index.html" in told
        assert (toy / "data/students" / name / "lineage.json").exists()
    assert told.count("  quality explained effect") == 2
    again = understudy(toy, "run", "--all")
    assert again.count("nothing to do") == 2
    assert again.splitlines()[-8:] == told.splitlines()[-8:]
