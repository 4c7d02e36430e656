"""The set-up of docker/compose.yaml by hand on loopback: its commands, environments and scripts, a real PostgreSQL and
an S3 server that checks signatures. Images, networks and volumes take a container engine; this does not see them.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import compose
import httpx
import pytest
import yaml
from processes import answers, wait_until
from servers import free_loopback_port, prefect_api, running
from stores import object_store, postgres

from tasks.mlflow_client import connected, experiment_id, new_run
from tasks.teachers import register_teacher, set_production

pytestmark = pytest.mark.server
BIN = Path(sys.executable).parent
PORTS = ("5432", "7070", "5000", "4200", "8080", "8081")
CODE = ("flows", "tasks", "models", "params.yaml", "prefect.yaml")
# In the place of flows/retrain.py: the worker must run the checkout's code, and this one trains nothing.
STAND_IN = """
from pathlib import Path
from prefect import flow

@flow
def retrain(teacher: str = "", student: str = "", via: str = "schedule") -> None:
    Path(f"retrained-via-{via}").write_text(teacher)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """What the servers were told, and clients that hold the keys."""

    values: Mapping[str, str]
    checkout: Path
    worker: Mapping[str, str]  # its environment
    mlflow: str
    prefect: httpx.Client
    s3: Any

    def query(self, sql: str, *, user: str, database: str, password: str) -> Any:
        """The first value that PostgreSQL answers."""
        import psycopg2

        options = {"host": "127.0.0.1", "port": self.values["5432"], "user": user, "dbname": database}
        connection = psycopg2.connect(**options, password=password)
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchone()[0]
        finally:
            connection.close()


def team_repository(repository: Path, folder: Path) -> Path:
    """A git repository with the code that is here, for the worker to clone."""
    folder.mkdir()
    not_code = shutil.ignore_patterns("__pycache__", "start", "node_modules")
    for name in CODE:
        if (repository / name).is_dir():
            shutil.copytree(repository / name, folder / name, ignore=not_code)
        else:
            shutil.copy(repository / name, folder)
    (folder / "flows" / "retrain.py").write_text(STAND_IN)
    git = ["git", "-c", "user.name=Test", "-c", "user.email=test@localhost", "-C", str(folder)]
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message=code"]):
        subprocess.run([*git, *words], check=True, timeout=60)
    return folder


def fresh_values(repository: Path, folder: Path) -> dict[str, str]:
    """The .env that make_env.sh writes, and where the containers' names, ports and folders are here."""
    origin = team_repository(repository, folder / "origin")
    script = shutil.copy(repository / "docker" / "make_env.sh", folder)
    subprocess.run(["sh", script, origin.as_uri()], check=True, timeout=60)
    return {
        **dict(line.split("=", 1) for line in (folder / ".env").read_text().splitlines()),
        **{port: str(free_loopback_port()) for port in PORTS},
        **{f"//{host}:": "//127.0.0.1:" for host in ("objects", "mlflow", "prefect", "webhook")},
        "@postgres:": "@127.0.0.1:",
        "0.0.0.0": "127.0.0.1",
        "/app/": f"{repository}/docker/",
        "/checkout": f"{folder}/checkout",
        "/tmp/": f"{folder}/",
    }


