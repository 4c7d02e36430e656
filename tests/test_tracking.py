"""What MLflow shows of a run, against a real server on loopback with SQLite."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from processes import gone
from servers import running
from toy_pipeline import write_bundle

from models.errors import TryAgain, UserError
from tasks import lineage, mlflow_client, retrain, tracking
from tasks.audit import StudentState
from tasks.bumps import Job
from tasks.facts import FACTS, flat_params, numbers
from tasks.files import write_json
from tasks.gate import Decision
from tasks.params import load_params
from tasks.pipeline import STAGES
from tasks.tracking import COMPARED, CURVES, PARAMS

pytestmark = pytest.mark.server


@pytest.fixture
def server(finished_toy: tuple[Path, str], free_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`make ui` over a finished toy, as the configured tracking server; yields a client."""
    from mlflow import MlflowClient

    url = f"http://127.0.0.1:{free_port}"
    with running([sys.executable, "-m", "tasks.ui", "--port", str(free_port)], health=f"{url}/health"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        yield MlflowClient(tracking_uri=url)


@pytest.fixture
def store(finished_toy: tuple[Path, str]) -> Any:
    """A client of the toy's own database, where no server runs."""
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=mlflow_client.tracking_uri())


def runs(client: Any, parent: str | None = None, experiment: str = "oil") -> list[Any]:
    """The parents, oldest first, or the children of one."""
    found = client.search_runs(
        [client.get_experiment_by_name(experiment).experiment_id], order_by=["attributes.start_time ASC"]
    )
    return [run for run in found if run.data.tags.get("mlflow.parentRunId") == parent]


def test_a_run_and_a_second_one_with_reused_stages(server: Any, repository: Path) -> None:
    (first,) = runs(server)
    children = {run.info.run_name: run for run in runs(server, first.info.run_id)}
    assert tuple(children) == STAGES
    assert {run.info.status for run in (first, *children.values())} == {"FINISHED"}
    assert {run.data.tags["stage.status"] for run in children.values()} == {"ran"}
    train = children["train"]
    assert train.data.params["train.steps"].isdigit()
    assert train.data.metrics["run/seconds"] >= 0
    assert train.data.metrics["train/losses.pixel"] == 0.5
    assert files(server, children["evaluate"], "report") == {"report/index.html"}
    assert {"bundle/manifest.json", "bundle/MODEL_CARD.md"} <= files(server, children["bundle"], "bundle")
    assert first.data.tags["gate"] == "passed"
    assert "| `min_explained_effect` |" in first.data.tags["mlflow.note.content"]

    # The second pipeline run, as the flow logs it when DVC had everything, over HTTP.
    draw_samples(Path("data/students/oil/report/images"))
    lineage.log_again("oil")
    second = runs(server)[1]
    for child in runs(server, second.info.run_id):
        assert child.data.tags["stage.status"] == "reused"
        assert child.data.tags["stage.reused_from"] == children[child.info.run_name].info.run_id
        assert child.data.tags["stage.digest"] == children[child.info.run_name].data.tags["stage.digest"]
    assert second.data.tags["weights.sha256"] == first.data.tags["weights.sha256"]
    assert second.data.metrics == first.data.metrics
    for run in (first, second):
        check_what_is_compared(server, run, children)
    assert files(server, first) == set()  # the toy draws nothing
    assert files(server, second) == {"images", "report"}
    assert files(server, second, "report") == {"report/samples.png"}
    assert pictures(server, second) == {
        f"samples/{band}.{panel}" for band in ("best", "median", "worst") for panel in ("input", "teacher", "student")
    }
    assert second.data.tags["mlflow.loggedImages"] == "True"  # else the pages do not look for pictures
    check_tags(repository, [first, second], [*children.values()])
    check_metrics(repository, [first, second], [*children.values()])


def draw_samples(images: Path) -> None:
    """The pictures that a report has and the toy's lacks."""
    from PIL import Image

    images.mkdir()
    Image.new("RGB", (300, 200)).save(images.parent / "samples.png")
    for band in ("best", "median", "worst"):
        for panel in ("input", "teacher", "student", "int8"):
            for number in (1, 2):
                Image.new("RGB", (64, 64), (number, 0, 0)).save(images / f"{band}-{number}-{panel}.png")


