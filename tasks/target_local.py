"""Target `local`: this machine, LiteRT with XNNPACK and ONNX Runtime.

All files and thread counts are timed in turn, one run each, again and again, so that a machine that slows down
meanwhile slows down all of them alike. Only the run itself is timed, not the hand-over of the picture.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.errors import UserError
from tasks.machine_state import machine, state
from tasks.target import LOCAL, Job, Json, Measured, all_or_reason, file_row, judged_file
from tasks.timing import interleaved, percentiles, sustained

MEMORY_RUNS = 3


def measure_local(job: Job, target: str = LOCAL) -> Measured:
    """Time and memory of every file; one that cannot be opened is named with the reason, and the rest goes on."""
    before = state()
    opened, not_measured = open_files(job)
    all_or_reason(not_measured, opened)
    files = list({record["file"]: record for record, _, _ in opened}.values())
    memory = peak_memory(files, job.exported, job.threads[0])
    times = interleaved([model for _, _, model in opened], warmup=job.warmup, runs=job.runs)
    rows = [
        file_row(record, target, threads, percentiles(row) | {"peak_mib": memory[record["file"]], "runs": len(row)})
        for (record, threads, _), row in zip(opened, times, strict=True)
    ]
    about: dict[str, Any] = {"machine": machine(), "before": before, "after": state()}
    judged = judged_file(files, target)
    if job.sustained_s > 0:
        first = next(model for record, _, model in opened if record is judged)
        about["sustained"] = {"file": judged["file"], "threads": job.threads[0], **sustained(first, job.sustained_s)}
        about["after_sustained"] = state()
    return Measured(files=rows, about=about, not_measured=not_measured, frames=frame_budget(job, judged))


def open_files(job: Job) -> tuple[list[tuple[Json, int, Any]], dict[str, str]]:
    """Every file on every number of threads, and why those are not there that cannot be opened."""
    from models.runtimes import open_model

    opened, failed = [], {}
    for record in job.files:
        try:
            gives = record.get("gives", "picture")
            models = [
                open_model(job.exported / record["file"], record["runtime"], count, gives) for count in job.threads
            ]
        except UserError as error:
            failed[record["file"]] = str(error)
        else:
            opened += [(record, count, model) for count, model in zip(job.threads, models, strict=True)]
    return opened, failed


def frame_budget(job: Job, file: Json) -> list[dict[str, Any]]:
    """The frame budget of the judged file on each number of threads, or nothing where it is left out."""
    if not job.frames or not job.pictures or file["runtime"] != "litert":
        return []
    from tasks.frame_budget import measure_frames

    return [measure_frames(job, file, threads) for threads in job.threads]


def peak_kib() -> int:
    """The most memory this process has held, in KiB.

    Linux's VmHWM begins anew with each program, unlike getrusage's figure, which a child process inherits.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)


def memory_of(path: str, runtime: str, threads: int, gives: Any = "picture") -> float:
    """MiB that opening and running a file adds to a process that has its runtime imported already."""
    from models.runtimes import open_model

    if runtime == "litert":
        import ai_edge_litert.interpreter  # noqa: F401
    else:
        import onnxruntime  # noqa: F401
    before = peak_kib()
    model = open_model(Path(path), runtime, threads, gives)
    for _ in range(MEMORY_RUNS):
        model(model.example())
    return round((peak_kib() - before) / 1024, 1)


def peak_memory(files: Sequence[Json], folder: Path, threads: int) -> dict[str, float]:
    """MiB by file, each measured in a fresh process."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context, max_tasks_per_child=1) as pool:
        jobs = {
            one["file"]: pool.submit(
                memory_of, str(folder / one["file"]), one["runtime"], threads, one.get("gives", "picture")
            )
            for one in files
        }
        return {name: job.result() for name, job in jobs.items()}
