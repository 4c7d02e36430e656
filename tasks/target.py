"""What every target of the benchmark is asked, what it answers, and which file is judged there.

A target is `local`, `browser`, `ssh:user@host` (with `:port` if it is another than 22), `adb` or `adb:SERIAL`. Each has
a module with a function from Job to Measured; one that cannot be measured raises a UserError of one line.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.errors import UserError

LOCAL, BROWSER = "local", "browser"
# No part may begin with a dash or hold a space: each becomes an argument of its own.
SSH = re.compile(r"ssh:(?P<user>[A-Za-z0-9_][\w.-]*)@(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*)(:(?P<port>[0-9]{1,5}))?", re.A)
ADB = re.compile(r"adb(:(?P<serial>[A-Za-z0-9][A-Za-z0-9._:-]*))?", re.A)
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.A)  # safe as a word of a remote command

Images = npt.NDArray[np.float32]
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is to be measured, the same for every target."""

    exported: Path  # the folder of the files
    files: Sequence[Json]  # exported.json's lines; their bytes are checked
    pictures: Sequence[Images]  # of the validation pairs, each (1,S,S,3) in [0,1], on which outputs are compared
    warmup: int
    runs: int
    threads: Sequence[int]
    sustained_s: float
    frames: int  # of the frame budget; 0 leaves it out
    benchmark_model: str  # path of TensorFlow Lite's benchmark_model for Android, or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a target answered, as it goes into benchmark.json."""

    files: list[dict[str, Any]]  # one line a file and number of threads
    about: dict[str, Any]  # machine, its state before and after, sustained run
    not_measured: dict[str, str] = field(default_factory=dict)  # file -> why, in a line
    frames: list[dict[str, Any]] = field(default_factory=list)


def check_target(name: str) -> str:
    """The name, if it is one of a target; a ValueError that says what there is."""
    if name in (LOCAL, BROWSER) or ADB.fullmatch(name):
        return name
    match = SSH.fullmatch(name)
    if match and 0 < int(match["port"] or 22) < 65536:
        return name
    raise ValueError("a target is local, browser, ssh:user@host, ssh:user@host:port, adb or adb:SERIAL")


def file_row(record: Json, target: str, threads: int, figures: Json) -> dict[str, Any]:
    """One file on one number of threads; `figures` are p50_ms, p90_ms, p99_ms, peak_mib (None: not known), runs."""
    kept = {key: record[key] for key in ("file", "runtime", "precision", "sha256", "bytes")}
    return {**kept, "target": target, "threads": threads, **figures}


def judged_file(files: Sequence[Json], target: str = LOCAL) -> Json:
    """The file that a target runs: int8 LiteRT, or the first; in a browser float32 ONNX, where int8 gains nothing."""
    wanted = ("onnx", "fp32") if target == BROWSER else ("litert", "int8")
    return next((one for one in files if (one["runtime"], one["precision"]) == wanted), files[0])


def of_target(rows: Sequence[Json], target: str) -> list[Json]:
    """The rows of one target; rows that name none are local ones. WebGPU's are not the browser's own."""
    return [row for row in rows if row.get("target", LOCAL) == target and row.get("provider", "wasm") == "wasm"]


def fastest_files(rows: Sequence[Json], files: Sequence[Json]) -> dict[str, str]:
    """The file with the least p50 on one thread of this machine, by runtime; none of a runtime that was not timed."""
    runtimes = {one["file"]: one["runtime"] for one in files}
    found: dict[str, Json] = {}
    for row in of_target(rows, LOCAL):
        runtime = runtimes[row["file"]]
        if row["threads"] == 1 and (runtime not in found or row["p50_ms"] < found[runtime]["p50_ms"]):
            found[runtime] = row
    return {runtime: row["file"] for runtime, row in found.items()}


def p90_on_target(benchmark: Json, files: Sequence[Json], target: str) -> tuple[float | None, str]:
    """The p90 in ms of the judged file on one thread of a target, and of which file; or None and why there is none."""
    file = judged_file(files, target)
    names = public_names(one["target"] for one in benchmark.get("targets", []))
    where = names.get(target, target.partition(":")[0])
    rows = [one for one in of_target(benchmark["files"], target) if one["sha256"] == file["sha256"]]
    for row in rows:
        if row["threads"] == 1:
            return row["p90_ms"], f"{file['file']} on {where}"
    told = {one["target"]: one for one in without_addresses(benchmark)["targets"]}.get(where)
    if told is None or target not in names:
        return None, f"was not measured on {where}: it is not among benchmark.targets"
    if "failed" in told:
        return None, f"was not measured on {where}: {told['failed']}"
    reason = told.get("not_measured", {}).get(file["file"], "one thread is not among benchmark.threads")
    return None, f"of {file['file']} was not measured on {where}: {reason}"


def without_addresses(benchmark: Json) -> dict[str, Any]:
    """benchmark.json for outputs that leave this machine: a board or phone has no address, but is ssh, ssh-2, adb."""
    names = public_names(one["target"] for one in benchmark.get("targets", []))
    addresses = [part for name in names for part in re.split(r"[:@]", name)[1:] if not part.isdigit()]
    # The longest first: one may be a part of another.
    hidden = sorted({*addresses, *(name.partition(":")[2] for name in names)} - {""}, key=lambda part: -len(part))

    def renamed(one: Json) -> dict[str, Any]:
        return {**one, "target": names.get(one.get("target", LOCAL), LOCAL)}

    def plain(text: str) -> str:
        for part in hidden:
            text = text.replace(part, "...")
        return text

    told = [renamed(one) for one in benchmark.get("targets", [])]
    for one in told:
        if "failed" in one:
            one["failed"] = plain(one["failed"])
        if "not_measured" in one:
            one["not_measured"] = {file: plain(reason) for file, reason in one["not_measured"].items()}
    rows = {key: [renamed(one) for one in benchmark.get(key, [])] for key in ("files", "frames")}
    return {**benchmark, **rows, "targets": told}


def public_names(targets: Iterable[str]) -> dict[str, str]:
    """Each target's name without its address, numbered from the second of a kind on."""
    names: dict[str, str] = {}
    for target in targets:
        kind = target.partition(":")[0]
        same = sum(name.partition("-")[0] == kind for name in names.values())
        names[target] = f"{kind}-{same + 1}" if same else kind
    return names


def all_or_reason(not_measured: Mapping[str, str], measured: Sequence[Any]) -> None:
    """A UserError with the first reason where not one file could be measured."""
    if not measured:
        raise UserError(next(iter(not_measured.values()), "there is no file for it"))
