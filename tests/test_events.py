"""The ways in on real servers: an event, or an alias moved in MLflow, starts the deployment of prefect.yaml.

One Prefect server with a password, one worker set as prefect.yaml says, one MLflow server; the flow is a stand-in that
notes when and with what it was started.
"""

import base64
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deliveries
import httpx
import pytest
import yaml
from deliveries import headers, moved, post
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from processes import wait_until
from servers import PREFECT, free_loopback_port, mlflow_server, prefect_api, prefect_server, running

from flows.events import announce
from models.errors import TryAgain, UserError
from tasks.webhooks import subscribe

pytestmark = pytest.mark.server
PASSWORD = "worker:a password for tests"
STAND_IN = """
import json, os, time
from pathlib import Path
from prefect import flow

@flow
def retrain(teacher: str = "", student: str = "", via: str = "schedule") -> None:
    note = Path("started", f".{os.getpid()}")
    note.write_text(json.dumps({"teacher": teacher, "via": via, "at": time.time()}))
    note.rename(note.with_name(note.name[1:]))

@flow
def drift(student: str = "") -> None: ...

@flow
def distil(student: str) -> None: ...
"""


@dataclass(frozen=True, slots=True)
class Place:
    """A checkout in miniature, deployed to a Prefect server that a worker asks for work."""

    folder: Path
    url: str
    api: httpx.Client

    def started(self) -> list[dict[str, Any]]:
        """What runs of the stand-in noted, the schedule's left out, oldest first."""
        found = [json.loads(path.read_text()) for path in (self.folder / "started").glob("[!.]*")]
        return sorted((note for note in found if note["via"] == "event"), key=lambda note: float(note["at"]))

    def told(self, **payload: str) -> list[dict[str, Any]]:
        """Events on the server whose payload has these values."""
        found = self.api.post("/events/filter", json={"filter": {"event": {"name": ["teacher.promoted"]}}}).json()
        return [one for one in found["events"] if payload.items() <= one["payload"].items()]

    def deploy(self) -> None:
        subprocess.run([*PREFECT, "deploy", "--all"], cwd=self.folder, check=True, timeout=120)

    def deployed(self) -> dict[str, Any]:
        """What a deployment leaves on the server."""
        automations = self.api.post("/automations/filter", json={}).json()
        deployments = self.api.post("/deployments/filter", json={}).json()
        return {
            "automations": [(one["name"], one["enabled"], one["actions"]) for one in automations],
            "deployments": {
                one["name"]: [(each["slug"], each["parameters"]) for each in one["schedules"]] for one in deployments
            },
        }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[Place]:
    """The servers, as the configured ones."""
    folder = tmp_path_factory.mktemp("ways-in")
    (folder / "started").mkdir()
    (folder / "flows").mkdir()
    for name in ("retrain", "drift", "distil"):
        (folder / "flows" / f"{name}.py").write_text(STAND_IN)
    text = (repository / "prefect.yaml").read_text()
    (folder / "prefect.yaml").write_text(text)
    pool = yaml.safe_load(text)["deployments"][0]["work_pool"]["name"]
    with (
        ExitStack() as scope,
        pytest.MonkeyPatch.context() as patch,
        prefect_server(folder / "prefect", env={"PREFECT_SERVER_API_AUTH_STRING": PASSWORD}) as url,
        prefect_api(url, headers={"Authorization": basic(PASSWORD)}) as api,
    ):
        for name, value in (("PREFECT_API_URL", url), ("PREFECT_API_AUTH_STRING", PASSWORD)):
            patch.setenv(name, value)  # for the processes that are started
        scope.enter_context(temporary_settings({PREFECT_API_URL: url, PREFECT_API_AUTH_STRING: PASSWORD}))
        made = Place(folder, url, api)
        # As `prefect work-pool create` does, `--type` makes the pool where there is none.
        worker = [*PREFECT, "worker", "start", "--pool", pool, "--type", "process"]
        with running(worker, env={"PREFECT_WORKER_QUERY_SECONDS": "2"}, cwd=folder):
            wait_until(lambda: [each["status"] for each in workers(api, pool)] == ["ONLINE"], timeout_s=120)
            made.deploy()
            yield made


def workers(api: httpx.Client, pool: str) -> list[dict[str, Any]]:
    answer = api.post(f"/work_pools/{pool}/workers/filter", json={})
    return list(answer.json()) if answer.is_success else []


@pytest.fixture
def no_runs(place: Place) -> Iterator[None]:
    """Events start nothing meanwhile: a run takes seconds of processor time."""
    (automation,) = place.api.post("/automations/filter", json={}).json()
    for enabled in (False, True):
        place.api.patch(f"/automations/{automation['id']}", json={"enabled": enabled}).raise_for_status()
        if not enabled:
            yield


def basic(password: str) -> str:
    return f"Basic {base64.b64encode(password.encode()).decode()}"


