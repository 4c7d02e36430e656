"""The Prefect server a run reports to: the configured one, or one of its own that lives as long as the run.

Prefect would start a server of its own too, but leaves it running when the run is killed by SIGKILL.
The child's command: python -m flows.server PARENT SOCKET
"""

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from models.errors import TryAgain, UserError
from tasks.stage import WORK, die_with_parent, locked

START_S = 120.0  # the first start on a machine makes Prefect's database: about half a minute


# The run's own lines say what happens; Prefect's log would say it twice, with a traceback for every typo.
QUIET = {
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "DVC_NO_ANALYTICS": "1",
}


@contextmanager
def quiet_server() -> Iterator[None]:
    """`reachable_server` for the command line, before Prefect is imported."""
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    with reachable_server():
        yield


@contextmanager
def reachable_server() -> Iterator[None]:
    """A server that answers, for as long as the context lasts; UserError if the configured one does not."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    url = PREFECT_API_URL.value()
    if url:
        check_server(url)
        yield
        return
    with own_server() as url, temporary_settings({PREFECT_API_URL: url}):
        os.environ["PREFECT_API_URL"] = url  # what a retrain starts in its workspace reports to it too
        try:
            yield
        finally:
            del os.environ["PREFECT_API_URL"]


def check_server(url: str) -> None:
    """Refuse an address where no Prefect server answers."""
    import httpx

    try:
        # None at all is known at once; one that is there may have much to do.
        httpx.get(f"{url.rstrip('/')}/health", timeout=httpx.Timeout(60, connect=10))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise TryAgain(
            f"no Prefect server answers at {url} ({error}): start it (prefect server start), or unset PREFECT_API_URL"
        ) from None


@contextmanager
def own_server() -> Iterator[str]:
    """Start a server on a free loopback port; yields its API's address and stops it at the end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        command = [sys.executable, "-m", "flows.server", str(os.getpid()), str(listener.fileno())]
        # Two servers that make the database at once would trip over each other.
        with locked(WORK / "prefect.lock"):
            process = subprocess.Popen(
                command,
                env=os.environ | {"PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"},
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the run, which then stops the server
                pass_fds=[listener.fileno()],
            )
            try:
                _wait_until_healthy(process, port)
            except BaseException:
                _end(process)
                raise
    try:
        yield f"http://127.0.0.1:{port}/api"
    finally:
        _end(process)


def _wait_until_healthy(process: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if process.poll() is not None:
            raise UserError("Prefect's server ended at its start; see why with: prefect server start")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        try:
            connection.request("GET", "/api/health")
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            time.sleep(0.1)
        finally:
            connection.close()
    raise TryAgain(f"Prefect's server did not start within {START_S:.0f} s: run again when the machine is less busy")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main() -> None:
    """The child: serve Prefect's API without its pages until the parent ends."""
    parent, listener = (int(argument) for argument in sys.argv[1:])
    die_with_parent(parent)
    os.environ["PREFECT_SERVER_UI_ENABLED"] = "false"
    import uvicorn

    uvicorn.run("prefect.server.api.server:create_app", factory=True, fd=listener, log_level="critical", lifespan="on")


if __name__ == "__main__":
    main()
