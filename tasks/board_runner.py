"""What runs on a board for the target `ssh:`: times the files beside it and prints one JSON object.

tasks/target_ssh.py packs it with the few modules it needs into one file, runner.pyz, and starts that in a folder with
job.json, input.npy and the model files. Of a board it needs Python 3.10 and, for each file, one of ai_edge_litert or
tflite_runtime, onnxruntime, or the binary benchmark_model on its PATH; what is missing is told. Outputs are written
beside the files. When its standard input ends, because whoever asked is gone, it removes its folder and ends.
"""

import json
import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

from models.errors import UserError
from tasks import benchmark_model
from tasks.machine_state import machine, state

PYTHON_RUNTIMES = {"litert": "ai_edge_litert or tflite_runtime", "onnx": "onnxruntime"}
RUN_S = 600
Json = dict[str, Any]


def die_with_stdin(folder: Path) -> None:
    """End, and leave nothing behind, when standard input does."""

    def watch() -> None:
        while os.read(0, 4096):  # not sys.stdin: its lock would break an exit in the meantime
            pass
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run(folder: Path) -> Json:
    """Everything job.json asks for."""
    job = json.loads((folder / "job.json").read_text())
    before = state()
    rows: list[Json] = []
    failed: dict[str, str] = {}
    opened: list[tuple[str, int, Any]] = []
    tool = shutil.which("benchmark_model")
    for one in job["files"]:
        try:
            opened += [(one["file"], threads, open_file(folder, one, threads)) for threads in job["threads"]]
        except UserError as error:
            if one["runtime"] != "litert" or tool is None:
                failed[one["file"]] = str(error) + (
                    "; nor is benchmark_model on its PATH" if one["runtime"] == "litert" else ""
                )
                continue
            try:
                rows += [by_tool(tool, folder, one, threads, job) for threads in job["threads"]]
            except UserError as second:
                failed[one["file"]] = str(second)
    rows += by_python(folder, opened, job)
    found = {"machine": machine(), "before": before, "after": state(), "rows": rows, "failed": failed}
    return found | sustained_run(opened, job)


def open_file(folder: Path, one: Json, threads: int) -> Any:
    """A file on this board's runtime; a UserError where there is none, or the file is no model for it."""
    try:
        from models.runtimes import open_model

        return open_model(folder / one["file"], one["runtime"], threads, one.get("gives", "picture"))
    except ImportError:
        raise UserError(f"the board's Python has no {PYTHON_RUNTIMES[one['runtime']]} (or no numpy)") from None


def by_python(folder: Path, opened: list[tuple[str, int, Any]], job: Json) -> list[Json]:
    """All opened files timed in turn; the outputs of each on the input pictures are written beside it."""
    if not opened:
        return []
    import numpy as np

    from tasks.timing import interleaved, percentiles

    times = interleaved([model for _, _, model in opened], warmup=job["warmup"], runs=job["runs"])
    pictures = np.load(folder / "input.npy", allow_pickle=False)
    for file, _, model in opened:
        if len(pictures) and pictures.shape[1] == model.size:
            outputs = [model(picture[None]) for picture in pictures]
            np.save(folder / f"{file}.npy", np.concatenate(outputs), allow_pickle=False)
    return [
        {"file": file, "threads": threads, "peak_mib": None, "runs": len(row), **percentiles(row)}
        for (file, threads, _), row in zip(opened, times, strict=True)
    ]


def by_tool(tool: str, folder: Path, one: Json, threads: int, job: Json) -> Json:
    """The same of one file by benchmark_model."""
    words = benchmark_model.arguments(str(folder / one["file"]), threads, warmup=job["warmup"], runs=job["runs"])
    done = subprocess.run(
        [tool, *words],
        stdin=subprocess.DEVNULL,  # ours says whether anybody still wants this
        capture_output=True,
        text=True,
        errors="replace",
        timeout=RUN_S,
        check=False,
    )
    return {"file": one["file"], "threads": threads, **benchmark_model.parse(done.stdout + done.stderr)}


def sustained_run(opened: list[tuple[str, int, Any]], job: Json) -> Json:
    """The judged file for as long as is asked, where a Python runtime opened it."""
    found = [(file, threads, model) for file, threads, model in opened if file == job["judged"]]
    if job["sustained_s"] <= 0 or not found:
        return {}
    from tasks.timing import sustained

    file, threads, model = found[0]
    return {"sustained": {"file": file, "threads": threads, **sustained(model, job["sustained_s"])}}


def main(folder: Path) -> None:
    """The command: see the module's docstring."""
    die_with_stdin(folder)
    print(json.dumps(run(folder), allow_nan=False), flush=True)
    os._exit(0)  # the watching thread cannot be asked to end
