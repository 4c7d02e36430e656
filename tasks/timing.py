"""How opened models are timed: all in turn, or one for long. Needs numpy alone, as it runs on boards too.

Used by tasks/target_local.py, tasks/board_runner.py, tasks/compare.py and tasks/bench.py.
"""

import time
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.machine_state import EnergyMeter

WINDOW_S = 10.0  # the first and the last of a sustained run; half of it where it is shorter than two


def interleaved(models: list[Any], *, warmup: int, runs: int) -> npt.NDArray[np.float64]:
    """(len(models), runs) milliseconds of invoke(); round by round each model runs once."""
    for model in models:
        model.load(model.example())
        for _ in range(warmup):
            model.invoke()
    times = np.empty((len(models), runs))
    for turn in range(runs):
        for place, model in enumerate(models):
            started = time.perf_counter()
            model.invoke()
            times[place, turn] = (time.perf_counter() - started) * 1000
    return times


def percentiles(times: Any) -> dict[str, float]:
    """p50, p90 and p99 of some milliseconds."""
    p50, p90, p99 = (round(float(value), 3) for value in np.percentile(times, [50, 90, 99]))
    return {"p50_ms": p50, "p90_ms": p90, "p99_ms": p99}


def sustained(model: Any, seconds: float, meter: EnergyMeter | None = None) -> dict[str, Any]:
    """One model without a pause for `seconds`, with the energy of a picture where it can be read."""
    meter = meter or EnergyMeter()
    model.load(model.example())
    ends: list[float] = []
    times: list[float] = []
    began = previous = time.perf_counter()
    meter.start()
    while previous - began < seconds or not times:
        model.invoke()
        now = time.perf_counter()
        times.append((now - previous) * 1000)
        ends.append(now - began)
        previous = now
    joules, reason = meter.stop()
    energy = {"joules_per_picture": None if joules is None else round(joules / len(times), 6), "reason": reason}
    return {**slowing(times, ends), "energy": energy}


def slowing(times: list[float], ends: list[float]) -> dict[str, Any]:
    """What a sustained run tells: its medians at the beginning and at the end; `ends` are seconds since its start.

    A ratio above 1 is a machine that slows down, as one does that gets too hot.
    """
    window = min(WINDOW_S, ends[-1] / 2)
    first = [taken for taken, end in zip(times, ends, strict=True) if end <= window] or times[:1]
    last = [taken for taken, end in zip(times, ends, strict=True) if end > ends[-1] - window]
    p50_first, p50_last = float(np.median(first)), float(np.median(last))
    return {
        "seconds": round(ends[-1], 1),
        "window_s": round(window, 1),
        "runs": len(times),
        **percentiles(times),
        "first_p50_ms": round(p50_first, 3),
        "last_p50_ms": round(p50_last, 3),
        "last_over_first": round(p50_last / p50_first, 3) if p50_first else 1.0,
    }
