"""Measure every exported file on every target it is made for: latency, memory, size, and a video frame's budget.

Reads exported/ and the validation pictures of pairs/ of one student (and student/, for the browser's parity to torch);
writes data/students/NAME/benchmark/benchmark.json. `benchmark.targets` in params.yaml says where: this machine, a
browser, a board by SSH, a phone by ADB (tasks/target.py). A target that cannot be measured is told in one line and in
benchmark.json; the others are measured all the same, and the gate is told what is missing.

    python -m tasks.benchmark --student NAME
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import UserError
from models.spread import spread
from tasks.files import check_sha256, read_json, replacing_folder, write_json
from tasks.machine_state import machine
from tasks.params import Params
from tasks.stage import STUDENTS, one_line, student_main
from tasks.stage_params import Benchmark
from tasks.student_params import Student
from tasks.target import Images, Job, Measured
from tasks.target_adb import measure_adb
from tasks.target_browser import measure_browser
from tasks.target_local import measure_local
from tasks.target_ssh import measure_ssh

PARITY_PICTURES = 4  # on which a target's outputs are compared with this machine's

# By what stands before the colon of a target's name.
MEASURES: dict[str, Callable[[Job, str], Measured]] = {
    "local": measure_local,
    "browser": measure_browser,
    "ssh": measure_ssh,
    "adb": measure_adb,
}


def measure(folder: Path, settings: Benchmark) -> dict[str, Any]:
    """benchmark.json's content for a student's folder; each file is checked against its sha256 first."""
    return measured(job_of(folder, settings, validation_pictures(folder / "pairs"), settings.frames), settings.targets)


def job_of(folder: Path, settings: Benchmark, pictures: Sequence[Images], frames: int) -> Job:
    """What each target is asked of a student's files, which are checked against their sha256."""
    exported = folder / "exported"
    files = read_json(exported / "exported.json")["files"]
    if not files:
        raise UserError(f"{exported}/exported.json lists no files: run dvc repro quantise")
    for one in files:
        check_sha256(exported / one["file"], one["sha256"], one["file"])
    return Job(
        exported=exported,
        files=files,
        pictures=pictures,
        warmup=settings.warmup,
        runs=settings.runs,
        threads=list(settings.threads),
        sustained_s=settings.sustained_s,
        frames=frames,
        benchmark_model=settings.benchmark_model,
    )


def measured(job: Job, targets: Sequence[str]) -> dict[str, Any]:
    """What all targets answer."""
    result: dict[str, Any] = {"machine": machine(), "files": [], "targets": [], "frames": []}
    for target in targets:
        add(result, target, job)
    return result


def add(result: dict[str, Any], target: str, job: Job) -> None:
    """Measure one target and put what it gave, or why it gave nothing, into the result."""
    try:
        found = MEASURES[target.partition(":")[0]](job, target)
    except (UserError, OSError) as error:
        reason = one_line(error)
        print(f"benchmark: {target} was not measured: {reason}", file=sys.stderr)
        result["targets"].append({"target": target, "failed": reason})
        return
    for file, reason in found.not_measured.items():
        print(f"benchmark: {file} was not measured on {target}: {reason}", file=sys.stderr)
    result["targets"].append({"target": target, "not_measured": found.not_measured, **found.about})
    result["files"] += found.files
    result["frames"] += [{"target": target, **one} for one in found.frames]


def validation_pictures(pairs: Path) -> list[Images]:
    """A few validation inputs, evenly over their order, each (1,S,S,3) in [0,1]; none where there are no pairs."""
    path = pairs / "val.inputs.npy"
    if not path.is_file():
        return []
    try:
        inputs = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UserError(f"{path} is no whole array ({error}): run dvc repro curate again") from None
    rows = spread(len(inputs), PARITY_PICTURES)
    return [inputs[row : row + 1].astype(np.float32) / np.float32(255) for row in rows]


def show(result: dict[str, Any]) -> None:
    """Print one line a target, file and thread count, and one a frame budget."""
    for one in result["files"]:
        memory = "" if one["peak_mib"] is None else f"  memory {one['peak_mib']:.0f} MiB"
        where = f"{one['target']}, {one['provider']}" if one.get("provider") else one["target"]
        print(
            f"benchmark: {one['file']:20} {one['threads']} thread{'s' if one['threads'] > 1 else ' '} p50 "
            f"{one['p50_ms']:7.2f} ms  p90 {one['p90_ms']:7.2f} ms  {one['bytes'] / 2**20:.2f} MiB{memory}  {where}",
            file=sys.stderr,
        )
    for one in result["frames"]:
        verdict = "fits" if one["fits"] else f"does not fit, most of it in: {one['stops']}"
        print(
            f"benchmark: a {one['height']}p frame, {one['file']}, {one['threads']} thread{'s' * (one['threads'] > 1)}, "
            f"{one['target']}: p50 {one['total']['p50_ms']:.1f} ms  p90 {one['total']['p90_ms']:.1f} ms of "
            f"{one['budget_ms']:g} ms: {verdict}",
            file=sys.stderr,
        )


def benchmark(params: Params, name: str, block: Student) -> None:
    """The stage: see the module's docstring."""
    publish(name, measure(STUDENTS / name, params.benchmark))


def publish(name: str, result: dict[str, Any]) -> None:
    """Show and write what was measured of a student."""
    folder = STUDENTS / name
    show(result)
    if any("failed" in one or one["not_measured"] for one in result["targets"]):
        print(f"benchmark: to measure again what is missing: dvc repro -f -s benchmark@{name}", file=sys.stderr)
    with replacing_folder(folder / "benchmark") as written:
        write_json(written / "benchmark.json", result)


if __name__ == "__main__":
    student_main("benchmark", benchmark)
