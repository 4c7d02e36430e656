"""How a rule of the gate finds its number, and the rules that every task shares: those about the target.

A function that cannot know its number says why not; tasks/gate.py compares what it found with the limit.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from tasks.file_evidence import AnyEvidence, FileEvidence, known
from tasks.target import LOCAL

Blessing = Literal["quality", "target"]  # TFX's two: its answers are good; it runs where it shall

# A ratio to the champion below these is of two figures that nobody can tell apart.
P90_FLOOR_MS, BYTES_FLOOR = 0.1, 1.0

TARGET = "the target"
CHAMPION_TARGET = "the champion, timed in turn on the target"
CHAMPION_FILE = "the champion's file"


@dataclass(frozen=True, slots=True)
class Found:
    """What a rule found; without a value the note says why, with one it says of what."""

    value: float | None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """What a rule looks at, in which words, against what; one of `own` and `versus`, over one kind of evidence."""

    words: str
    against: str
    unit: str = ""
    blessing: Blessing = "quality"
    own: Callable[[Any], Found | None] | None = None
    versus: Callable[[Any, Any], Found | None] | None = None  # candidate and champion
    unless: str = ""  # why it is not judged, in words, where either gives None

    def find(self, candidate: FileEvidence, champion: FileEvidence | None) -> Found | None:
        """The number, or None for a rule that is not judged: one about a champion where there is none, and `unless`."""
        if self.own:
            return self.own(candidate)
        if self.versus is None or champion is None:
            return None
        if type(champion) is not type(candidate):
            return Found(None, "needs a champion of the same task")
        return self.versus(candidate, champion)


def figure(name: str) -> Callable[[FileEvidence], Found]:
    """A field as it is."""
    return lambda evidence: Found(getattr(evidence, name))


def ratio(name: str, floor: float) -> Callable[[FileEvidence, FileEvidence], Found]:
    """The candidate's field over the champion's, both raised to `floor`."""

    def find(candidate: FileEvidence, champion: FileEvidence) -> Found:
        mine, its = getattr(candidate, name), getattr(champion, name)
        if not known(mine):
            return Found(mine)
        if not known(its):
            return Found(None, "was not measured of the champion")
        return Found(max(mine, floor) / max(its, floor))

    return find


def p90_on_target(evidence: FileEvidence) -> Found:
    """p90 on the target the gate asks for; where it is missing there, why."""
    return Found(evidence.p90_ms, evidence.target_note)


def p90_over_champion(candidate: FileEvidence, champion: FileEvidence) -> Found:
    """p90 over the champion's, if both are of one run that timed them in turn, on this machine."""
    pair = (candidate.measured_sha256, champion.measured_sha256)
    if None in pair or (champion.timed_with, candidate.timed_with) != pair:
        return Found(None, "was not measured in turn with the champion's")
    return ratio("p90_ms", P90_FLOOR_MS)(*(in_turn(evidence) for evidence in (candidate, champion)))


def in_turn(evidence: AnyEvidence) -> AnyEvidence:
    """The evidence with the p90 that was taken in turn, where that is not the target's."""
    return evidence if evidence.target == LOCAL else replace(evidence, p90_ms=evidence.p90_in_turn_ms)


TARGET_RULES: dict[str, Measure] = {
    "max_p90_ms": Measure(
        words="p90 latency of int8 on one thread", unit=" ms", against=TARGET, blessing="target", own=p90_on_target
    ),
    "max_bundle_mib": Measure(
        words="size of the model files", unit=" MiB", against=TARGET, blessing="target", own=figure("bundle_mib")
    ),
    "max_p90_over_champion": Measure(
        words="p90 latency over the champion's", against=CHAMPION_TARGET, blessing="target", versus=p90_over_champion
    ),
    "max_size_over_champion": Measure(
        words="size of the int8 file over the champion's",
        against=CHAMPION_FILE,
        blessing="target",
        versus=ratio("file_bytes", BYTES_FLOOR),
    ),
}