def files(client: Any, run: Any, folder: str | None = None) -> set[str]:
    return {file.path for file in client.list_artifacts(run.info.run_id, folder)}


def pictures(client: Any, run: Any) -> set[str]:
    """The keys of a run's pictures, as MLflow's pages read them from the file names."""
    names = [path.partition("/")[2].split("+") for path in files(client, run, "images")]
    assert all(name[1:4:2] == ["step", "timestamp"] for name in names)
    return {name[0].replace("~", "/") for name in names}


def check_what_is_compared(client: Any, run: Any, children: dict[str, Any]) -> None:
    """A pipeline run has its stages' figures under their names, the curves and the outer inputs."""
    assert run.data.metrics["quality/explained_effect"] == 0.7
    assert run.data.metrics["latency/int8.p90_ms"] == 6.0
    assert run.data.metrics["gate/passed"] == 1
    assert set(run.data.params) == set(PARAMS)
    everything = {key: value for child in children.values() for key, value in child.data.metrics.items()}
    assert run.data.metrics.items() <= everything.items()
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "train/loss")] == list(range(5))
    edges = {entry.dataset.name: entry.dataset.digest for entry in run.inputs.dataset_inputs}
    assert set(edges) == {"inputs", "teacher", "pairs", "init"}
    assert children["curate"].data.tags["stage.digest"].startswith(edges["pairs"])


def check_tags(repository: Path, parents: list[Any], children: list[Any]) -> None:
    schema = yaml.safe_load((repository / "mlflow" / "tags.yaml").read_text())
    known = {*schema["parent"], *schema["child"]}
    for run in (*parents, *children):
        names = {name for name in run.data.tags if not name.startswith("mlflow.")}
        assert {"file.*" if name.startswith("file.") else name for name in names} <= known


def check_metrics(repository: Path, parents: list[Any], children: list[Any]) -> None:
    """Every name is in mlflow/metrics.yaml, and what is listed as compared is what is logged with pipeline runs."""
    schema = yaml.safe_load((repository / "mlflow" / "metrics.yaml").read_text())
    listed = {*(name.replace(".", "/", 1) for name in COMPARED), *(f"train/{name}" for name in CURVES)}
    assert set(schema["compared"]) == listed
    for run in parents:
        assert set(run.data.metrics) <= listed
    known = [*map(re.escape, listed), *(re.escape(name).replace("NAME", ".+") for name in schema["stages"])]
    for run in children:
        for name in run.data.metrics:
            assert any(re.fullmatch(pattern, name) for pattern in known), name


def test_the_tags_of_a_registered_student_are_listed(finished_toy: tuple[Path, str], repository: Path) -> None:
    pin = load_params().student("oil").teacher.model_dump(exclude_none=True)
    digest = json.loads(Path("data/students/oil/raw/teacher.json").read_text())["digest"]
    job = Job(
        student="oil", key="k", base="HEAD", teacher=pin, digest=digest, pinned=digest, production="", why="a test"
    )
    decision = Decision(passed=True, quality=True, target=True, reason="good", results=(), skipped=())
    tags = retrain._tags(job, finished_toy[0], retrain.Judged(decision=decision, upon=StudentState()))
    listed = yaml.safe_load((repository / "mlflow" / "tags.yaml").read_text())["version"]
    assert {*tags, "git.commit", "branch", "key"} == set(listed)  # tasks.registry adds the key, settle the commit


def test_a_run_that_was_killed_does_not_stay_running(store: Any) -> None:
    experiment = store.get_experiment_by_name("oil").experiment_id
    dead = store.create_run(experiment, run_name="dead", tags={"workspace": tracking._workspace()})
    child = store.create_run(experiment, run_name="train", tags={"mlflow.parentRunId": dead.info.run_id})
    other = store.create_run(experiment, run_name="other", tags={"workspace": "elsewhere"})
    lineage.log_again("oil")
    assert store.get_run(dead.info.run_id).info.status == "KILLED"
    assert store.get_run(child.info.run_id).info.status == "KILLED"
    assert store.get_run(other.info.run_id).info.status == "RUNNING"


