"""Whether a student is needed: a teacher that keeps to the student's own budget had better ship itself.

Asked before the first pair is paid for. A teacher without files (one made of code, or behind an API) cannot be shipped;
one whose files are beyond the size a bundle may have need not be timed; any other is timed as the student will be, one
picture on one thread of this machine.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from models.errors import UserError
from models.teachers import KEEPING, Teacher
from models.teachers.pinned import parts, places
from tasks.phone import MIB
from tasks.student_params import Student

RUNS, LONGEST_S = 10, 20.0  # timed runs, or fewer when they take so long


def check_need(name: str, student: Student, load: Callable[[], Teacher]) -> str:
    """Why a student is needed, or that none is; a UserError where none is and nobody said go on.

    The teacher is loaded only if it has to be timed.
    """
    settings, gate = student.teacher.model_dump(), student.gate
    size = size_mib(settings)
    if size is None:
        return "a student is needed: the teacher has no file that a phone could run"
    told = f"the teacher's files have {size:.1f} MiB, where a bundle may have {gate.max_bundle_mib:g}"
    if size > gate.max_bundle_mib:
        return f"a student is needed: {told}"
    if any(part["kind"] in KEEPING for part in parts(settings)):  # and a second time would measure what it kept
        return f"a student is needed: {told}, but it seeks what it makes of a picture in hundreds of steps"
    p90_ms = timed(load(), student.pairs.size)
    told += f"; it takes {p90_ms:.1f} ms (p90, one thread), where a student may take {gate.max_p90_ms:g}"
    if p90_ms > gate.max_p90_ms:
        return f"a student is needed: {told}"
    if student.distil_anyway:
        return f"no student is needed, but one is asked for: {told}"
    anyway = f"students.{name}.distil_anyway: true"
    raise UserError(f"no student is needed: {told}: ship the teacher of {name} as it is, or set {anyway}")


def size_mib(settings: Mapping[str, Any]) -> float | None:
    """MiB of all files a teacher is read from, fetched if they have to be; None if it, or one of several, has none."""
    if not all(places(part) for part in parts(settings)):
        return None
    return sum(file.stat().st_size for place in places(settings) for file in place.files()) / MIB


def timed(teacher: Teacher, size: int) -> float:
    """The p90 of one picture in ms, at batch 1 on one thread."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    picture = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), np.uint8)
    times: list[float] = []
    began = time.perf_counter()
    with threadpool_limits(1):
        teacher(picture, [0])
        while len(times) < RUNS and (not times or time.perf_counter() - began < LONGEST_S):
            started = time.perf_counter()
            teacher(picture, [0])
            times.append((time.perf_counter() - started) * 1000)
    return float(np.percentile(times, 90))
