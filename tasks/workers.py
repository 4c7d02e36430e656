"""Work on many shards in several processes of this machine, none of which outlives the stage."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from models.errors import UserError
from tasks.stage import die_with_parent

Job = TypeVar("Job")
Result = TypeVar("Result")
STOPPED = 130


def spread_out(
    work: Callable[[Job], Result], jobs: Sequence[Job], workers: int, setting: str
) -> Generator[tuple[Job, Result], None, None]:
    """Do `work` on every job in `workers` processes; yields each with its result as it is done.

    No process is left behind. setting: the key of params.yaml to lower where memory runs out.
    """
    before = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin)
    try:
        # A worker inherits the blocked Ctrl-C: this process alone answers it, without tracebacks from others.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            pending: dict[Future[Result], Job] = {executor.submit(_do, work, job): job for job in jobs}
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        while pending:
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                job = pending.pop(future)
                yield job, future.result()
    except BrokenProcessPool:
        raise UserError(
            f"a worker process was ended from outside, perhaps for want of memory: lower {setting} and run "
            "again; finished shards are kept"
        ) from None
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
        executor.shutdown(wait=True)


def _do(work: Callable[[Job], Result], job: Job) -> Result:
    """One job; a worker that is asked to stop in it ends, where the pool would have it begin another."""
    try:
        return work(job)
    except KeyboardInterrupt:
        os._exit(STOPPED)


def _begin() -> None:
    """Before a worker's first job: see to it that it does not outlive the stage."""
    die_with_parent()
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():  # it died while this process was still starting
        raise SystemExit("the parent process ended before the worker began")
