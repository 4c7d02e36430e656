"""Shards made on a Ray cluster: the stage's side, which starts the driver and outlives whatever happens to it.

Ray is kept in a process of its own (tasks/cluster_driver.py), because its C++ core ends the process it runs in when
the cluster is lost, waits without end for an address that nobody answers, takes over SIGTERM and writes to stderr.
Its words go to data/.work/NAME/generate.ray.log.
"""

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Generator, Sequence
from importlib.util import find_spec
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from models.errors import TryAgain, UserError
from tasks.shards import Job
from tasks.stage_params import Generate

CONNECT_S = 30.0  # to start the driver and join the cluster
SILENT_S = 120.0  # longer than Ray itself takes to give up a cluster
LEAVE_S = 10.0  # for the driver to take leave of the cluster when all is made
KEPT = "finished shards are kept: run again to go on from there"


def on_cluster(jobs: Sequence[Job], settings: Generate, log: Path) -> Generator[Job, None, None]:
    """Make the shards on the cluster that `settings` name; yields each job as it is on disk here.

    Leaves no process behind, here or on the cluster. Raises UserError where there is no cluster, no room on it, or
    where the teacher fails.
    """
    if not jobs:
        return
    if find_spec("ray") is None:
        raise UserError("generate.cluster: Ray is not installed: pip install -c constraints.txt '.[ray]'")
    from tasks.cluster_driver import drive

    log.parent.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    words = (theirs, jobs, settings.cluster, settings.gpus_per_actor, settings.workers, log, os.getpid())
    process = context.Process(target=drive, args=words)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # it inherits this: Ctrl-C is ours to answer
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    theirs.close()
    try:
        yield from _listen(ours, process, {job.name: job for job in jobs}, settings.cluster, log)
        process.join(LEAVE_S)
    finally:
        process.kill()  # the cluster ends its actors
        process.join()
        process.close()
        ours.close()


def _listen(
    pipe: Connection, process: BaseProcess, jobs: dict[str, Job], address: str, log: Path
) -> Generator[Job, None, None]:
    """The jobs that the driver tells of, until it says that it is done."""
    connected = False
    while (message := _next(pipe, process, SILENT_S if connected else CONNECT_S)) is not None:
        what, text = message["what"], message["text"]
        connected = True
        if what == "made":
            yield jobs[text]
        elif what == "note":
            print(f"generate: {text}", file=sys.stderr)
        elif what == "failed":
            raise (TryAgain if message["again"] else UserError)(text)
        elif what == "done":
            return
    if not connected:
        told = 'start it, make this machine one of its nodes (ray start --address=...), or set generate.cluster to ""'
        raise UserError(f"no Ray cluster answers at {address} within {CONNECT_S:g} s: {told} ({log})")
    raise UserError(f"the Ray cluster at {address} was lost ({log} has the last words); {KEPT}")


def _next(pipe: Connection, process: BaseProcess, patience: float) -> Any:
    """The driver's next message, or None where it is gone or has said nothing for `patience` seconds."""
    until = time.monotonic() + patience
    while (left := until - time.monotonic()) > 0:
        wait([pipe, process.sentinel], left)
        if pipe.poll():
            try:
                return json.loads(pipe.recv_bytes())
            except EOFError:
                return None
        if not process.is_alive():
            return None
    return None
