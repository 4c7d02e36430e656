"""benchmark, of classifiers: every file on every target, as tasks/benchmark.py does it.

A board, a phone and a browser are asked by programs that draw pictures (tasks/board_runner.py, tasks/browser): of
classifiers they are told as not measured.
"""

from typing import Any

from models.errors import UserError
from tasks.benchmark import add, show
from tasks.classification.params import Classifier
from tasks.files import check_sha256, read_json, replacing_folder, write_json
from tasks.machine_state import machine
from tasks.params import Params
from tasks.stage import STUDENTS
from tasks.target import LOCAL, Job


def benchmark(params: Params, name: str, block: Classifier) -> None:
    """Make data/students/NAME/benchmark."""
    folder, settings = STUDENTS / name, params.benchmark
    files = read_json(folder / "exported" / "exported.json")["files"]
    if not files:
        raise UserError(f"{folder}/exported lists no files: run dvc repro")
    for one in files:
        check_sha256(folder / "exported" / one["file"], one["sha256"], one["file"])
    job = Job(
        exported=folder / "exported",
        files=files,
        pictures=[],
        warmup=settings.warmup,
        runs=settings.runs,
        threads=list(settings.threads),
        sustained_s=settings.sustained_s,
        frames=0,
        benchmark_model=settings.benchmark_model,
    )
    result: dict[str, Any] = {"machine": machine(), "files": [], "targets": [], "frames": []}
    for target in settings.targets:
        if target == LOCAL:
            add(result, target, job)
        else:
            result["targets"].append({"target": target, "failed": "classifiers are timed on this machine alone so far"})
    show(result)
    with replacing_folder(folder / "benchmark") as written:
        write_json(written / "benchmark.json", result)
