"""The gate: which students may ship. Pure: evidence and rules in, a decision with its reasons out.

Each rule is a key of a student's `gate:` block, judged against its limit there (tasks/rules.py has those about
pictures, tasks/classification/rules.py those about classes); two more see to it that the evidence is of the file that
ships, and that candidate and champion were measured against the same reference. Evidence that is missing, NaN or
infinite fails its rule: what was not measured is not known to be good.
"""

from dataclasses import dataclass
from typing import Any, Self

from models.errors import UserError
from tasks.evidence_kinds import TABLES
from tasks.file_evidence import FileEvidence, known
from tasks.gate_params import TargetLimits
from tasks.measure import Blessing, Found, Measure
from tasks.records import Record

SAME_FILE, SAME_REFERENCE = "same_file", "same_reference"
# Of each rule about identity: against what, and what is so where it is met.
IDENTITY = {
    SAME_FILE: ("the shipped file", "the file that was measured is the one that ships"),
    SAME_REFERENCE: ("the pairs and their teacher", "pairs and teacher are known, and the same for both"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleResult(Record):
    """One row of the decision table."""

    name: str  # the rule's key in params.yaml, or one of IDENTITY
    against: str  # the reference, in words
    blessing: Blessing
    value: float | None  # None: missing or not finite; of IDENTITY 1 for yes and 0 for no
    limit: float
    passed: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision(Record):
    """Whether a student may ship; `reason` names every rule that failed."""

    passed: bool
    quality: bool  # the first blessing: its answers are good enough
    target: bool  # the second: it runs on the target
    reason: str
    results: tuple[RuleResult, ...]
    skipped: tuple[str, ...]  # rules that had nothing to look at, such as those about a champion where there is none

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The decision a JSON object stands for; a UserError when its keys are not this version's."""
        try:
            results = tuple(RuleResult.from_json(one) for one in value["results"])
            return cls(**value | {"results": results, "skipped": tuple(value["skipped"])})
        except (TypeError, KeyError) as error:
            raise UserError(f"the decision does not fit this version ({error}): decide again") from None


def decide(candidate: FileEvidence, champion: FileEvidence | None, rules: TargetLimits) -> Decision:
    """Judge a student by every rule of its kind of evidence; it passes only if all of them do.

    Without a champion the rules about it are skipped, not passed. Raises UserError where `rules` are another task's.
    """
    table = TABLES[type(candidate)]
    missing = [name for name in table if not hasattr(rules, name)]
    if missing:
        raise UserError(
            f"the gate's limits have no {missing[0]}, being of another task than the evidence: run dvc repro evaluate"
        )
    results = [same_file(candidate, champion), same_reference(candidate, champion)]
    skipped = []
    for name, measure in table.items():
        found = measure.find(candidate, champion)
        if found is None:
            skipped.append(name)
        else:
            results.append(judge(name, measure, found, float(getattr(rules, name))))
    failed = [result for result in results if not result.passed]
    # What was timed is the measured file too: another file shipped voids both blessings.
    void = not results[0].passed
    return Decision(
        passed=not failed,
        quality=not any(result.blessing == "quality" for result in failed),
        target=not void and not any(result.blessing == "target" for result in failed),
        reason="; ".join(result.reason for result in failed) or "every rule is met",
        results=tuple(results),
        skipped=tuple(skipped),
    )


def same_file(candidate: FileEvidence, champion: FileEvidence | None) -> RuleResult:
    """Whether the file that was measured is the one that ships, of both."""
    for who, evidence in (("candidate", candidate), ("champion", champion)):
        if evidence is None:
            continue
        if not evidence.measured_sha256 or not evidence.shipped_sha256:
            return _identity(SAME_FILE, f"which file of the {who} was measured, or ships, is not known")
        if evidence.measured_sha256 != evidence.shipped_sha256:
            measured, shipped = evidence.measured_sha256, evidence.shipped_sha256
            return _identity(SAME_FILE, f"the {who}'s file {measured:.12} was measured, but {shipped:.12} ships")
    return _identity(SAME_FILE)


def same_reference(candidate: FileEvidence, champion: FileEvidence | None) -> RuleResult:
    """Whether pairs and teacher are known and those of the champion's evidence, example by example."""
    if not candidate.pairs or not candidate.teacher:
        return _identity(SAME_REFERENCE, "against which pairs and teacher the candidate was measured is not known")
    if champion is None:
        return _identity(SAME_REFERENCE)
    if candidate.pairs != champion.pairs:
        return _identity(SAME_REFERENCE, "candidate and champion were measured on different pairs")
    if candidate.teacher != champion.teacher:
        return _identity(SAME_REFERENCE, "candidate and champion were measured against different teachers")
    if type(candidate) is not type(champion):
        return _identity(SAME_REFERENCE, "candidate and champion are students of different tasks")
    return _identity(SAME_REFERENCE, candidate.unlike(champion))


def _identity(name: str, wrong: str = "") -> RuleResult:
    against, right = IDENTITY[name]
    return RuleResult(
        name=name,
        against=against,
        blessing="quality",
        value=0.0 if wrong else 1.0,
        limit=1.0,
        passed=not wrong,
        reason=wrong or right,
    )


def judge(name: str, measure: Measure, found: Found, limit: float) -> RuleResult:
    """Compare what a rule found with its limit."""
    least = name.startswith("min_")
    if known(found.value):
        value: float | None = float(found.value)
        passed = found.value >= limit if least else found.value <= limit
        place = ("at least" if least else "at most") if passed else ("below" if least else "above")
        note = f" ({found.note})" if found.note else ""
        # Enough digits that a value which fails by a hair does not look like the limit.
        reason = f"{measure.words}{note} {found.value:.6g}{measure.unit} is {place} {limit:g}{measure.unit}"
    else:
        value, passed = None, False
        what = found.note or "was not measured"
        reason = f"{measure.words} {what if found.value is None else 'is not a finite number'}"
    return RuleResult(
        name=name,
        against=measure.against,
        blessing=measure.blessing,
        value=value,
        limit=limit,
        passed=passed,
        reason=reason,
    )
