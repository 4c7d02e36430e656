"""What the gate is told of one bundle's int8 LiteRT file whatever the student's task is: which file, how fast, how big.

What makes a student good differs from task to task, and so do the figures of it: tasks/evidence.py has those of
pictures. tasks/evidence_kinds.py reads either from JSON.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self, TypeGuard, TypeVar

from tasks.records import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEvidence(Record):
    """Of which file, against which pairs, and how it fits its target. None: not measured, so not known to be good."""

    kind: ClassVar[str]  # in JSON; there is one for each task's evidence

    # Identity.
    pairs: str | None = None  # digest of the pairs whose test part was used
    teacher: str | None = None  # digest of the teacher whose answers are the reference
    measured_sha256: str | None = None  # of the file that was measured
    shipped_sha256: str | None = None  # of the file in the bundle, as its manifest says
    timed_with: str | None = None  # sha256 of the file it was timed in turn with, in one run

    # On the target.
    p90_ms: float | None = None  # on one thread of `target`
    target: str = "local"  # of the benchmark's targets the one that the gate asks for
    target_note: str = ""  # of another than local: which file there, or why there is no p90
    p90_in_turn_ms: float | None = None  # on one thread here, with `timed_with`, where the target is not here
    file_bytes: float | None = None
    bundle_mib: float | None = None  # all model files
    test_samples: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; JSON has no NaN, and what is not finite was not measured."""
        return {"kind": self.kind, **_finite(asdict(self))}

    def unlike(self, champion: Self) -> str:
        """Why the champion's evidence is not of the same test examples, in words; "" where it is."""
        raise NotImplementedError


AnyEvidence = TypeVar("AnyEvidence", bound=FileEvidence)


def known(value: object) -> TypeGuard[float]:
    """Whether this is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _finite(value: Any) -> Any:
    """The same with None for every number that is not finite."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
