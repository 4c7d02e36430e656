"""The rules of curation: which pairs are dropped, and why.

They are asked in the order of RULES, and the first that objects decides; the others that object are written down too.
A person's decision stands above all but `broken`. Pairs that look alike are sought last and among the kept ones alone,
so that a bad twin takes no good one with it, and training pairs come first: of two that look alike on two sides of a
split, the held-out one goes.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tasks.curate_params import Curate
from tasks.decisions import Decision
from tasks.limits import Threshold, threshold
from tasks.pair_facts import Facts, is_sound
from tasks.records import SPLITS, Pair, Verdict

# What a high score says of the target.
SCORES = {
    "structure": "its edges run elsewhere than the input's",
    "background": "the background's edges run elsewhere than the input's",
    "identity": "the face has become another's",
    "grid": "a pattern repeats that neither the input has nor the effect leaves elsewhere",
    "ringing": "its finest waves are cut off at a stroke, which leaves ripples beside edges",
    "cast": "it is tinted otherwise than inputs like this one are",
    "clipping": "more of it is burnt out or black than of inputs like this one",
    "overlay": "something is drawn across it that the input does not have",
    "inconsistency": "asked again with another seed, the teacher gives another picture",
    "outlier": "it looks like no other pair's target",
}


@dataclass(slots=True)
class Kept:
    """The pairs kept so far, for the rules that compare; hashes are searched by Faiss."""

    pairs: list[Pair] = field(default_factory=list)
    digests: dict[str, Pair] = field(default_factory=dict)
    plain: Any = None  # indexes of their inputs' hashes, and of those of their mirror images
    mirrored: Any = None

    def add(self, facts: Facts) -> None:
        """Take a pair in."""
        if self.plain is None:
            import faiss

            self.plain, self.mirrored = faiss.IndexBinaryFlat(64), faiss.IndexBinaryFlat(64)
        for index, hashed in zip((self.plain, self.mirrored), facts.hashes, strict=True):
            index.add(_bytes(hashed))
        self.pairs.append(facts.pair)
        self.digests[facts.digest] = facts.pair

    def nearest(self, facts: Facts) -> tuple[int, Pair] | None:
        """The kept pair whose input's hash differs in fewest bits, and in how many; None while there is none.

        Held-out pairs are compared mirrored too: training sees its pictures both ways round (as tasks/splits.py does).
        """
        if self.plain is None:
            return None
        plain, mirrored = facts.hashes
        ways = [(self.plain, plain)]
        if facts.pair.split != "train":
            ways += [(self.plain, mirrored), (self.mirrored, plain)]
        found = [index.search(_bytes(hashed), 1) for index, hashed in ways]
        bits, rows = min(found, key=lambda one: int(one[0][0, 0]))
        return int(bits[0, 0]), self.pairs[int(rows[0, 0])]


def _bytes(hashed: int) -> Any:
    return np.frombuffer(hashed.to_bytes(8, "big"), np.uint8)[None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The limits as they are for one student's pairs."""

    settings: Curate
    thresholds: Mapping[str, Threshold]  # by score


def bounds(facts: list[Facts], settings: Curate) -> Bounds:
    """The limits of params.yaml in figures; those that are relative are taken from the training pairs."""
    taught = [one.scores for one in facts if one.pair.split == "train" and is_sound(one, settings)]
    found = {}
    for name in SCORES:
        scores = [scores[name] for scores in taught if name in scores]
        found[name] = threshold(getattr(settings.limits, name), scores, sum(name in one.scores for one in facts))
    return Bounds(settings=settings, thresholds=found)


def broken(facts: Facts, bounds: Bounds) -> str:
    """The teacher gave NaN or infinity, a constant picture, or mostly values outside [0,1]."""
    limits = bounds.settings
    if not facts.pair.finite:
        return f"the teacher refused it: {facts.pair.refused}" if facts.pair.refused else "values that are not finite"
    if facts.contrast < limits.min_contrast:
        return f"contrast {facts.contrast:.4f} is below min_contrast {limits.min_contrast:g}"
    if facts.pair.clipped > limits.max_clipped:
        return f"{facts.pair.clipped:.3f} of the values are clipped, above max_clipped {limits.max_clipped:g}"
    return ""


