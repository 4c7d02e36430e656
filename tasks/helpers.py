"""Further processes for a training, which share each batch; this one keeps the lock, the terminal and the files.

`beside(count, module, ...)` starts `python -m MODULE ARGUMENTS` count - 1 times, with what torch's and
accelerate's launchers put into the environment; each asks for the same Accelerator and does the same work. They end
with this process, however it ends; where one of them is lost, the training fails in one line and goes on from its
checkpoint when run again. On this machine alone: all talk over loopback.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from models.errors import TryAgain, UserError

GRACE_S = 30.0


@contextmanager
def beside(count: int, module: str, arguments: Sequence[str], log: Path, *, threads: int) -> Iterator[None]:
    """While open, count - 1 helpers run, and each process has so many threads. What helpers say lies in `log`."""
    if count == 1:
        yield
        return
    import torch

    environment = {
        # Else accelerate, which looks for an accelerator first, would take each process for the only one.
        "ACCELERATE_USE_CPU": "false" if torch.cuda.is_available() else "true",
        "OMP_NUM_THREADS": str(threads),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "GLOO_SOCKET_IFNAME": "lo" if sys.platform.startswith("linux") else "lo0",
    }
    log.parent.mkdir(parents=True, exist_ok=True)
    before = dict(os.environ)
    os.environ.update(environment, RANK="0", LOCAL_RANK="0")
    with log.open("w") as file:
        helpers = [
            subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env={**before, **environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
            for rank in range(1, count)
        ]
    try:
        yield
        _all_ended_well(helpers, log)
    except RuntimeError as error:  # what torch.distributed says of a process that is gone
        if "gloo" not in str(error).lower() and "connection" not in str(error).lower():
            raise
        raise TryAgain(f"a helper process of the training was lost ({_last_line(log)}): run again to go on") from None
    finally:
        _end(helpers)
        _leave_group()
        for name in (*environment, "RANK", "LOCAL_RANK"):
            os.environ.pop(name, None)
        os.environ.update({name: before[name] for name in environment if name in before})


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def _all_ended_well(helpers: Sequence["subprocess.Popen[bytes]"], log: Path) -> None:
    for helper in helpers:
        try:
            code = helper.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            raise UserError(f"a helper process of the training does not end; it says: {_last_line(log)}") from None
        if code:
            raise UserError(f"a helper process of the training ended with exit code {code}: {_last_line(log)}")


def _end(helpers: Sequence["subprocess.Popen[bytes]"]) -> None:
    for helper in helpers:
        if helper.poll() is None:
            helper.terminate()
    for helper in helpers:
        try:
            helper.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            helper.kill()
            helper.wait()


def _leave_group() -> None:
    """Forget the other processes, so that what comes after in this one trains alone."""
    import torch.distributed
    from accelerate.state import AcceleratorState

    with suppress(RuntimeError):
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    AcceleratorState._reset_state(reset_partial_state=True)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "it said nothing"
