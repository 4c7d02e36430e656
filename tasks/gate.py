"""The gate: which students may ship. Pure: evidence and rules in, a decision with its reasons out.

Each rule is a key of a student's `gate:` block. Evidence that is missing, NaN or infinite fails its rule:
what was not measured is not known to be good.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from tasks.params import Gate
from tasks.records import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence(Record):
    """What was measured of one student, on test pairs where it is about pictures; None is "not measured"."""

    explained_effect: float | None = None  # 1 - MSE(student, teacher) / MSE(input, teacher)
    colour_affine_explained: float | None = None  # the same figure of the best global colour map
    sharpness_ratio: float | None = None  # Laplacian energy over the teacher's
    chroma_ratio: float | None = None  # over the teacher's
    int8_psnr_db: float | None = None  # int8 against float output, mean
    p90_ms: float | None = None  # int8 LiteRT, one thread
    bundle_mib: float | None = None  # all model files
    test_samples: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleResult(Record):
    """One row of the decision table."""

    name: str  # the rule's key in params.yaml
    value: float | None  # None: missing or not finite
    limit: float
    passed: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision(Record):
    """Whether a student may ship; `reason` names every rule that failed."""

    passed: bool
    reason: str
    results: tuple[RuleResult, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """What a rule looks at, and in which words."""

    words: str
    unit: str
    value: Callable[[Evidence], float | None]


def _above_colour_affine(evidence: Evidence) -> float | None:
    if evidence.explained_effect is None or evidence.colour_affine_explained is None:
        return None
    return evidence.explained_effect - evidence.colour_affine_explained


_SHARPNESS = Measure(words="sharpness against the teacher", unit="", value=lambda found: found.sharpness_ratio)

# A key that begins with min_ is the least allowed value, one that begins with max_ the greatest.
RULES: dict[str, Measure] = {
    "min_explained_effect": Measure(words="explained effect", unit="", value=lambda found: found.explained_effect),
    "min_above_colour_affine": Measure(
        words="explained effect beyond the best colour map's", unit="", value=_above_colour_affine
    ),
    "min_sharpness_ratio": _SHARPNESS,
    "max_sharpness_ratio": _SHARPNESS,
    "min_chroma_ratio": Measure(words="chroma against the teacher", unit="", value=lambda found: found.chroma_ratio),
    "min_int8_psnr_db": Measure(words="fidelity of int8 to float", unit=" dB", value=lambda found: found.int8_psnr_db),
    "max_p90_ms": Measure(words="p90 latency of int8 on one thread", unit=" ms", value=lambda found: found.p90_ms),
    "max_bundle_mib": Measure(words="size of the model files", unit=" MiB", value=lambda found: found.bundle_mib),
    "min_test_samples": Measure(words="number of test pairs", unit="", value=lambda found: found.test_samples),
}


def decide(candidate: Evidence, rules: Gate) -> Decision:
    """Judge a student by every rule; it passes only if all of them do."""
    results = tuple(_judge(name, measure, candidate, float(getattr(rules, name))) for name, measure in RULES.items())
    failed = [result.reason for result in results if not result.passed]
    return Decision(passed=not failed, reason="; ".join(failed) or "every rule is met", results=results)


def _judge(name: str, measure: Measure, evidence: Evidence, limit: float) -> RuleResult:
    value = measure.value(evidence)
    if value is None or not math.isfinite(value):
        what = "was not measured" if value is None else "is not a finite number"
        reason = f"{measure.words} {what}"
        return RuleResult(name=name, value=None, limit=limit, passed=False, reason=reason)
    least = name.startswith("min_")
    passed = value >= limit if least else value <= limit
    # Enough digits that a value which fails by a hair does not look like the limit.
    place = ("at least" if least else "at most") if passed else ("below" if least else "above")
    reason = f"{measure.words} {value:.6g}{measure.unit} is {place} {limit:g}{measure.unit}"
    return RuleResult(name=name, value=value, limit=limit, passed=passed, reason=reason)
