"""`understudy doctor`: what a run needs of this machine and this environment, checked one by one."""

import importlib
import importlib.metadata
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from models.errors import UserError
from models.silence import silence

GIB = 2**30
# Import name -> distribution; importing is the check, as a wheel that does not fit fails only then.
TOOLS = {
    "torch": "torch",
    "litert_torch": "litert-torch",
    "ai_edge_litert": "ai-edge-litert",
    "onnxruntime": "onnxruntime",
    "dvc": "dvc",
    "mlflow": "mlflow",
    "prefect": "prefect",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the doctor."""

    what: str
    verdict: Literal["ok", "warn", "fail"]
    told: str  # what was found and, unless ok, what to do


def examine() -> Iterator[Finding]:
    """Every check in turn; a check that itself breaks is a failure, not a traceback."""
    for what, check in CHECKS.items():
        try:
            verdict, told = check()
        except Exception as error:  # noqa: BLE001  # whatever is wrong with the machine is a finding
            verdict, told = "fail", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        yield Finding(what=what, verdict=verdict, told=told)


Answer = tuple[Literal["ok", "warn", "fail"], str]


def _python() -> Answer:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] in ((3, 11), (3, 12)):
        return "ok", version
    return "fail", f"{version}; 3.11 or 3.12 is needed: make env PYTHON=python3.11"


def _tool(module: str, distribution: str) -> Callable[[], Answer]:
    def check() -> Answer:
        try:
            version = importlib.metadata.version(distribution)
            with silence():  # some libraries greet at import
                importlib.import_module(module)
        except ImportError as error:
            return "fail", f"{error}: make env"
        wanted = _pins().get(distribution)
        if wanted and version.partition("+")[0] != wanted:
            return "warn", f"{version}, constraints.txt says {wanted}: make env"
        return "ok", version

    return check


def _pins() -> dict[str, str]:
    path = Path("constraints.txt")
    lines = path.read_text().splitlines() if path.exists() else []
    return dict(line.split("==", 1) for line in lines if "==" in line)


def _timm() -> Answer:
    from models.torch_setup import import_timm

    import_timm()
    return "ok", f"timm {importlib.metadata.version('timm')} imports"


def _params() -> Answer:
    from tasks.params import load_params

    try:
        return "ok", f"students: {', '.join(load_params().every)}"
    except UserError as error:
        return "fail", str(error)


def _disk() -> Answer:
    free = shutil.disk_usage(".").free / GIB
    told = f"{free:.1f} GiB free"
    if free < 1:
        return "fail", f"{told}; a run needs about 1 GiB: free some space"
    return ("ok", told) if free >= 4 else ("warn", f"{told}; a student takes about 1 GiB")


def _writable() -> Answer:
    for folder in (Path("data"), Path(".dvc"), Path("mlflow")):
        try:
            with tempfile.NamedTemporaryFile(dir=folder):
                pass
        except OSError as error:
            return "fail", f"{folder}: {error.strerror}: run from the repository's root, as its owner"
    return "ok", "data, .dvc and mlflow"


def _shared_memory() -> Answer:
    if not Path("/dev/shm").is_dir():
        return "warn", "there is none; parallel generation may fail: set generate.workers to 1"
    free = shutil.disk_usage("/dev/shm").free / GIB
    if free < 0.06:
        return "warn", f"{free * 1024:.0f} MiB free; in a container, give it more: --shm-size=1g"
    return "ok", f"{free:.1f} GiB free"


def _ui_port() -> Answer:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("127.0.0.1", 5000))
        except OSError:
            return "warn", "5000 is taken: make ui PORT=5001"
    return "ok", "5000 is free for make ui"


def _prefect() -> Answer:
    from prefect.settings import PREFECT_API_URL

    from flows.server import check_server

    url = PREFECT_API_URL.value()
    if not url:
        return "ok", "no PREFECT_API_URL; each run brings a server of its own"
    try:
        check_server(url)
    except UserError as error:
        return "fail", str(error)
    return "ok", f"a server answers at {url}"


def _mlflow() -> Answer:
    from tasks.mlflow_client import check_server

    if "MLFLOW_TRACKING_URI" not in os.environ:
        return "ok", "no MLFLOW_TRACKING_URI; runs are kept in mlflow/mlflow.db"
    try:
        return "ok", check_server()
    except UserError as error:
        return "fail", str(error)


CHECKS: dict[str, Callable[[], Answer]] = {
    "python": _python,
    **{distribution: _tool(module, distribution) for module, distribution in TOOLS.items()},
    "torchvision": _timm,
    "params.yaml": _params,
    "disk": _disk,
    "permissions": _writable,
    "/dev/shm": _shared_memory,
    "port": _ui_port,
    "prefect server": _prefect,
    "mlflow server": _mlflow,
}
