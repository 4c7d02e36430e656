"""Measure every exported file on the runtime it is made for: latency, peak memory, size.

Reads data/students/NAME/exported; writes data/students/NAME/benchmark/benchmark.json. All files and thread
counts are timed in turn, one run each, again and again, so that a machine that slows down meanwhile slows
down all of them alike. Only the run itself is timed, not the hand-over of the picture.

    python -m tasks.benchmark --student NAME
"""

import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.errors import UserError
from tasks.files import check_sha256, read_json, replacing_folder, write_json
from tasks.params import Params, Student
from tasks.stage import STUDENTS, student_main

MEMORY_RUNS = 3


def machine() -> dict[str, Any]:
    """This machine in words, without its name."""
    try:
        system = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        system = platform.system()
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "architecture": platform.machine(),
        "os": f"{system}, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "litert": version("ai-edge-litert"),
        "onnxruntime": version("onnxruntime"),
    }


def cpu_model() -> str:
    """The processor's name as Linux gives it, else as Python does."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def picture(size: int) -> npt.NDArray[np.float32]:
    """(1,S,S,3) float32 in [0,1]: noise, the same every time; latency does not depend on what is shown."""
    return np.random.default_rng(0).random((1, size, size, 3), dtype=np.float32)


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


def memory_of(path: str, runtime: str, threads: int) -> float:
    """MiB that opening and running a file adds to a process that has its runtime imported already."""
    from models.runtimes import open_model

    if runtime == "litert":
        import ai_edge_litert.interpreter  # noqa: F401
    else:
        import onnxruntime  # noqa: F401
    before = peak_kib()
    model = open_model(Path(path), runtime, threads)
    for _ in range(MEMORY_RUNS):
        model(picture(model.size))
    return round((peak_kib() - before) / 1024, 1)


def peak_memory(files: list[dict[str, Any]], folder: Path, threads: int) -> dict[str, float]:
    """MiB by file, each measured in a fresh process."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context, max_tasks_per_child=1) as pool:
        jobs = {
            one["file"]: pool.submit(memory_of, str(folder / one["file"]), one["runtime"], threads) for one in files
        }
        return {name: job.result() for name, job in jobs.items()}


def interleaved(models: list[Any], *, warmup: int, runs: int) -> npt.NDArray[np.float64]:
    """(len(models), runs) milliseconds of invoke(); round by round each model runs once."""
    for model in models:
        model.load(picture(model.size))
        for _ in range(warmup):
            model.invoke()
    times = np.empty((len(models), runs))
    for turn in range(runs):
        for place, model in enumerate(models):
            started = time.perf_counter()
            model.invoke()
            times[place, turn] = (time.perf_counter() - started) * 1000
    return times


def measure(exported: Path, *, warmup: int, runs: int, threads: list[int]) -> dict[str, Any]:
    """benchmark.json's content for a folder of exported files, each checked against its sha256 first."""
    from models.runtimes import open_model

    files = read_json(exported / "exported.json")["files"]
    if not files:
        raise UserError(f"{exported}/exported.json lists no files: run dvc repro quantise")
    for one in files:
        check_sha256(exported / one["file"], one["sha256"], one["file"])
    memory = peak_memory(files, exported, threads[0])
    jobs = [(one, count) for one in files for count in threads]
    models = [open_model(exported / one["file"], one["runtime"], count) for one, count in jobs]
    times = interleaved(models, warmup=warmup, runs=runs)
    return {
        "machine": machine(),
        "files": [line(one, count, times[place], memory) for place, (one, count) in enumerate(jobs)],
    }


def line(one: dict[str, Any], threads: int, times: npt.NDArray[np.float64], memory: dict[str, float]) -> dict[str, Any]:
    """One file on one number of threads."""
    p50, p90, p99 = (round(float(value), 3) for value in np.percentile(times, [50, 90, 99]))
    kept = {key: one[key] for key in ("file", "runtime", "precision", "sha256", "bytes")}
    times_ms = {"p50_ms": p50, "p90_ms": p90, "p99_ms": p99}
    return {**kept, "threads": threads, **times_ms, "peak_mib": memory[one["file"]], "runs": len(times)}


def show(result: dict[str, Any]) -> None:
    """Print one line a file and thread count."""
    for one in result["files"]:
        print(
            f"benchmark: {one['file']:20} {one['threads']} threads  p50 {one['p50_ms']:7.2f} ms  "
            f"p90 {one['p90_ms']:7.2f} ms  {one['bytes'] / 2**20:.2f} MiB  memory {one['peak_mib']:.0f} MiB",
            file=sys.stderr,
        )


def benchmark(params: Params, name: str, block: Student) -> None:
    """The stage: see the module's docstring."""
    folder = STUDENTS / name
    settings = params.benchmark
    result = measure(folder / "exported", warmup=settings.warmup, runs=settings.runs, threads=list(settings.threads))
    show(result)
    with replacing_folder(folder / "benchmark") as written:
        write_json(written / "benchmark.json", result)


if __name__ == "__main__":
    student_main("benchmark", benchmark)
