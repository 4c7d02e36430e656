"""The only module that imports mlflow: an experiment per student, a run per pipeline run, a child run per stage.

MLFLOW_TRACKING_URI says where; without it runs are kept in mlflow/mlflow.db and mlflow/artifacts. The tags are
listed in mlflow/tags.yaml. Nothing is ever logged as a pickle.
`make ui` is: python -m tasks.tracking --port 5000
"""

import argparse
import json
import logging
import os
import platform
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import TryAgain, UserError
from tasks.facts import StageFacts, flat_params, numbers, run_record
from tasks.files import replacing, sha256_json
from tasks.stage import WORK, guarded, locked

if TYPE_CHECKING:
    from mlflow import MlflowClient

DATABASE = Path("mlflow/mlflow.db")
ARTIFACTS = Path("mlflow/artifacts")
# A server that is down is said to be down in seconds, not in MLflow's minutes.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
KIND = {"mlflow.experimentKind": "custom_model_development"}  # else its pages open with those for language models
METRICS_IN_BATCH, PARAMS_IN_BATCH, DIGEST_LENGTH, TAG_LENGTH = 1000, 100, 36, 5000  # MLflow's limits


def tracking_uri() -> str:
    """Where runs go: MLFLOW_TRACKING_URI, or the database in this repository."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{DATABASE}"


def _without_secrets(text: str) -> str:
    """A message without the user names and passwords of the addresses in it."""
    return re.sub(r"://[^/@\s]+@", "://", text)


@contextmanager
def _connected() -> Iterator["MlflowClient"]:
    """A client of the tracking server; whatever MLflow cannot do becomes one line that says where and why."""
    for key, value in (PATIENCE | QUIET).items():
        os.environ.setdefault(key, value)
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    from mlflow import MlflowClient

    for noisy in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    uri = tracking_uri()
    if uri == f"sqlite:///{DATABASE}":
        _make_database()
    try:
        yield MlflowClient(tracking_uri=uri)
    except (MlflowException, RequestException) as error:
        why = " ".join(str(error).split())[:200]
        line = f"MLflow at {uri} did not take the run ({why}): start the server, or correct or unset "
        line += "MLFLOW_TRACKING_URI, and run again; all other results are kept"
        raise TryAgain(_without_secrets(line)) from error


def _make_database() -> None:
    """Create the database under a temporary name: two creators race, and one cut off leaves it unusable."""
    if DATABASE.exists():
        return
    from mlflow import MlflowClient

    with locked(WORK / "mlflow.lock"):
        if DATABASE.exists():
            return
        print("making the MLflow database, once", file=sys.stderr)
        with replacing(DATABASE) as temporary:
            client = MlflowClient(tracking_uri=f"sqlite:///{temporary}")
            client.search_experiments()
            with suppress(AttributeError):  # private, and only tidier with it
                client._tracking_client.store._dispose_engine()


def check_server() -> str:
    """Ask the configured MLflow for its experiments; returns a line that says it answers."""
    with _connected() as client:
        client.search_experiments(max_results=1)
    return f"MLflow answers at {_without_secrets(tracking_uri())}"


def log_run(student: str, facts: Sequence[StageFacts], *, failed: str = "", reason: str = "") -> str:
    """Log one pipeline run and its stages; returns the parent's run id. `failed` names the stage that failed, if any.

    The caller holds the student's lineage lock. Raises TryAgain when MLflow cannot be reached.
    """
    with _connected() as client:
        experiment = _experiment(client, student)
        _close_stale(client, experiment)
        tags = {key: value for fact in facts for key, value in fact.tags.items()}
        tags |= {"workspace": _workspace(), **_commit()}
        if failed:
            tags |= {"failed.stage": failed, "failed.reason": reason}
        name = f"{student}-{facts[-1].digest[:8]}" if facts and not failed else f"{student}-failed-{failed}"
        with _run(client, experiment, name, tags, fails=bool(failed)) as parent:
            for fact in facts:
                _log_stage(client, experiment, parent, student, fact)
            if failed:
                told = {"mlflow.parentRunId": parent, "stage.name": failed, "stage.status": "failed"}
                with _run(client, experiment, failed, {**told, "failed.reason": reason}, fails=True):
                    pass
            _log_summary(client, parent, facts)
        return parent


def _experiment(client: "MlflowClient", student: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(student)
    if found is None:
        place = None if "MLFLOW_TRACKING_URI" in os.environ else (ARTIFACTS / student).absolute().as_uri()
        try:
            return str(client.create_experiment(student, artifact_location=place, tags=KIND))
        except MlflowException:
            found = client.get_experiment_by_name(student)  # another machine was faster
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise UserError(f"the MLflow experiment {student} was deleted: restore it (mlflow experiments restore)")
    return str(found.experiment_id)


@contextmanager
def _run(
    client: "MlflowClient", experiment: str, name: str, tags: dict[str, str], *, fails: bool = False
) -> Iterator[str]:
    """A run that never stays RUNNING: FINISHED, FAILED or KILLED, whatever happens inside short of SIGKILL."""
    short = {key: value[:TAG_LENGTH] for key, value in tags.items()}
    run_id = str(client.create_run(experiment, run_name=name, tags=short).info.run_id)
    try:
        yield run_id
    except BaseException as error:
        with suppress(Exception):  # the server may be the very thing that failed
            client.set_terminated(run_id, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    client.set_terminated(run_id, "FAILED" if fails else "FINISHED")


def _workspace() -> str:
    """Names this checkout without telling its host or path."""
    return sha256_json([platform.node(), str(Path.cwd())])[:16]


def _close_stale(client: "MlflowClient", experiment: str) -> None:
    """Runs of this checkout that SIGKILL left RUNNING; we hold its lock, so none of them is alive."""
    mine = f"attributes.status = 'RUNNING' and tags.workspace = '{_workspace()}'"
    for parent in client.search_runs([experiment], mine):
        inside = f"attributes.status = 'RUNNING' and tags.mlflow.parentRunId = '{parent.info.run_id}'"
        for run in [*client.search_runs([experiment], inside), parent]:
            client.set_terminated(run.info.run_id, "KILLED")


def _commit() -> dict[str, str]:
    """The git commit the code is at, if this is a repository with one."""
    with suppress(OSError, subprocess.SubprocessError):
        asked = ["git", "rev-parse", "--verify", "HEAD"]
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True)
        return {"git.commit": answer.stdout.strip()}
    return {}


def _log_stage(client: "MlflowClient", experiment: str, parent: str, student: str, fact: StageFacts) -> None:
    """One child run: params, figures, curve, inputs; pictures and costs only where the stage really ran."""
    earlier = client.search_runs(
        [experiment],
        f"tags.stage.name = '{fact.stage}' and tags.stage.digest = '{fact.digest}' and tags.stage.status = 'ran'"
        " and attributes.status = 'FINISHED'",
        max_results=1,
        order_by=["attributes.start_time ASC"],
    )
    tags = {
        "mlflow.parentRunId": parent,
        "stage.name": fact.stage,
        "stage.digest": fact.digest,
        "stage.status": "reused" if earlier else "ran",
        **fact.tags,
    }
    if earlier:
        tags["stage.reused_from"] = earlier[0].info.run_id
    with _run(client, experiment, fact.stage, tags) as run_id:
        figures = numbers(fact.figures) | ({} if earlier else run_record(fact.stage, student))
        _log_values(client, run_id, figures, flat_params(fact.params), fact.curve)
        _log_inputs(client, run_id, fact.made_from)
        if not earlier:
            for path in fact.files:
                client.log_artifact(run_id, str(path))


def _log_summary(client: "MlflowClient", parent: str, facts: Sequence[StageFacts]) -> None:
    """On the parent: every parameter, and the figures by which runs are compared."""
    by_name = {fact.stage: fact for fact in facts}
    params = {f"{fact.stage}.{key}": value for fact in facts for key, value in flat_params(fact.params).items()}
    figures: dict[str, float] = {}
    if "evaluate" in by_name:
        figures |= numbers(by_name["evaluate"].figures)
    if "bundle" in by_name:
        figures |= numbers(by_name["bundle"].figures)
    _log_values(client, parent, figures, params, ())
    _log_inputs(client, parent, by_name["generate"].made_from if "generate" in by_name else {})


def _log_values(
    client: "MlflowClient", run_id: str, figures: dict[str, float], params: dict[str, str], curve: Iterable[Any]
) -> None:
    """Log in batches: a thousand single calls take 14 s, a batch 0.1 s (field notes)."""
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    metrics = [Metric(key, value, now, 0) for key, value in figures.items()]
    for line in curve:
        step = int(line["step"])
        metrics += [Metric(key, value, now, step) for key, value in numbers(line).items() if key != "step"]
    for some in _chunks(metrics, METRICS_IN_BATCH):
        client.log_batch(run_id, metrics=some)
    for some in _chunks([Param(key, value) for key, value in params.items()], PARAMS_IN_BATCH):
        client.log_batch(run_id, params=some)


def _chunks(values: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of at most `size`; the last may be shorter."""
    rest = iter(values)
    while some := list(islice(rest, size)):
        yield some


