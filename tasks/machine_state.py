"""What a machine is, how hot and how fast it is just now, and what energy it took, as far as Linux tells.

Needs the standard library alone: it runs on boards too (tasks/board_runner.py). What cannot be read is None, and
`not_readable` says so: a container or a virtual machine shows little of this.
"""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path("/")
CPUS = "sys/devices/system/cpu"
RAPL = "sys/class/powercap"


def machine() -> dict[str, Any]:
    """This machine in words, without its name."""
    try:
        system = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        system = platform.system()
    return {
        "cpu": cpu_model(),
        "cores": cores(),
        "architecture": platform.machine(),
        "os": f"{system}, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "litert": installed("ai-edge-litert", "tflite-runtime"),
        "onnxruntime": installed("onnxruntime"),
    }


def installed(*packages: str) -> str:
    """The version of the first of these packages that is there, or "none"."""
    for package in packages:
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return "none"


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_model(root: Path = ROOT) -> str:
    """The processor's name as Linux gives it, else as Python does."""
    lines = (read(root / "proc/cpuinfo") or "").splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else platform.processor() or platform.machine()


def read(path: Path) -> str | None:
    """A file of the kernel's, or None where it is missing or not for us."""
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return None


def numbers(paths: list[Path], scale: float) -> list[float]:
    """What the files say in units of `scale`, those that hold no number left out."""
    found = [read(path) for path in paths]
    return [round(int(text) / scale, 1) for text in found if text and text.lstrip("-").isdigit()]


def state(root: Path = ROOT) -> dict[str, Any]:
    """Temperatures, frequencies, governors and load at this moment, each None where it cannot be read."""
    frequencies = numbers(sorted((root / CPUS).glob("cpu[0-9]*/cpufreq/scaling_cur_freq")), 1000)
    limits = numbers(sorted((root / CPUS).glob("cpu[0-9]*/cpufreq/scaling_max_freq")), 1000)
    governors = {read(path) for path in (root / CPUS).glob("cpu[0-9]*/cpufreq/scaling_governor")} - {None, ""}
    found = {
        "temperatures_c": temperatures(root) or None,
        "frequencies_mhz": frequencies or None,
        "highest_mhz": max(limits) if limits else None,
        "governors": sorted(str(name) for name in governors) or None,
    }
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    unread = sorted(name for name, value in found.items() if value is None)
    return {"cores": cores(), "load_1min": load, **found, "not_readable": unread}


def temperatures(root: Path) -> dict[str, float]:
    """Degrees Celsius by the zone's name, the warmest of those that share one."""
    found: dict[str, float] = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        for value in numbers([zone / "temp"], 1000):
            name = read(zone / "type") or zone.name
            found[name] = max(value, found.get(name, value))
    return found


class EnergyMeter:
    """Joules of the processor packages between start() and stop(), by Linux's RAPL counters."""

    def __init__(self, root: Path = ROOT) -> None:
        self._zones = sorted(
            zone for zone in (root / RAPL).glob("intel-rapl:*") if (read(zone / "name") or "").startswith("package")
        )
        self._before: list[int | None] = []

    def _readings(self, name: str) -> list[int | None]:
        texts = [read(zone / name) for zone in self._zones]
        return [int(text) if text and text.isdigit() else None for text in texts]

    def start(self) -> None:
        """Begin."""
        self._before = self._readings("energy_uj")

    def stop(self) -> tuple[float | None, str]:
        """Joules since start(), or None and why not. A counter that began anew is taken on by its range."""
        if not self._zones:
            return None, "no energy counter (/sys/class/powercap/intel-rapl)"
        total = 0
        pairs = zip(self._before, self._readings("energy_uj"), self._readings("max_energy_range_uj"), strict=True)
        for before, after, full in pairs:
            if before is None or after is None:
                return None, "the energy counter is not for this user to read"
            total += after - before if after >= before else after - before + (full or 0)
        return total / 1e6, ""
