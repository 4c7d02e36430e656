"""The flow on a real Prefect server: prefect.yaml deployed, a scheduled run executed by a worker."""

import datetime
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from processes import answers, wait_until

from flows.distil import distil
from tasks.pipeline import STAGES

pytestmark = pytest.mark.server
PREFECT = [sys.executable, "-m", "prefect", "--no-prompt"]


@pytest.fixture
def server(free_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """`prefect server start` on loopback, as the configured server; yields a client of its API."""
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{free_port}/api")
    monkeypatch.setenv("PREFECT_SERVER_UI_ENABLED", "false")
    monkeypatch.setenv("PREFECT_SERVER_DEPLOYMENT_SCHEDULE_BUFFER_SECONDS", "0")
    start = [*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(free_port)]
    process = subprocess.Popen(start, process_group=0, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{free_port}/api/health"), timeout_s=120)
        with httpx.Client(base_url=f"http://127.0.0.1:{free_port}/api") as client:
            yield client
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def deploy(folder: Path, repository: Path) -> None:
    """The repository's own prefect.yaml in the toy, with the next scheduled run seconds away."""
    (folder / "flows").symlink_to(repository / "flows")
    text = (repository / "prefect.yaml").read_text()
    wanted = yaml.safe_load(text)
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=20)
    anchor = soon - datetime.timedelta(days=1)
    wanted["deployments"][0]["schedules"] = [{"interval": 86400, "anchor_date": anchor.isoformat(), "slug": "nightly"}]
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
    worker = subprocess.Popen([*PREFECT, "worker", "start", "--pool", "understudy"], process_group=0)

    def scheduled() -> list[dict[str, Any]]:
        # Other tests share the database; only a schedule makes runs like these.
        found: list[dict[str, Any]] = server.post("/flow_runs/filter", json={}).json()
        return [run for run in found if run["auto_scheduled"] and run["state_type"] != "SCHEDULED"]

    def finished() -> bool:
        states = [run["state_type"] for run in scheduled()]
        assert not {"FAILED", "CRASHED"} & set(states)
        return states == ["COMPLETED"]

    try:
        wait_until(finished, timeout_s=150)
    finally:
        stop(worker)
    (run,) = scheduled()
    assert run["name"] == "oil"
    of_run = {"flow_runs": {"id": {"any_": [run["id"]]}}}
    tasks = server.post("/task_runs/filter", json={**of_run, "sort": "EXPECTED_START_TIME_ASC"}).json()
    assert {task["state_type"] for task in tasks} == {"COMPLETED"}
    assert [task["name"].rpartition("-")[0] for task in tasks] == list(STAGES)
    (artifact,) = server.post("/artifacts/filter", json=of_run).json()
    assert artifact["key"] == "headline-oil"
    assert "explained effect 0.70" in artifact["data"]
    assert (folder / "data" / "students" / "oil" / "student" / "weights.safetensors").read_text() == "weights 7"


def test_the_stages_are_tasks_in_order() -> None:
    import ast
    import inspect

    calls = [
        node.args[0].func.id
        for node in ast.walk(ast.parse(inspect.getsource(distil.fn)))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "append"
        and isinstance(node.args[0], ast.Call)
        and isinstance(node.args[0].func, ast.Name)
    ]
    assert calls == list(STAGES)
