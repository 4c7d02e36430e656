"""Speed and memory against fixed targets, as ratios measured in turn on this machine: `make bench`.

Reads params.yaml and, where they are there, the first student's files; prints one table and writes
data/bench.json, a list of {name, value, target, holds, unit, note}. What could not be measured has the value
null, does not hold, and says why. Takes about three minutes.

The reference is the student one would write without measuring: MobileNetV3-small-0.5 encoder, concatenated
skips, bilinear, a head at full resolution; float32 on LiteRT; trained in eager mode, contiguous, from PNGs.

    python -m tasks.bench
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median

from models.errors import UserError
from tasks import bench_device as device
from tasks.bench_lines import Goal, Line, at_least, at_most, not_measured, say
from tasks.files import read_json, write_json
from tasks.params import Params, load_params
from tasks.stage import STUDENTS, WORK, guarded
from tasks.student_params import Student

RESULT = Path("data/bench.json")
NO_OP_RUNS = 3
TIMEOUT_S = 300

TRAINING = ("training speed over the reference's", 4.0, "ratio")
DATA_WAIT = ("data wait in a training step", 0.03, "share")
NO_OP = ("no-op make run over no-op dvc repro", 1.5, "ratio")
TEACHERS = 1.5  # pairs per second over the plain loop's, of each local teacher
STYLE_NETWORK = Path("../shared/data/teachers/udnie.onnx")
MEMORY = ("peak memory of the largest process of make run", 4.0, "GiB")


def training(params: Params, name: str, block: Student, work: Path) -> list[Line]:
    """Samples per second of our loop over the reference's, and the share of our step spent on data."""
    from tasks.bench_training import compare

    say("training steps of the default student and of the reference, in turn")
    found = compare(name, block, STUDENTS / name / "pairs", work, params.train)
    note = f"{found.ours_per_s:.1f} over {found.reference_per_s:.1f} samples/s, {found.data}"
    speed = found.ours_per_s / found.reference_per_s
    wait = f"{1000 * found.wait_s:.2f} ms of a step of {1000 * found.step_s:.0f} ms"
    return [
        at_least(TRAINING, speed, note),
        at_most(DATA_WAIT, found.wait_s / found.step_s, wait),
    ]


def teachers(params: Params, work: Path) -> list[Line]:
    """Pairs per second of each local teacher as generate asks it, over one picture after the other."""
    from tasks import bench_teachers as kinds

    rivals = [kinds.painter(), kinds.restyler(), kinds.stylegan2(work / "faces")]
    if STYLE_NETWORK.exists():
        rivals.append(kinds.onnx(STYLE_NETWORK))
    lines = []
    for number, rival in enumerate(rivals):
        say(f"teacher {rival.name}, by generate and by the plain loop in turn")
        ours, plain = kinds.compare(rival, params, work / f"teacher-{number}")
        note = f"{ours:.2f} over {plain:.2f} pairs/s, {params.generate.workers} workers"
        lines.append(at_least((f"teacher {rival.name}, over the plain loop", TEACHERS, "ratio"), ours / plain, note))
    return lines


def no_op(name: str) -> list[Line]:
    """Wall time of `make run` over that of `dvc repro` when nothing has changed, started in turn."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    run = ["make", "run", f"STUDENT={name}"]
    repro = [sys.executable, "-m", "dvc", "repro", f"lineage@{name}"]
    why = why_no_op_cannot_be_timed(name, environment)
    if why:
        return [not_measured(NO_OP, why)]
    say("make run and dvc repro with nothing to do, in turn")
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(NO_OP_RUNS):
        for command, seconds in zip((run, repro), times, strict=True):
            started = time.perf_counter()
            code = subprocess.run(command, env=environment, capture_output=True, timeout=TIMEOUT_S).returncode
            seconds.append(time.perf_counter() - started)
            if code:
                return [not_measured(NO_OP, f"`{' '.join(command)}` ended with exit code {code}")]
    ours, theirs = median(times[0]), median(times[1])
    return [at_most(NO_OP, ours / theirs, f"{ours:.1f} s over {theirs:.1f} s, median of {NO_OP_RUNS}")]


def why_no_op_cannot_be_timed(name: str, environment: dict[str, str]) -> str:
    """What has to be done first, or "": timing must never start an installation or a pipeline run."""
    from tasks.pipeline import stale_stages

    try:
        if subprocess.run(["make", "-q", "env"], env=environment, capture_output=True).returncode:
            return "the environment is not up to date: make env"
        stale = stale_stages(name)
    except FileNotFoundError:
        return "there is no `make` here"
    except UserError as error:
        return str(error)
    return f"the pipeline is not up to date ({', '.join(stale)}): make run" if stale else ""


def memory(name: str) -> list[Line]:
    """The most memory any stage's process held when it last ran, from the stages' run records."""
    from tasks.pipeline import SHARED, STAGES

    paths = {stage: (WORK if stage in SHARED else WORK / name) / f"{stage}.run.json" for stage in STAGES}
    missing = [stage for stage, path in paths.items() if not path.exists()]
    if missing:
        return [not_measured(MEMORY, f"no run record of {', '.join(missing)}: make run")]
    peaks = {stage: read_json(path)["peak_mib"] / 1024 for stage, path in paths.items()}
    largest = max(peaks, key=lambda stage: peaks[stage])
    return [at_most(MEMORY, peaks[largest], f"stage {largest}")]


def measured(goals: tuple[Goal, ...], work: Callable[[], list[Line]]) -> list[Line]:
    """The lines of a measurement, or why there are none: one that fails must not cost the others."""
    try:
        return work()
    except (UserError, OSError, subprocess.SubprocessError) as error:
        return [not_measured(goal, " ".join(str(error).split())) for goal in goals]


def show(lines: list[Line]) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    table = Table("what", "value", "target", "holds", "unit", "note")
    for line in lines:
        value = "-" if line.value is None else f"{line.value:.3g}"
        table.add_row(line.name, value, f"{line.target:g}", "yes" if line.holds else "NO", line.unit, line.note)
    Console().print(table)


def bench() -> None:
    """Measure everything, print the table, write data/bench.json."""
    from models.torch_setup import prepare_torch

    params = load_params()
    name, block = next(iter(params.students.items()))
    prepare_torch(params.train.threads)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        lines = [
            *measured((device.LATENCY,), lambda: device.latency(params, name, block, work)),
            *measured(device.FILES, lambda: device.files(params, name)),
            *measured(device.FIDELITY, lambda: device.fidelity(name)),
            *measured((device.FRAME,), lambda: device.frames(name)),
            *measured(device.QUALITY, lambda: device.quality(name)),
            *measured((TRAINING, DATA_WAIT), lambda: training(params, name, block, work)),
            *measured((("teachers over the plain loop", TEACHERS, "ratio"),), lambda: teachers(params, work)),
            *measured((NO_OP,), lambda: no_op(name)),
            *measured((MEMORY,), lambda: memory(name)),
        ]
    show(lines)
    write_json(RESULT, [asdict(line) for line in lines])


if __name__ == "__main__":
    guarded("bench", bench)
