"""One trial of a search: what an architecture takes untrained, what it learns, how good it is on the validation pairs.

Knows no Optuna; tasks/search_study.py says what is tried. Reads pairs/ of the student; writes to a folder below
data/.work alone.
"""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.errors import UserError
from models.spread import spread
from tasks.benchmark import MEASURES
from tasks.exportability import complaint, untrained
from tasks.exportability_rules import judge
from tasks.files import sha256_bytes, write_bytes
from tasks.params import Params
from tasks.stage import STUDENTS
from tasks.stage_params import Benchmark
from tasks.student_params import Student
from tasks.target import BROWSER, LOCAL, Job, Json, of_target
from tasks.target_local import open_files
from tasks.timing import interleaved, percentiles

if TYPE_CHECKING:
    from torch import nn

    from models.exportability import Exportability
    from models.training import Line, Training

CANDIDATE, REFERENCE = "candidate", "reference"  # names of the two files that are timed
PERCENTILES = ("p50_ms", "p90_ms")
TRIES = 3  # of the timing
SHOWN = 3  # validation pictures that are kept of each trial
Watch = Callable[["Training", "Line"], None]


def cost_of(params: Params, block: Student, folder: Path, *, is_own: bool) -> dict[str, Any]:
    """What the block's architecture takes untrained, or {"refused": why} where it cannot be had or measured.

    p50_ms and p90_ms of the file that the gate's target runs, on one thread, and the same of the block's own
    architecture (reference_...), both timed in turn: a machine that gets slower during a night makes both slower. So
    the block's own comes first; UserError where not even that can be converted or measured.
    """
    from models.exportability import blank, mega_macs

    try:
        student = built(block)
        found = converted(params, block, student)
        refused = complaint([one.to_json() for one in found.findings], judge(found.figures, params.exportability))
    except UserError as error:
        return {"refused": str(error)}
    content = judged_content(found, block.gate.target)
    if is_own:
        if not content:
            raise UserError(f"the block's own architecture is no reference for others: {refused}")
        write_bytes(folder / REFERENCE, content)
    if refused:
        return {"refused": refused}
    write_bytes(folder / CANDIDATE, content)
    measured = timed(folder, params.benchmark, block.gate.target)
    if isinstance(measured, str):
        return {"refused": measured}
    figures = {"mega_macs": round(mega_macs(student, blank(block.pairs.size)), 1), "bytes": len(content)}
    figures["parameters"] = sum(parameter.numel() for parameter in student.parameters())
    return {**measured, **figures}


def built(block: Student) -> "nn.Module":
    """The untrained student; a UserError where there can be none."""
    from models.steps import first_line

    try:
        student: nn.Module = untrained(block)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - timm's encoders have exceptions of their own
        raise UserError(f"{block.architecture.encoder} cannot be built: {first_line(error)}") from None
    return student


def converted(params: Params, block: Student, student: "nn.Module") -> "Exportability":
    """The student's untrained files and what is to be said about them; about half a minute."""
    from models.exportability import inspect

    size, chance = block.pairs.size, np.random.default_rng(0)
    count = params.exportability.calibration_samples
    samples = list(chance.random((count, 1, size, size, 3), dtype=np.float32))
    return inspect(student, size, samples, params.train.threads)


def judged_content(found: "Exportability", target: str) -> bytes:
    """The bytes of the file that a target runs (tasks/target.py, judged_file); none of what cannot be converted."""
    from models.exportability import INT8, ONNX

    return found.files.get(ONNX if target == BROWSER else INT8, b"")


def timed(folder: Path, settings: Benchmark, target: str) -> dict[str, float] | str:
    """p50_ms, p90_ms, reference_p50_ms and reference_p90_ms of a folder's two files; or why the candidate has none.

    Each is the least of some tries: other work on the machine only adds to a time, and may fall in step with the turns.
    UserError where the target does not answer, or does not measure the reference.
    """
    records = [record(folder / name, target) for name in (CANDIDATE, REFERENCE)]
    job = Job(
        exported=folder,
        files=records,
        pictures=[],
        warmup=settings.warmup,
        runs=settings.runs,
        threads=[1],
        sustained_s=0,
        frames=0,
        benchmark_model=settings.benchmark_model,
    )
    found: dict[str, float] = {}
    for _ in range(TRIES):
        rows, failed = timed_here(job) if target == LOCAL else timed_there(job, target)
        if REFERENCE not in rows:
            raise UserError(f"the block's own architecture was not measured: {failed[REFERENCE]}")
        if CANDIDATE not in rows:
            return failed[CANDIDATE]
        for file, prefix in ((CANDIDATE, ""), (REFERENCE, "reference_")):
            for key in PERCENTILES:
                taken = float(rows[file][key])
                found[prefix + key] = min(taken, found.get(prefix + key, taken))
    return found


def timed_here(job: Job) -> tuple[dict[str, Json], dict[str, str]]:
    """p50_ms and p90_ms on this machine by file, and why a file has none; no memory, as a benchmark measures it."""
    opened, failed = open_files(job)
    times = interleaved([model for _, _, model in opened], warmup=job.warmup, runs=job.runs)
    return {file["file"]: percentiles(row) for (file, _, _), row in zip(opened, times, strict=True)}, failed


def timed_there(job: Job, target: str) -> tuple[dict[str, Json], dict[str, str]]:
    """The same on another target."""
    measured = MEASURES[target.partition(":")[0]](job, target)
    return {row["file"]: row for row in of_target(measured.files, target)}, measured.not_measured


def record(path: Path, target: str) -> Json:
    """A file as exported.json describes one."""
    data = path.read_bytes()
    runtime, precision = ("onnx", "fp32") if target == BROWSER else ("litert", "int8")
    kind = {"file": path.name, "runtime": runtime, "precision": precision}
    return {**kind, "sha256": sha256_bytes(data), "bytes": len(data)}


def learned(
    params: Params, name: str, block: Student, checkpoint: Path, *, every: int, watch: Watch
) -> "tuple[nn.Module, list[Line]]":
    """The block's student trained from scratch, validated `every` so many steps; goes on from a checkpoint."""
    from accelerate.utils import set_seed

    from models.students import build_student
    from tasks.learning import learn, make_recipe

    set_seed(block.train.seed)
    student = build_student(block.architecture.model_dump(), block.pairs.size)
    often = min(every, params.train.checkpoint_every)
    recipe = replace(make_recipe(params, block), validate_every=every, checkpoint_every=often)
    return learn(name, block, student, recipe, checkpoint, watch=watch)


def score(name: str, student: "nn.Module") -> tuple[dict[str, float], bytes]:
    """Figures of a float32 student on the validation pairs, never the test ones, and SHOWN of its pictures (.npy)."""
    import torch

    from tasks.quality import TORCH, measure_all, of_torch, pooled, read_pairs, rounded, to_bytes

    inputs, targets = read_pairs(STUDENTS / name / "pairs", "val")
    kept = io.BytesIO()
    with torch.inference_mode():
        models = {TORCH: of_torch(student)}
        columns = measure_all(models, inputs, targets, {})
        made = models[TORCH](inputs[spread(len(inputs), SHOWN)])
    np.save(kept, to_bytes(made), allow_pickle=False)
    return rounded(pooled(columns[TORCH])), kept.getvalue()
