"""Real Prefect and MLflow servers on loopback for tests, each of its own database, ended when the context ends."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from processes import answers, wait_until

PREFECT = [sys.executable, "-m", "prefect", "--no-prompt"]
START_S = 120.0  # the first start makes the database


def free_loopback_port() -> int:
    """A TCP port on loopback that nothing listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End a process that leads its group, and the group, whatever they think of it."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def running(
    command: Sequence[str], *, health: str = "", env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """A process in its own group, once `health` (an address) answers; stopped at the end."""
    process = subprocess.Popen(
        command, process_group=0, stdout=subprocess.DEVNULL, cwd=cwd, env={**os.environ, **(env or {})}
    )
    try:
        if health:
            wait_until(lambda: _answers(process, health), timeout_s=START_S)
        yield process
    finally:
        stop(process)


def _answers(process: "subprocess.Popen[bytes]", health: str) -> bool:
    assert process.poll() is None, f"{process.args!r} ended at its start with exit code {process.returncode}"
    return answers(health)


@contextmanager
def prefect_server(home: Path, *, port: int = 0, env: Mapping[str, str] | None = None) -> Iterator[str]:
    """`prefect server start` with PREFECT_HOME `home`; yields the address of its API.

    The caller's PREFECT_API_URL is left alone: a fixture sets it for the tests that want this server configured.
    """
    port = port or free_loopback_port()
    settings = {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_UI_ENABLED": "false",
        "PREFECT_SERVER_DEPLOYMENT_SCHEDULE_BUFFER_SECONDS": "0",
        **(env or {}),
    }
    start = [*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with running(start, health=f"http://127.0.0.1:{port}/api/health", env=settings):
        yield f"http://127.0.0.1:{port}/api"


class _AskAgain(httpx.HTTPTransport):
    """As Prefect's own client: 503 is what its server answers while another holds the SQLite file."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answered: list[httpx.Response] = []

        def taken() -> bool:
            answered.append(super(_AskAgain, self).handle_request(request))
            if answered[-1].status_code != httpx.codes.SERVICE_UNAVAILABLE:
                return True
            answered[-1].close()
            return False

        wait_until(taken)
        return answered[-1]


def prefect_api(url: str, **settings: Any) -> httpx.Client:
    """An HTTP client of a Prefect server's API, with httpx.Client's own settings."""
    return httpx.Client(base_url=url, transport=_AskAgain(), timeout=30, **settings)


@contextmanager
def mlflow_server(
    folder: Path, *, port: int = 0, backend: str = "", env: Mapping[str, str] | None = None
) -> Iterator[str]:
    """An MLflow server as `make ui` starts one, on SQLite below `folder` or on `backend`; yields its address.

    The caller's MLFLOW_TRACKING_URI is left alone.
    """
    port = port or free_loopback_port()
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", backend or f"sqlite:///{folder.absolute()}/mlflow.db"]
    command += ["--serve-artifacts", "--artifacts-destination", (folder / "artifacts").absolute().as_uri()]
    settings = {
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        **(env or {}),
    }
    # In its own folder, where the repository's mlflow/ is not on the import path.
    with running(command, health=f"http://127.0.0.1:{port}/health", env=settings, cwd=folder):
        yield f"http://127.0.0.1:{port}"
