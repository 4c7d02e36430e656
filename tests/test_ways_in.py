"""The same bump by several ways at once, on real servers: exactly one retrain, begun soon after the first asked."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from processes import wait_until
from retrain_toy import kinds, log, make_git_toy, state, understudy
from servers import PREFECT, mlflow_server, prefect_api, prefect_server, running

pytestmark = [pytest.mark.server, pytest.mark.slow]  # several whole retrains


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path) -> Iterator[httpx.Client]:
    """The current folder is a git toy that nobody has taught yet; Prefect, its worker and MLflow serve it."""
    toy = make_git_toy(tmp_path, repository)
    monkeypatch.chdir(toy)
    (toy / "flows").symlink_to(repository / "flows")
    (toy / ".git" / "info" / "exclude").write_text("flows\nprefect.yaml\n")
    deployments = yaml.safe_load((repository / "prefect.yaml").read_text())
    for one in deployments["deployments"]:
        one.pop("schedules", None)  # the test asks; what the schedule does is the first of the ways
    (toy / "prefect.yaml").write_text(yaml.safe_dump(deployments))
    with prefect_server(tmp_path / "prefect") as url, mlflow_server(tmp_path / "mlflow") as tracking:
        monkeypatch.setenv("PREFECT_API_URL", url)
        monkeypatch.setenv("PREFECT_WORKER_QUERY_SECONDS", "2")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking)
        subprocess.run([*PREFECT, "work-pool", "create", "understudy", "--type", "process"], check=True, timeout=120)
        subprocess.run([*PREFECT, "deploy", "--all"], check=True, timeout=120)
        with (
            running([*PREFECT, "worker", "start", "--pool", "understudy"], env={"OMP_NUM_THREADS": "1"}),
            prefect_api(url) as client,
        ):
            yield client


def runs(api: httpx.Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.post("/flow_runs/filter", json={}).json()
    return [run for run in found if run["name"].startswith("retrain-") or run["deployment_id"]]


def tell(teacher: str) -> None:
    """An event as whoever promotes a teacher sends it."""
    code = "import sys; from flows.events import announce; announce(sys.argv[1], '1', source='test')"
    subprocess.run([sys.executable, "-c", code, teacher], check=True, timeout=60)


@pytest.mark.timeout(900)
def test_five_triggers_make_one_retrain(api: httpx.Client) -> None:
    asked = datetime.now(UTC)
    tell("oil-painter")
    understudy("request", "--via", "ci")
    tell("oil-painter")
    tell("another")  # whose students there are none of
    understudy("request", "--teacher", "oil-painter")
    told = understudy("retrain", "oil")

    def finished() -> bool:
        states = [run["state_type"] for run in runs(api)]
        assert not {"FAILED", "CRASHED"} & set(states)
        return len(states) >= 5 and set(states) == {"COMPLETED"}

    wait_until(finished, timeout_s=300)
    assert kinds() == ["started", "registered", "promoted"]
    assert state().champion == 1
    seconds = (datetime.fromisoformat(log()[0].at) - asked).total_seconds()
    print(f"the retrain began {seconds:.1f} s after the first event; by: {log()[0].via}; the person was told: {told!r}")
    assert log()[0].via in ("event", "ci", "person")
