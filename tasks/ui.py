"""`make ui`: MLflow on the runs made here: python -m tasks.ui --port 5000."""

import argparse
import os
import socket
import sys

from models.errors import UserError
from tasks.mlflow_client import check_server, home, tracking_uri, without_secrets
from tasks.stage import guarded


def serve(port: int) -> None:
    """Become an MLflow server on loopback over the local database; never returns when all is well."""
    uri = tracking_uri()
    if uri.startswith(("http:", "https:")):
        print(f"MLFLOW_TRACKING_URI is set: open {without_secrets(uri)} in a browser")
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
    artifacts = (home() / "artifacts").absolute().as_uri()
    os.execv(sys.executable, [*server, "--backend-store-uri", uri, "--default-artifact-root", artifacts])


def main() -> None:
    """`make ui`."""
    parser = argparse.ArgumentParser(prog="python -m tasks.ui", description="open MLflow on the runs made here")
    parser.add_argument("--port", type=int, default=5000)
    port = parser.parse_args().port
    guarded("ui", lambda: serve(port))


if __name__ == "__main__":
    main()