def no_op(facts: Facts, bounds: Bounds) -> str:
    """The teacher barely changed the input."""
    limit = bounds.settings.min_change
    return f"mean change {facts.change:.4f} is below min_change {limit:g}" if facts.change < limit else ""


def too_high(name: str) -> Callable[[Facts, Bounds], str]:
    """The rule of a score."""

    def objects(facts: Facts, bounds: Bounds) -> str:
        score, limit = facts.scores.get(name), bounds.thresholds[name]
        if score is None or limit.value is None or score <= limit.value:
            return ""
        return f"{SCORES[name]}: {score:.3f} is above {limit.value:.3f} ({limit.how})"

    return objects


# What a pair is by itself, then what it is beside the kept ones.
ALONE: dict[str, Callable[[Facts, Bounds], str]] = {
    "broken": broken,
    "no-op": no_op,
    **{name: too_high(name) for name in SCORES},
}


def duplicate(facts: Facts, kept: Kept, bounds: Bounds) -> str:
    """A kept pair has the very same input pixels."""
    twin = kept.digests.get(facts.digest)
    return f"same input pixels as {twin.split} pair {twin.id}" if twin else ""


def near_duplicate(facts: Facts, kept: Kept, bounds: Bounds) -> str:
    """A kept pair's input looks the same (perceptual hash)."""
    found, limit = kept.nearest(facts), bounds.settings.near_duplicate_bits
    if found is None or found[0] > limit:
        return ""
    bits, twin = found
    return f"{bits} bits from {twin.split} pair {twin.id}, near_duplicate_bits is {limit}"


BESIDE: dict[str, Callable[[Facts, Kept, Bounds], str]] = {"duplicate": duplicate, "near-duplicate": near_duplicate}
DECISION = "decision"  # the rule's name where a person dropped a pair
RULES = (*list(ALONE)[:1], DECISION, *list(ALONE)[1:], *BESIDE)


def objections(facts: Facts, kept: Kept, bounds: Bounds) -> dict[str, str]:
    """Every rule that objects and its reason, in order; for twins it is looked where nothing else is wrong."""
    found = {rule: objects(facts, bounds) for rule, objects in ALONE.items()}
    found = {rule: reason for rule, reason in found.items() if reason}
    for rule, objects in BESIDE.items() if not found else ():
        reason = objects(facts, kept, bounds)
        if reason:
            return {rule: reason}
    return found


def judge(facts: list[Facts], bounds: Bounds, decisions: Mapping[str, Decision]) -> list[Verdict]:
    """A verdict for every pair: training pairs first, then val, then test, each in the order given."""
    kept, verdicts = Kept(), []
    for split in SPLITS:
        row = 0
        for one in facts:
            if one.pair.split != split:
                continue
            verdict = decide(one, objections(one, kept, bounds), decisions.get(one.pair.id), row)
            if not verdict.rule:
                kept.add(one)
                row += 1
            verdicts.append(verdict)
    return verdicts


def decide(facts: Facts, found: Mapping[str, str], decision: Decision | None, row: int) -> Verdict:
    """The verdict on a pair to which the rules object so; `row` is its place if it is kept."""
    rule, reason, by = next(iter(found), ""), next(iter(found.values()), ""), ""
    if decision and rule != "broken":  # of which there is no picture to learn from, whoever wants it
        rule, by = (DECISION if decision.decision == "drop" else ""), decision.by
        reason = f"{decision.by}: {decision.reason}"
    return Verdict(
        pair=facts.pair.id,
        split=facts.pair.split,
        rule=rule,
        reason=reason,
        index=-1 if rule else row,
        input=facts.pair.input,
        seed=facts.pair.seed,
        scores=dict(facts.scores),
        also=[other for other in found if other != rule],
        by=by,
    )


def count_yield(verdicts: Iterable[Verdict]) -> dict[str, dict[str, int]]:
    """Per split: how many pairs there were, how many were kept, how many each rule took."""
    taken: dict[str, list[str]] = {split: [] for split in SPLITS}
    for verdict in verdicts:
        taken[verdict.split].append(verdict.rule)
    return {
        split: {"pairs": len(rules), "kept": rules.count(""), **{rule: rules.count(rule) for rule in RULES}}
        for split, rules in taken.items()
    }
