"""Stage exportability: what the student's files would be on a phone, before a teacher is paid for or a student trained.

Reads params.yaml alone; converts the untrained student and writes data/students/NAME/exportability/exportability.json:
figures and findings, each with the layer and what to use instead. A limit of the section `exportability` that is
not kept ends the run with the first layer at fault. How long the untrained files take on this machine is a prediction
for this machine; it is no output (equal work, equal bytes) but data/.work/NAME/exportability.latency.json.
Takes about a minute.

    python -m tasks.exportability --student NAME
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import UserError
from tasks.exportability_rules import Verdict, judge
from tasks.files import replacing_folder, sha256_json, write_json
from tasks.machine_state import machine
from tasks.params import Params
from tasks.stage import STUDENTS, student_main, work_folder
from tasks.student_params import Student
from tasks.timing import interleaved

RESULT = "exportability.json"
LATENCY = "exportability.latency.json"
WARM_BATCHES, WARM_SIZE = 2, 4  # random pictures that BatchNorm sees, so that no layer's output vanishes
WARMUP = 3
OVER_BUDGET = "latency_over_budget"
SHOWN = 12  # findings in the table; all of them are in the file


def exportability(params: Params, name: str, block: Student) -> None:
    """The stage: see the module's docstring."""
    from models.exportability import blank, inspect, mega_macs
    from models.torch_setup import prepare_torch

    prepare_torch(params.train.threads)
    settings, size = params.exportability, block.pairs.size
    student = untrained(block)
    chance = np.random.default_rng(0)
    samples = list(chance.random((settings.calibration_samples, 1, size, size, 3), dtype=np.float32))
    say("converting the untrained student (about half a minute)")
    found = inspect(student, size, samples, params.train.threads)
    findings = [finding.to_json() for finding in found.findings]
    result = {
        "architecture": sha256_json({"architecture": block.architecture.model_dump(), "size": size}),
        "figures": found.figures | {"mega_macs": round(mega_macs(student, blank(size)), 1)},
        "files": {file: len(data) for file, data in found.files.items()},
        "findings": findings,
    }
    # Also where the student is refused: the line that says so names the first layer alone.
    folder = STUDENTS / name / "exportability"
    with replacing_folder(folder) as written:
        write_json(written / RESULT, result)
    latency = predict(found.files, settings.runs, block.gate.max_p90_ms)
    write_json(work_folder(name) / LATENCY, latency)
    verdicts = judge(found.figures | {key: latency[key] for key in (OVER_BUDGET,) if key in latency}, settings)
    show(result, latency, verdicts)
    refuse(findings, verdicts, folder / RESULT)


def untrained(block: Student) -> Any:
    """The student with random weights, the same every time, in eval mode."""
    import torch

    from models.students import build_student

    torch.manual_seed(0)
    student = build_student(block.architecture.model_dump(), block.pairs.size)
    with torch.no_grad():
        for _ in range(WARM_BATCHES):
            student(torch.rand(WARM_SIZE, 3, block.pairs.size, block.pairs.size))
    return student.eval()


def predict(files: Mapping[str, bytes], runs: int, budget_ms: float) -> dict[str, Any]:
    """The p50 in ms of each file on one thread of this machine, timed in turn; int8's over the budget."""
    from models.exportability import INT8
    from models.runtimes import open_model

    if not files:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        models = []
        for name, data in files.items():
            path = Path(folder) / name
            path.write_bytes(data)
            models.append(open_model(path, name.split()[0], 1))
        times = interleaved(models, warmup=WARMUP, runs=runs)
    p50_ms = {name: round(float(np.median(row)), 3) for name, row in zip(files, times, strict=True)}
    return {"machine": machine(), "p50_ms": p50_ms, OVER_BUDGET: round(p50_ms[INT8] / budget_ms, 3)}


def refuse(findings: Sequence[Mapping[str, str]], verdicts: Sequence[Verdict], path: Path) -> None:
    """A UserError in one line for the first limit that is not kept, if there is one."""
    told = complaint(findings, verdicts)
    if told:
        raise UserError(f"{told}; all findings: {path}")


def complaint(findings: Sequence[Mapping[str, str]], verdicts: Sequence[Verdict]) -> str:
    """The first limit that is not kept, with the layer at fault and what to use instead; "" where all are kept."""
    broken = [one for one in verdicts if one.fails]
    lost = [one for one in findings if one["kind"] == "unconvertible"]
    if not broken and not lost:
        return ""
    kinds = ("unconvertible",) if lost else broken[0].explained_by
    named = [one for kind in kinds for one in findings if one["kind"] == kind]
    told = in_words(named[0]) if named else "no single layer is at fault"
    counts = [f"{one.rule} is {one.limit:g}, found {one.value:g}" for one in broken]
    return f"{told} ({'; '.join(counts) or 'nothing can be made of it'})"


def in_words(finding: Mapping[str, str]) -> str:
    """A finding as part of a sentence."""
    from models.exportability import KINDS

    op = f" ({finding['op']})" if finding["op"] else ""
    why = f" ({finding['why']})" if finding["why"] else ""
    return f"{finding['layer']}{op} {KINDS[finding['kind']]}{why}: use {finding['instead']}"


def show(result: Mapping[str, Any], latency: Mapping[str, Any], verdicts: Sequence[Verdict]) -> None:
    """Print what was found, by layer, and every limit."""
    from rich.console import Console
    from rich.table import Table

    console = Console(stderr=True, markup=False, highlight=False)
    limits = Table("limit", "found", "at most", "", title="exportability", title_justify="left")
    for one in verdicts:
        limits.add_row(one.rule.removeprefix("max_"), f"{one.value:g}", f"{one.limit:g}", "" if one.kept else mark(one))
    console.print(limits)
    findings = result["findings"]
    if findings:
        table = Table("layer", "operation", "what", "use instead")
        for one in findings[:SHOWN]:
            table.add_row(one["layer"], one["op"], one["kind"], one["instead"])
        console.print(table)
    if len(findings) > SHOWN:
        console.print(f"and {len(findings) - SHOWN} more")
    if latency:
        told = ", ".join(f"{name} {ms:.1f} ms" for name, ms in latency["p50_ms"].items())
        say(f"{result['figures']['mega_macs']:g} MMAC; untrained, on {latency['machine']['cpu']}, one thread: {told}")


def mark(verdict: Verdict) -> str:
    """What a limit that is not kept means."""
    return "warning" if verdict.warns else "refused"


def say(line: str) -> None:
    """Show what is being done."""
    print(f"exportability: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    student_main("exportability", exportability)