@pytest.fixture(scope="module")
def receiver(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A receiver that tells this server: its address, and the folder in which it runs."""
    folder = tmp_path_factory.mktemp("receiver")
    with deliveries.receiver(folder, prefect=place.url) as url:
        yield url, folder


def test_an_event_starts_a_retrain_within_20_s(place: Place) -> None:
    known, at = len(place.started()), time.time()
    announce("oil", "1", source="test")
    wait_until(lambda: len(place.started()) > known, timeout_s=150)
    note = place.started()[-1]
    assert (note["teacher"], note["via"]) == ("oil", "event")
    took, waiting = note["at"] - at, max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    print(f"from the event to the run: {took:.1f} s, with {waiting:.1f} processes waiting for each core")
    assert took <= 20 * waiting


def test_deploying_again_changes_nothing(place: Place) -> None:
    before = place.deployed()
    assert len(before["automations"]) == 1 and before["automations"][0][:2] == ("a teacher was promoted", True)
    assert before["deployments"] == {
        "retrain": [("reconcile", {"via": "schedule"})],
        "drift": [("daily", {})],
        "distil": [],
    }
    place.deploy()
    assert place.deployed() == before


@pytest.mark.usefixtures("no_runs")
def test_an_event_of_its_own_every_time(place: Place) -> None:
    announce("same", "7", source="a")
    announce("same", "7", source="a")
    wait_until(lambda: len(place.told(teacher="same")) == 2)
    one, two = place.told(teacher="same")
    assert one["id"] != two["id"]
    assert one["resource"] == {"prefect.resource.id": "understudy.teacher.same"}
    assert one["payload"] == {"teacher": "same", "version": "7", "source": "a"}


def test_where_no_event_can_go(place: Place) -> None:
    with temporary_settings({PREFECT_API_AUTH_STRING: "worker:wrong"}):
        with pytest.raises(UserError, match="answered 401.*PREFECT_API_AUTH_STRING") as refused:
            announce("oil", "1", source="test")
        assert not isinstance(refused.value, TryAgain) and "wrong" not in str(refused.value)
    elsewhere = place.url.removesuffix("/api") + "/elsewhere"
    with temporary_settings({PREFECT_API_URL: elsewhere}), pytest.raises(UserError, match="answered 40"):
        announce("oil", "1", source="test")
    down = f"http://me:hidden@127.0.0.1:{free_loopback_port()}/api"
    with temporary_settings({PREFECT_API_URL: down}):
        with pytest.raises(TryAgain, match="no Prefect server answers at http://127.0.0.1") as caught:
            announce("oil", "1", source="test")
        assert "\n" not in str(caught.value) and "hidden" not in str(caught.value)
    with temporary_settings({PREFECT_API_URL: ""}), pytest.raises(UserError, match="PREFECT_API_URL is not set"):
        announce("oil", "1", source="test")


@pytest.mark.usefixtures("no_runs")
def test_a_delivery_is_taken_once_when_prefect_has_it(place: Place, receiver: tuple[str, Path]) -> None:
    url, folder = receiver
    body = moved(name="teacher.twice")
    given = headers(body)
    with deliveries.receiver(folder, prefect=f"http://127.0.0.1:{free_loopback_port()}/api") as cut_off:
        assert post(cut_off, body, given)[0] == 503
        assert post(url, body, given) == (202, "told Prefect that teacher twice version 2 was promoted\n")
        assert post(url, body, given) == (409, "this delivery was taken before\n")
        assert post(cut_off, body, given)[0] == 409  # another process: what is seen is on disk
    assert post(url, body, headers(body))[0] == 202  # another delivery of the same news
    wait_until(lambda: len(place.told(teacher="twice", source="webhook")) == 2)


def test_an_alias_in_mlflow_starts_a_retrain(
    place: Place, receiver: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cryptography.fernet import Fernet

    from mlflow import MlflowClient

    server = {
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": Fernet.generate_key().decode(),
        "MLFLOW_WEBHOOK_REQUEST_MAX_RETRIES": "0",
    }
    monkeypatch.setenv("UNDERSTUDY_WEBHOOK_SECRET", deliveries.SECRET)
    with mlflow_server(tmp_path / "mlflow", env=server) as mlflow:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow)
        client, url = MlflowClient(mlflow), receiver[0]
        for _ in range(2):
            assert subscribe(url) == f"MLflow calls {url} when an alias moves"
        assert [(hook.url, hook.name) for hook in client.list_webhooks()] == [(url, "understudy")]
        for name in ("student.oil", "teacher.wet"):
            client.create_registered_model(name)
            client.create_model_version(name, "understudy:/nothing")
        client.set_registered_model_alias("student.oil", "production", "1")
        client.set_registered_model_alias("teacher.wet", "candidate", "1")
        client.set_registered_model_alias("teacher.wet", "production", "1")
        wait_until(lambda: "wet" in [note["teacher"] for note in place.started()], timeout_s=150)
        # The server starts what an event asks for before it has stored the event.
        wait_until(lambda: len(place.told(teacher="wet", source="webhook", version="1")) == 1)
        with pytest.raises(UserError, match="start the receiver there"):
            subscribe(f"http://127.0.0.1:{free_loopback_port()}/mlflow")
        monkeypatch.setenv("UNDERSTUDY_WEBHOOK_SECRET", "another secret, as long")
        with pytest.raises(UserError, match=r"trial call to .* failed \(401 the signature is wrong"):
            subscribe(url)