def _log_inputs(client: "MlflowClient", run_id: str, made_from: Any) -> None:
    """The edges of the lineage: what the stage read, by digest (MLflow keeps 36 characters of it, the tag all)."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = []
    for name, digest in made_from.items():
        source = json.dumps({"tags": {"sha256": digest}})
        dataset = Dataset(name=name, digest=digest[:DIGEST_LENGTH], source_type="code", source=source)
        tags = [InputTag("mlflow.data.context", name), InputTag("sha256", digest)]
        inputs.append(DatasetInput(dataset, tags))
    if inputs:
        client.log_inputs(run_id, inputs)


def serve(port: int) -> None:
    """Become an MLflow server on loopback over the local database; never returns when all is well."""
    uri = tracking_uri()
    if uri.startswith(("http:", "https:")):
        print(f"MLFLOW_TRACKING_URI is set: open {_without_secrets(uri)} in a browser")
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise UserError(
                f"port {port} is taken: stop what uses it, or choose another: make ui PORT={port + 1}"
            ) from None
    check_server()  # makes the database where there is none
    os.environ |= {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    print(f"MLflow: http://127.0.0.1:{port} (Ctrl-C ends it)", flush=True)
    server = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    os.execv(
        sys.executable, [*server, "--backend-store-uri", uri, "--default-artifact-root", ARTIFACTS.absolute().as_uri()]
    )


def main() -> None:
    """`make ui`."""
    parser = argparse.ArgumentParser(prog="python -m tasks.tracking", description="open MLflow on the runs made here")
    parser.add_argument("--port", type=int, default=5000)
    port = parser.parse_args().port
    guarded("ui", lambda: serve(port))


if __name__ == "__main__":
    main()