def test_an_interrupted_run_is_marked(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tracking, "_log_summary", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lineage.log_again("oil")
    assert runs(store)[-1].info.status == "KILLED"


def test_a_deleted_experiment_is_told(store: Any) -> None:
    store.delete_experiment(store.get_experiment_by_name("oil").experiment_id)
    with pytest.raises(UserError, match="restore it"):
        lineage.log_again("oil")


def test_no_server_is_one_line_within_seconds(
    finished_toy: tuple[Path, str], free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{free_port}")
    with pytest.raises(TryAgain, match="start the server") as caught:
        lineage.log_again("oil")
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_the_port_of_the_ui_is_taken(finished_toy: tuple[Path, str]) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "tasks.ui", "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr == f"ui: port {port} is taken: stop what uses it, or choose another: make ui PORT={port + 1}\n"


def test_two_processes_make_the_database_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from tasks.mlflow_client import check_server; print(check_server())"]
    two = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate(timeout=120)[0] for process in two]
    assert told == [f"MLflow answers at sqlite:///{tmp_path}/mlflow/mlflow.db\n"] * 2
    assert {path.name for path in (tmp_path / "mlflow").iterdir()} == {"mlflow.db", "mlflow.db.lock"}
    for process in two:
        assert gone(process.pid)


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("raw/shard-00000.safetensors", "raw: .*shard-00000.safetensors has sha256"),
        ("pairs/train.inputs.npy", "pairs: "),
        ("student/weights.safetensors", "student: "),
        ("exported/student.int8.tflite", "exported: "),
        ("bundle/student.int8.tflite", "bundle: "),
    ],
)
def test_a_changed_file_breaks_the_chain(finished_toy: tuple[Path, str], file: str, told: str) -> None:
    path = finished_toy[0] / "data" / "students" / "oil" / file
    path.write_bytes(path.read_bytes() + b"!")
    with pytest.raises(UserError, match=told):
        lineage.chain(Path("data/students/oil"), Path("data/inputs"))


def test_a_student_of_other_pairs_breaks_the_chain(finished_toy: tuple[Path, str]) -> None:
    folder = Path("data/students/oil")
    assert lineage.chain(folder, Path("data/inputs"))["gate"]["passed"]
    pairs = lineage.read_json(folder / "pairs" / "pairs.json")
    write_json(folder / "pairs" / "pairs.json", pairs | {"digest": "0" * 64})
    with pytest.raises(UserError, match="student names pairs"):
        lineage.chain(folder, Path("data/inputs"))
    shutil.rmtree(folder / "bundle")
    (folder / "bundle").mkdir()
    write_bundle(folder, folder / "bundle")
    with pytest.raises(UserError, match="run dvc repro"):
        lineage.chain(folder, Path("data/inputs"))


def test_lineage_holds_no_run_ids_and_is_the_same_every_time(finished_toy: tuple[Path, str]) -> None:
    recorded = lineage.read_json(Path("data/students/oil/lineage.json"))
    assert recorded == lineage.chain(Path("data/students/oil"), Path("data/inputs"))
    assert "run" not in " ".join(recorded)


def test_there_are_facts_of_every_stage(finished_toy: tuple[Path, str]) -> None:
    params = load_params()
    assert (*FACTS, "lineage") == STAGES
    for name, facts in FACTS.items():
        found = facts(params, "oil", params.student("oil"))
        assert found.stage == name
        assert all(isinstance(value, str) for value in flat_params(found.params).values())


def test_numbers_and_params_are_flat() -> None:
    assert numbers({"a": {"b": 1, "c": None, "d": True, "e": "x"}, "f": 2.5}) == {"a.b": 1.0, "f": 2.5}
    assert flat_params({"a": {"b": [1, 2]}, "c": "x", "d": None}) == {"a.b": "[1, 2]", "c": "x", "d": "null"}
