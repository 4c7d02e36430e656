"""The only module that imports mlflow: the connection, and what needs its classes.

MLFLOW_TRACKING_URI says where; without it everything is kept in mlflow/mlflow.db and mlflow/artifacts of this
repository, or of the folder UNDERSTUDY_MLFLOW names (a retrain's workspace uses the main checkout's).
"""

import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from models.errors import TryAgain, UserError
from models.files import replacing
from tasks.facts import numbers
from tasks.stage import locked

if TYPE_CHECKING:
    from mlflow import MlflowClient

    Client = MlflowClient

# A server that is down is said to be down in seconds, not in MLflow's minutes.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
# Else MLflow sends its clients to the object store behind it, which may answer to nobody but MLflow.
PROXIED = {"MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false", "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false"}
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
KIND = {"mlflow.experimentKind": "custom_model_development"}  # else its pages open with those for language models
METRICS_IN_BATCH, PARAMS_IN_BATCH, DIGEST_LENGTH, TAG_LENGTH = 1000, 100, 36, 5000  # MLflow's limits


Answer = TypeVar("Answer")


def home() -> Path:
    """Where MLflow's files are kept when there is no server."""
    return Path(os.environ.get("UNDERSTUDY_MLFLOW") or "mlflow")


def database() -> Path:
    """The SQLite file that stands for a server when none is configured."""
    return home() / "mlflow.db"


def tracking_uri() -> str:
    """Where runs go: MLFLOW_TRACKING_URI, or the database in this repository."""
    # Absolute: MLflow keeps connections by address, and a relative one means another file in another folder.
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{database().absolute()}"


def is_configured() -> bool:
    """Whether there is anything to connect to: a server's address, or a database made before."""
    return bool(os.environ.get("MLFLOW_TRACKING_URI")) or database().exists()


def without_secrets(text: str) -> str:
    """A message without the user names and passwords of the addresses in it."""
    return re.sub(r"://[^/@\s]+@", "://", text)


@contextmanager
def connected() -> Iterator["Client"]:
    """A client of the tracking server; whatever MLflow cannot do becomes one line that says where and why."""
    for key, value in (PATIENCE | PROXIED | QUIET).items():
        os.environ.setdefault(key, value)
    from mlflow.exceptions import MlflowException
    from requests import ConnectionError, RequestException, Timeout

    from mlflow import MlflowClient

    for noisy in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    uri = tracking_uri()
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        _make_database()
    try:
        yield MlflowClient(tracking_uri=uri)
    except (MlflowException, RequestException) as error:
        # MLflow wraps what requests says into a text of its own, with the whole address of the call in it.
        unreached = any(isinstance(each, (ConnectionError, Timeout)) for each in (error, error.__context__))
        what = "does not answer" if unreached else "answered: " + " ".join(str(error).split())[:200]
        line = f"MLflow at {uri} {what}: start the server, or correct or unset MLFLOW_TRACKING_URI, and run again; "
        raise TryAgain(without_secrets(line + "all other results are kept")) from error


def or_none(question: Callable[[], Answer]) -> Answer | None:
    """The answer, or None where MLflow has nothing of that name."""
    from mlflow.exceptions import MlflowException

    try:
        return question()
    except MlflowException as error:
        # A missing alias is told as an invalid parameter.
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE") and "not found" in str(error):
            return None
        raise


def unless_there(creation: Callable[[], object]) -> None:
    """Create something that another process may have created meanwhile."""
    from mlflow.exceptions import MlflowException

    try:
        creation()
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _make_database() -> None:
    """Create the database under a temporary name: two creators race, and one cut off leaves it unusable."""
    if database().exists():
        return
    from mlflow import MlflowClient

    with locked(home() / "mlflow.db.lock"):
        if database().exists():
            return
        print("making the MLflow database, once", file=sys.stderr)
        with replacing(database()) as temporary:
            client = MlflowClient(tracking_uri=f"sqlite:///{temporary}")
            client.search_experiments()
            with suppress(AttributeError):  # private, and only tidier with it
                client._tracking_client.store._dispose_engine()


def check_server() -> str:
    """Ask the configured MLflow for its experiments; returns a line that says it answers."""
    with connected() as client:
        client.search_experiments(max_results=1)
    return f"MLflow answers at {without_secrets(tracking_uri())}"


def experiment_id(client: "Client", student: str) -> str:
    """The student's experiment, made on first use; a UserError where someone deleted it."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(student)
    if found is None:
        place = None if "MLFLOW_TRACKING_URI" in os.environ else (home() / "artifacts" / student).absolute().as_uri()
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
def new_run(
    client: "Client", experiment: str, name: str, tags: dict[str, str], *, fails: bool = False
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


def log_values(
    client: "Client", run_id: str, figures: dict[str, float], params: dict[str, str], curve: Iterable[Any]
) -> None:
    """Log in batches: a thousand single calls take 14 s, a batch 0.1 s (field notes).

    A figure GROUP.WHAT is called GROUP/WHAT there: MLflow's pages put each group into a section of its own.
    """
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    found = [(0, key, value) for key, value in figures.items()]
    for line in curve:
        found += [(int(line["step"]), key, value) for key, value in numbers(line).items() if key != "step"]
    metrics = [Metric(key.replace(".", "/", 1), value, now, step) for step, key, value in found]
    for some in _chunks(metrics, METRICS_IN_BATCH):
        client.log_batch(run_id, metrics=some)
    for some in _chunks([Param(key, value) for key, value in params.items()], PARAMS_IN_BATCH):
        client.log_batch(run_id, params=some)


def _chunks(values: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of at most `size`; the last may be shorter."""
    rest = iter(values)
    while some := list(islice(rest, size)):
        yield some


def log_inputs(client: "Client", run_id: str, made_from: Mapping[str, str]) -> None:
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


def log_picture(client: "Client", run_id: str, key: str, path: Path) -> None:
    """A picture that MLflow's pages show beside those of the same key in other runs."""
    from PIL import Image

    with Image.open(path) as picture:
        client.log_image(run_id, picture, key=key)
