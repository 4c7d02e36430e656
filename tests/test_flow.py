"""The flow on a real Prefect server: prefect.yaml deployed, a scheduled run executed by a worker."""

import datetime
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from processes import wait_until
from servers import PREFECT, prefect_api, prefect_server, running

from flows.distil import TASKS
from tasks.pipeline import DATASET, LABEL_STAGES, STAGES

pytestmark = pytest.mark.server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """`prefect server start` on loopback, as the configured server; yields a client of its API."""
    with prefect_server(Path(os.environ["PREFECT_HOME"])) as url, prefect_api(url) as client:
        monkeypatch.setenv("PREFECT_API_URL", url)
        yield client


def deploy(folder: Path, repository: Path) -> None:
    """The repository's own prefect.yaml in the toy, with the next scheduled run seconds away."""
    (folder / "flows").symlink_to(repository / "flows")
    text = (repository / "prefect.yaml").read_text()
    wanted = yaml.safe_load(text)
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=20)
    anchor = soon - datetime.timedelta(days=1)
    wanted["deployments"] = [one for one in wanted["deployments"] if one["name"] == "distil"]
    wanted["deployments"][0]["schedules"] = [{"interval": 86400, "anchor_date": anchor.isoformat(), "slug": "soon"}]
    (folder / "prefect.yaml").write_text(yaml.safe_dump(wanted))
    pool = wanted["deployments"][0]["work_pool"]["name"]
    subprocess.run([*PREFECT, "work-pool", "create", pool, "--type", "process"], check=True, timeout=120)
    subprocess.run([*PREFECT, "deploy", "--all"], check=True, timeout=120)


def test_a_scheduled_run_executes(
    finished_toy: tuple[Path, str], server: httpx.Client, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finished_toy[0]
    (folder / "seed").write_text("7")
    deploy(folder, repository)
    monkeypatch.setenv("PREFECT_WORKER_QUERY_SECONDS", "1")

    def scheduled() -> list[dict[str, Any]]:
        # Other tests share the database; only a schedule makes runs like these.
        found: list[dict[str, Any]] = server.post("/flow_runs/filter", json={}).json()
        return [run for run in found if run["auto_scheduled"] and run["state_type"] != "SCHEDULED"]

    def finished() -> bool:
        states = [run["state_type"] for run in scheduled()]
        assert not {"FAILED", "CRASHED"} & set(states)
        return states == ["COMPLETED"]

    with running([*PREFECT, "worker", "start", "--pool", "understudy"]):
        wait_until(finished, timeout_s=150)
    (run,) = scheduled()
    assert run["name"] == "oil"
    of_run = {"flow_runs": {"id": {"any_": [run["id"]]}}}
    tasks = server.post("/task_runs/filter", json={**of_run, "sort": "EXPECTED_START_TIME_ASC"}).json()
    assert {task["state_type"] for task in tasks} == {"COMPLETED"}
    assert [task["name"].rpartition("-")[0] for task in tasks] == list(STAGES)
    (artifact,) = server.post("/artifacts/filter", json=of_run).json()
    assert artifact["key"] == "headline-oil"
    assert "explained effect 0.70" in artifact["data"]
    assert (
        (folder / "data" / "students" / "oil" / "student" / "weights.safetensors").read_text().startswith("weights 7 ")
    )


def test_the_stages_are_tasks_in_order() -> None:
    assert list(TASKS) == [STAGES[0], DATASET, *STAGES[1:]]
    assert all(task.name == name for name, task in TASKS.items()) and set(LABEL_STAGES) <= set(TASKS)