@pytest.fixture(scope="module")
def stack(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Every service of the compose file, started in its order with its own command."""
    folder = tmp_path_factory.mktemp("stack")
    checkout = folder / "checkout"
    checkout.mkdir()
    values = fresh_values(repository, folder)
    path = {"PATH": f"{BIN}:{os.environ['PATH']}"}
    with ExitStack() as context:
        database = {name: value for name, value in values.items() if name.endswith("_PASSWORD")}
        script = repository / "docker" / "databases.sql"
        context.enter_context(
            postgres(int(values["5432"]), password=database["POSTGRES_PASSWORD"], script=script, env=database)
        )
        s3, key, secret = context.enter_context(object_store(int(values["7070"]), bucket="mlflow"))
        values |= {"S3_ACCESS_KEY": key, "S3_SECRET_KEY": secret}
        every = {
            name: compose.Process.of(service, values)
            for name, service in compose.services(repository).items()
            if name not in ("postgres", "objects")
        }
        for name in ("mlflow", "prefect", "webhook"):
            command, environment = every[name].command, path | every[name].environment
            (folder / name).mkdir()
            context.enter_context(running([str(BIN / command[0]), *command[1:]], env=environment, cwd=folder / name))
        for name in ("mlflow", "prefect", "webhook"):
            wait_until(lambda name=name: answers(every[name].health), timeout_s=150)  # type: ignore[misc]
        environment = os.environ | path | every["prepare"].environment
        subprocess.run(every["prepare"].command, env=environment, cwd=checkout, check=True, timeout=150)
        worker = every["worker"]
        context.enter_context(
            running(worker.command, health=worker.health, env=path | worker.environment, cwd=checkout)
        )
        user, _, password = values["PREFECT_AUTH"].partition(":")
        prefect = context.enter_context(prefect_api(worker.environment["PREFECT_API_URL"], auth=(user, password)))
        mlflow = worker.environment["MLFLOW_TRACKING_URI"]
        yield Stack(values=values, checkout=checkout, worker=worker.environment, mlflow=mlflow, prefect=prefect, s3=s3)


def test_a_run_its_artifact_and_a_model_version(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in stack.worker.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "student.int8.tflite").write_bytes(b"weights")
    with connected() as client:
        with new_run(client, experiment_id(client, "oil"), "oil-1", {"gate": "passed"}) as run_id:
            client.log_artifact(run_id, str(tmp_path / "student.int8.tflite"), "bundle")
        client.create_registered_model("student.oil")
        place = f"{client.get_run(run_id).info.artifact_uri}/bundle"
        client.create_model_version("student.oil", place, run_id)
        client.set_registered_model_alias("student.oil", "champion", "1")
        assert client.get_model_version_by_alias("student.oil", "champion").run_id == run_id
        back = Path(client.download_artifacts(run_id, "bundle/student.int8.tflite", str(tmp_path)))
    assert back.read_bytes() == b"weights"
    assert place.startswith("mlflow-artifacts:/")
    (stored,) = stack.s3.list_objects_v2(Bucket="mlflow")["Contents"]
    assert stored["Key"] == f"artifacts/{place.removeprefix('mlflow-artifacts:/')}/student.int8.tflite"
    password = stack.values["MLFLOW_DB_PASSWORD"]
    assert stack.query("select status from runs", user="mlflow", database="mlflow", password=password) == "FINISHED"


def test_a_promoted_teacher_starts_the_retrain(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    # MLflow -> webhook -> receiver -> event -> automation -> worker, each with its own secret.
    for name, value in stack.worker.items():
        monkeypatch.setenv(name, value)
    pin = {"kind": "painter", "name": "oil-painter", "version": 2, "style": "oil"}
    with connected() as client:
        assert set_production(client, "oil-painter", register_teacher(client, pin), "better")
    told = stack.checkout / "retrained-via-event"
    wait_until(lambda: told.exists() and told.read_text() == "oil-painter", timeout_s=90)


def test_mlflow_answers_to_its_own_names_alone(stack: Stack) -> None:
    port = stack.values["5000"]
    asked = f"{stack.mlflow}/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
    for host, status in {f"mlflow:{port}": 200, f"localhost:{port}": 200, f"rebound.example:{port}": 403}.items():
        assert httpx.get(asked, headers={"Host": host}).status_code == status


def test_each_server_has_a_database_of_its_own(stack: Stack) -> None:
    import psycopg2

    password = stack.values["PREFECT_DB_PASSWORD"]
    assert stack.query("select count(*) from deployment", user="prefect", database="prefect", password=password) > 0
    with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
        stack.query("select 1", user="prefect", database="mlflow", password=password)
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        stack.query("select 1", user="prefect", database="prefect", password="guessed")


def test_the_object_store_asks_for_its_keys(stack: Stack) -> None:
    import boto3
    from botocore.exceptions import ClientError

    keys = {"aws_access_key_id": stack.values["S3_ACCESS_KEY"], "aws_secret_access_key": "guessed"}
    guesser = boto3.client("s3", endpoint_url=stack.s3.meta.endpoint_url, region_name="us-east-1", **keys)
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        guesser.list_objects_v2(Bucket="mlflow")


def test_prefect_has_the_deployments_the_pool_and_a_worker(stack: Stack, repository: Path) -> None:
    address = f"http://127.0.0.1:{stack.values['4200']}"
    assert httpx.post(f"{address}/api/deployments/filter", json={}).status_code == 401
    assert "<html" in httpx.get(address, follow_redirects=True).text
    wanted = {entry["name"] for entry in yaml.safe_load((repository / "prefect.yaml").read_text())["deployments"]}
    deployments = stack.prefect.post("/deployments/filter", json={}).json()
    assert {deployment["name"] for deployment in deployments} == wanted
    assert {deployment["work_pool_name"] for deployment in deployments} == {"understudy"}
    (worker,) = stack.prefect.post("/work_pools/understudy/workers/filter", json={}).json()
    assert worker["status"] == "ONLINE"
