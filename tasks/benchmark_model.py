"""TensorFlow Lite's benchmark_model: how it is called, and its report as numbers.

Used on phones (tasks/target_adb.py) and on boards without Python's runtimes (tasks/board_runner.py), so it needs the
standard library alone. The report is text for people and differs by version: a log prefix (`INFO: `, or logcat's),
percentiles since 2024, two forms of the memory line, numbers such as 2.95034e+06. Its single runs are not in it:
where it has no percentiles, p50 is the mean, and p90 and p99 are the largest time, which cannot be too small.
"""

import re
from typing import Any

from models.errors import UserError

NUMBER = r"([0-9.]+(?:e[+-]?[0-9]+)?)"
TIMINGS = re.compile(
    rf"Inference timings in us: Init: {NUMBER}, First inference: {NUMBER}, "
    rf"Warmup \(avg\): {NUMBER}, Inference \(avg\): {NUMBER}"
)
RUNS_LINE = re.compile(r"^(?!.*\(microseconds\)).*\bcount=(?P<count>\d+)(?P<rest>( \w+=\S+)*)\s*$", re.M)
FIGURE = re.compile(rf"(\w+)={NUMBER}")
PEAK = re.compile(rf"Overall peak memory footprint \(MB\) via periodic monitoring: {NUMBER}")
MEMORY = re.compile(
    rf"(?:Memory footprint delta from the start of the tool|Peak memory footprint) \(MB\): .*overall={NUMBER}"
)
DELEGATE = re.compile(r"Replacing (\d+) out of (\d+) node\(s\) with delegate \((\w+)\) node, yielding (\d+) partitions")
OPERATOR = re.compile(rf"^\s*([A-Z][\w-]*)\s+(\d+)\s+{NUMBER}\s+{NUMBER}%\s+{NUMBER}%", re.M)
SUMMARY = "Summary by node type"
REGULAR = "Operator-wise Profiling Info for Regular Benchmark Runs"
KILO = 1000.0


def arguments(graph: str, threads: int, *, warmup: int, runs: int, at_least_s: float = 0.0) -> list[str]:
    """The words after benchmark_model; it runs `runs` times and for `at_least_s` seconds, whichever is longer."""
    return [
        f"--graph={graph}",
        f"--num_threads={threads}",
        f"--warmup_runs={max(1, warmup)}",
        "--warmup_min_secs=0",
        f"--num_runs={runs}",
        f"--min_secs={at_least_s:g}",
        "--report_peak_memory_footprint=true",
    ]


def parse(report: str) -> dict[str, Any]:
    """p50_ms, p90_ms, p99_ms, peak_mib, runs, init_ms, first_ms and what they are taken from.

    Raises a UserError with what the tool said where there are no timings in it.
    """
    timings = TIMINGS.search(report)
    if timings is None:
        raise UserError(f"benchmark_model gave no timings: {complaint(report)}")
    init, first, _, mean = (float(value) / KILO for value in timings.groups())
    lines = list(RUNS_LINE.finditer(report, 0, timings.start()))
    figures = {name: float(value) / KILO for name, value in FIGURE.findall(lines[-1]["rest"])} if lines else {}
    percentiles = {"median", "p95"} <= figures.keys()
    # A single run is told as `curr` alone.
    largest = figures.get("max", figures.get("curr", mean))
    return {
        "p50_ms": round(figures["median"] if percentiles else mean, 3),
        "p90_ms": round(figures["p95"] if percentiles else largest, 3),
        "p99_ms": round(largest, 3),
        "peak_mib": memory(report),
        "runs": int(lines[-1]["count"]) if lines else 1,
        "init_ms": round(init, 3),
        "first_ms": round(first, 3),
        "measured_by": "benchmark_model: "
        + ("p90 is its p95, p99 its maximum" if percentiles else "p50 is its mean, p90 and p99 its maximum"),
    }


def memory(report: str) -> float | None:
    """The most MiB that the tool held, or that it grew by where its version tells only that; None if neither."""
    found = PEAK.search(report) or MEMORY.search(report)
    return round(float(found[1]), 1) if found else None


def delegates(report: str) -> list[dict[str, Any]]:
    """Which delegates took how many of the nodes, in how many partitions."""
    return [
        {"delegate": name, "nodes": int(taken), "of": int(total), "partitions": int(partitions)}
        for taken, total, name, partitions in DELEGATE.findall(report)
    ]


def by_operator(report: str) -> list[dict[str, Any]]:
    """Milliseconds of a run by kind of operator, longest first, of a report with --enable_op_profiling=true."""
    _, _, regular = report.partition(REGULAR)
    _, _, summary = regular.partition(SUMMARY)
    rows = [
        {"operator": name, "count": int(count), "mean_ms": float(mean)}
        for name, count, mean, _, _ in OPERATOR.findall(summary)
    ]
    return sorted(rows, key=lambda row: -row["mean_ms"])


def complaint(report: str) -> str:
    """The first line that tells of an error, else the last there is."""
    lines = [" ".join(line.split()) for line in report.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"error|fail|not found|no such|cannot|denied", line, re.I)]
    return f"{(errors or lines[-1:] or ['it said nothing'])[0]:.160}"
