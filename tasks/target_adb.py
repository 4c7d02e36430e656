"""Target `adb` or `adb:SERIAL`: an Android phone, by TensorFlow Lite's benchmark_model.

`benchmark.benchmark_model` in params.yaml is the path of the tool built for Android (the android_aarch64 binary of the
nightly builds). It and the .tflite files are pushed into a temporary folder on the phone, which is removed again; ONNX
files are not measured there.
"""

import re
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import Any

from models.errors import UserError
from tasks.benchmark_model import arguments, by_operator, complaint, delegates, parse
from tasks.target import ADB, FILE_NAME, Job, Json, Measured, all_or_reason, file_row, judged_file
from tasks.timing import WINDOW_S

FOLDER = "/data/local/tmp"
TOOL = "benchmark_model"
COMMAND_S = 60
RUN_S = 300
PROFILED_RUNS = 10
# Read in one go; what is not there or not for the shell's user is left out.
PROPERTIES = {"cpu": "ro.soc.model", "phone": "ro.product.model", "android": "ro.build.version.release"}


class Phone:
    """One device, by adb."""

    def __init__(self, adb: str, serial: str) -> None:
        self.words = [adb, "-s", serial]

    def call(self, *words: str, seconds: float = COMMAND_S) -> str:
        """What an adb command prints; a UserError where it fails or the phone is gone."""
        try:
            done = subprocess.run(
                [*self.words, *words], capture_output=True, text=True, errors="replace", timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired:
            raise UserError(f"adb {words[0]} did not end within {seconds:g} s: is the phone still connected?") from None
        if done.returncode:
            raise UserError(f"adb {words[0]} failed: {complaint(done.stderr or done.stdout)}")
        return done.stdout + done.stderr

    def shell(self, *words: str, seconds: float = COMMAND_S) -> str:
        """The same of a command on the phone. Its shell reads the words again: each is a constant or a plain name."""
        return self.call("shell", *words, seconds=seconds)

    def tried(self, *words: str) -> str:
        """What a command on the phone prints, or nothing where it fails."""
        try:
            return self.shell(*words).strip()
        except UserError:
            return ""


def measure_adb(job: Job, target: str) -> Measured:
    """Every LiteRT file on every number of threads, by benchmark_model on the phone."""
    tool = Path(job.benchmark_model)
    if not job.benchmark_model or not tool.is_file():
        where = f"no file at {tool}" if job.benchmark_model else "it is not set"
        raise UserError(f"benchmark.benchmark_model is to be the path of TensorFlow Lite's tool for Android: {where}")
    phone = connect(target)
    folder = f"{FOLDER}/understudy-{secrets.token_hex(6)}"
    files = [one for one in job.files if one["runtime"] == "litert" and FILE_NAME.fullmatch(one["file"])]
    if not files:
        raise UserError("there is no LiteRT file, which is what benchmark_model runs")
    try:
        phone.shell("mkdir", "-p", folder)
        phone.call("push", str(tool), f"{folder}/{TOOL}", seconds=RUN_S)
        phone.shell("chmod", "755", f"{folder}/{TOOL}")
        for one in files:
            phone.call("push", str(job.exported / one["file"]), f"{folder}/{one['file']}", seconds=RUN_S)
        before = state(phone)
        rows, failed = time_files(phone, folder, job, files, target)
        all_or_reason(failed, rows)
        about = {"machine": machine(phone), "before": before}
        about |= more(phone, folder, job, judged_file([one for one in files if one["file"] not in failed], target))
        return Measured(files=rows, about={**about, "after": state(phone)}, not_measured=failed)
    finally:
        phone.tried("rm", "-rf", folder)


def connect(target: str) -> Phone:
    """The phone a target names, or the only one there is."""
    adb = shutil.which("adb")
    if adb is None:
        raise UserError("no adb on this machine: install it (apt-get install adb)")
    try:
        done = subprocess.run([adb, "devices"], capture_output=True, text=True, timeout=COMMAND_S, check=False)
    except subprocess.TimeoutExpired:
        raise UserError("adb devices did not end: run adb kill-server and try again") from None
    lines = [line.split() for line in done.stdout.splitlines()[1:] if line.strip() and not line.startswith("*")]
    states = {words[0]: " ".join(words[1:]) for words in lines}
    match = ADB.fullmatch(target)
    wanted = match["serial"] if match else None
    if wanted is None and len(states) > 1:
        raise UserError(f"there are several devices ({', '.join(states)}): name one as adb:SERIAL")
    serial = wanted or next(iter(states), None)
    if serial is None or serial not in states:
        raise UserError(
            f"no Android device {f'{serial} ' if serial else ''}answers: "
            "connect one with USB debugging on (adb devices)"
        )
    if states[serial] != "device":
        raise UserError(f"the Android device {serial} is {states[serial]}: unlock it and allow debugging (adb devices)")
    return Phone(adb, serial)


def time_files(
    phone: Phone, folder: str, job: Job, files: list[Json], target: str
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Rows, and why those files have none that the tool could not run."""
    rows: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    for one in files:
        for threads in job.threads:
            words = arguments(f"{folder}/{one['file']}", threads, warmup=job.warmup, runs=job.runs)
            report = run(phone, folder, words)
            try:
                figures = parse(report)
            except UserError as error:
                failed[one["file"]] = str(error)
                break
            rows.append(file_row(one, target, threads, figures | {"delegates": delegates(report)}))
    return [row for row in rows if row["file"] not in failed], failed


def run(phone: Phone, folder: str, words: list[str], seconds: float = RUN_S) -> str:
    """The tool's report, whatever its exit code: one that failed says why in it; without the echo the line is dead."""
    report = phone.shell(f"{folder}/{TOOL}", *words, "2>&1", ";", "echo", "ended", seconds=seconds)
    if "ended" not in report:
        raise UserError("the phone went away while benchmark_model was running")
    return report


def more(phone: Phone, folder: str, job: Job, file: Json) -> dict[str, Any]:
    """Of the judged file: milliseconds by kind of operator, and how it does when it runs for long."""
    graph, threads = f"{folder}/{file['file']}", job.threads[0]
    words = arguments(graph, threads, warmup=1, runs=PROFILED_RUNS)
    found: dict[str, Any] = {"by_operator": by_operator(run(phone, folder, [*words, "--enable_op_profiling=true"]))}
    if job.sustained_s <= 0:
        return found
    # The tool tells no single runs: windows one after the other, and their means.
    means = []
    for _ in range(max(2, round(job.sustained_s / WINDOW_S))):
        words = arguments(graph, threads, warmup=1, runs=1, at_least_s=WINDOW_S)
        means.append(parse(run(phone, folder, words, RUN_S))["p50_ms"])
    slow = {"seconds": WINDOW_S * len(means), "window_s": WINDOW_S, "first_p50_ms": means[0], "last_p50_ms": means[-1]}
    energy = {"joules_per_picture": None, "reason": "a phone's counters are not for adb's user to read"}
    slow |= {"last_over_first": round(means[-1] / means[0], 3), "energy": energy}
    return found | {"sustained": {"file": file["file"], "threads": threads, **slow}}


def machine(phone: Phone) -> dict[str, Any]:
    """The phone in words, without its serial number."""
    words = {key: phone.tried("getprop", name) for key, name in PROPERTIES.items()}
    return words | {"architecture": phone.tried("uname", "-m")}


def state(phone: Phone) -> dict[str, Any]:
    """Temperatures, frequencies and governors, as far as adb's user may read them."""
    kinds = phone.tried("cat", "/sys/class/thermal/thermal_zone*/type").splitlines()
    values = whole(phone.tried("cat", "/sys/class/thermal/thermal_zone*/temp"))
    cpus = "/sys/devices/system/cpu/cpu*/cpufreq"
    frequencies = [value / 1000 for value in whole(phone.tried("cat", f"{cpus}/scaling_cur_freq"))]
    governors = sorted(set(phone.tried("cat", f"{cpus}/scaling_governor").split()))
    zones = (
        {kind: value / 1000 for kind, value in zip(kinds, values, strict=False)} if len(kinds) == len(values) else {}
    )
    found = {
        "temperatures_c": zones or None,
        "frequencies_mhz": frequencies or None,
        "governors": governors or None,
    }
    return found | {"not_readable": sorted(name for name, value in found.items() if value is None)}


def whole(text: str) -> list[int]:
    """The lines that are whole numbers."""
    return [int(line) for line in text.split("\n") if re.fullmatch(r"-?[0-9]+\s*", line)]
