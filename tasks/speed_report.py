"""What the report tells of latency, video frames, targets and sizes: rows for the page's tables and bars."""

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.target import LOCAL

Json = Mapping[str, Any]


def latency_rows(benchmark: Json) -> list[dict[str, Any]]:
    """The benchmark's results, this machine's first, with the share of the longest p90 each bar takes, in percent."""
    results = sorted(
        ({"target": LOCAL, **one} for one in benchmark["files"]),
        key=lambda one: (one["target"] != LOCAL, one["target"], one["threads"], one["p50_ms"], one["file"]),
    )
    longest = max((one["p90_ms"] for one in results), default=1.0)
    return [
        {
            **one,
            "where": one["target"] + (f", {one['provider']}" if one.get("provider") else ""),
            "bar": round(100 * one["p50_ms"] / longest, 2),
            "mark": round(100 * one["p90_ms"] / longest, 2),
        }
        for one in results
    ]


def target_rows(benchmark: Json) -> list[dict[str, Any]]:
    """Each target with its machine in words, or why it failed, what it left out, its state, and its sustained run."""
    return [
        {
            "target": one["target"],
            "failed": one.get("failed"),
            "machine": ", ".join(f"{key} {value}" for key, value in one.get("machine", {}).items() if value),
            "not_measured": one.get("not_measured", {}),
            "state": state_text(one.get("before"), one.get("after")),
            "sustained": one.get("sustained"),
        }
        for one in benchmark.get("targets", [])
    ]


def state_text(before: Json | None, after: Json | None) -> str:
    """Heat, frequency, governor and load before and after, as far as they could be read."""
    if not before or not after:
        return ""
    parts = []
    for key, words, unit in (
        ("temperatures_c", "temperature", "°C"),
        ("frequencies_mhz", "frequency", " MHz"),
        ("load_1min", "load", ""),
    ):
        values = [highest(one.get(key)) for one in (before, after)]
        if None not in values:
            parts.append(f"{words} {values[0]:g} to {values[1]:g}{unit}")
    parts += [f"governor {', '.join(before['governors'])}"] if before.get("governors") else []
    unread = before.get("not_readable", [])
    parts += [f"not readable: {', '.join(name.replace('_', ' ') for name in unread)}"] if unread else []
    return "; ".join(parts)


def highest(found: Any) -> float | None:
    """The largest of a mapping's or list's numbers, or the number itself."""
    if isinstance(found, Mapping):
        found = list(found.values())
    if isinstance(found, Sequence):
        return max(found, default=None)
    return None if found is None else float(found)


def frame_rows(benchmark: Json) -> list[dict[str, Any]]:
    """Frame budgets, quickest first, with the share each step's median takes of the budget or of the slowest whole."""
    rows = sorted(benchmark.get("frames", []), key=lambda one: one["total"]["p90_ms"])
    widest = max([one["budget_ms"] for one in rows] + [one["total"]["p90_ms"] for one in rows], default=1.0)
    return [
        {
            **one,
            "budget_mark": round(100 * one["budget_ms"] / widest, 2),
            "steps": [{**step, "bar": round(100 * step["p50_ms"] / widest, 2)} for step in one["steps"]],
        }
        for one in rows
    ]


def machine_text(machine: Json) -> str:
    """The benchmark's machine in a sentence."""
    words = "{cpu}, {cores} cores ({architecture}), {os}; Python {python}, LiteRT {litert}, ONNX Runtime {onnxruntime}"
    return words.format(**machine)


def size_rows(files: Sequence[Json]) -> list[dict[str, Any]]:
    """The files by size, with the share of the largest each bar takes, in percent."""
    largest = max(file["bytes"] for file in files)
    rows = [{**file, "bar": round(100 * file["bytes"] / largest, 2)} for file in files]
    return sorted(rows, key=lambda row: (row["bytes"], row["file"]))
