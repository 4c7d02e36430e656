"""curation_rules and limits: how a limit becomes a number, what each rule says, and who wins."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from test_curate import LIMITS, record

from tasks.curate_params import Curate, Limits, Quantile, Spread
from tasks.curation_rules import ALONE, DECISION, RULES, SCORES, bounds, judge
from tasks.decisions import Decision
from tasks.limits import FEWEST, threshold
from tasks.pair_facts import Facts
from tasks.records import Verdict


def facts(name: str, split: str = "train", contrast: float = 0.3, **scores: float) -> Facts:
    """A pair with these scores that resembles no other."""
    hashed = int(np.random.default_rng(list(name.encode())).integers(2**63))
    pair = record(name, split)
    return Facts(
        pair=pair, change=0.3, contrast=contrast, digest=name, hashes=(hashed, ~hashed & (2**64 - 1)), scores=scores
    )


def with_limits(**limits: Any) -> Curate:
    return LIMITS.model_copy(update={"limits": Limits(**(dict.fromkeys(Limits.model_fields) | limits))})


def verdicts(
    pairs: list[Facts], settings: Curate, decisions: Mapping[str, Decision] | None = None
) -> dict[str, Verdict]:
    return {one.pair: one for one in judge(pairs, bounds(pairs, settings), decisions or {})}


def said(pair: str, decision: Any, by: str = "ada") -> dict[str, Decision]:
    return {pair: Decision(pair=pair, teacher="t", decision=decision, by=by, reason="looked at it")}


def test_every_score_has_a_limit_and_a_rule() -> None:
    assert list(SCORES) == list(Limits.model_fields)
    assert RULES == ("broken", DECISION, "no-op", *SCORES, "duplicate", "near-duplicate")
    assert list(ALONE) == ["broken", "no-op", *SCORES]


def test_a_number_is_the_limit_and_null_is_none() -> None:
    assert threshold(0.5, [], 3).value == 0.5
    assert threshold(1, [], 3).value == 1.0
    off = threshold(None, [0.1] * 99, 99)
    assert (off.value, off.how, off.judged) == (None, "off", 0)


def test_a_quantile_is_that_of_the_training_pairs() -> None:
    scores = list(np.linspace(0, 1, 101))
    assert threshold(Quantile(quantile=0.9), scores, 120).value == pytest.approx(0.9)


def test_a_spread_is_not_widened_by_bad_pairs_and_has_a_least() -> None:
    scores = list(np.random.default_rng(0).normal(1.0, 0.1, 1000))
    clean, mixed = (threshold(Spread(spread=5, least=0.0), [*scores, *more], 1).value for more in ([], [9.0] * 100))
    assert clean == pytest.approx(1.5, abs=0.05)
    assert mixed == pytest.approx(1.5, abs=0.1)
    least = threshold(Spread(spread=5, least=3.0), scores, 1)
    assert (least.value, least.how) == (3.0, "the least")


@pytest.mark.parametrize("limit", [Quantile(quantile=0.9), Spread(spread=5, least=0.0)])
def test_of_few_pairs_a_relative_limit_says_nothing(limit: Any) -> None:
    few = threshold(limit, [0.1] * (FEWEST - 1), FEWEST)
    assert few.value is None
    assert "too few training pairs" in few.how


def test_a_score_that_no_pair_has_is_told() -> None:
    assert threshold(0.5, [], 0).how == "no pair has it"


@pytest.mark.parametrize("rule", SCORES)
def test_a_score_above_its_limit_drops_the_pair_and_says_so(rule: str) -> None:
    found = verdicts(
        [facts("good", **{rule: 0.5}), facts("bad", **{rule: 0.51}), facts("none")], with_limits(**{rule: 0.5})
    )
    assert {name: one.rule for name, one in found.items()} == {"good": "", "bad": rule, "none": ""}
    assert found["bad"].reason == f"{SCORES[rule]}: 0.510 is above 0.500 (as set)"
    assert found["bad"].scores == {rule: 0.51}


def test_all_that_object_are_written_down() -> None:
    found = verdicts([facts("bad", cast=2.0, grid=2.0, overlay=0.1)], with_limits(cast=1, grid=1, overlay=1))
    assert (found["bad"].rule, found["bad"].also) == ("grid", ["cast"])


def test_limits_come_from_sound_training_pairs_alone() -> None:
    train = [facts(f"t{i}", cast=float(i)) for i in range(100)]
    others = [facts("broken", contrast=0.0, cast=1e6), *(facts(f"v{i}", "val", cast=1e6) for i in range(100))]
    found = bounds([*train, *others], with_limits(cast=Quantile(quantile=0.5)))
    assert found.thresholds["cast"].value == pytest.approx(49.5)
    assert found.thresholds["cast"].judged == 201


def test_a_person_overrules_the_rules() -> None:
    pairs = [facts("bad", cast=2.0), facts("good", cast=0.0)]
    found = verdicts(pairs, with_limits(cast=1), said("bad", "keep") | said("good", "drop"))
    assert (found["bad"].rule, found["bad"].also, found["bad"].by) == ("", ["cast"], "ada")
    assert (found["good"].rule, found["good"].reason, found["good"].index) == (DECISION, "ada: looked at it", -1)


def test_a_person_cannot_keep_what_is_no_picture() -> None:
    found = verdicts([facts("flat", contrast=0.0), facts("good")], LIMITS, said("flat", "keep"))
    assert (found["flat"].rule, found["flat"].by) == ("broken", "")


def test_a_pair_that_a_person_drops_takes_no_twin_with_it() -> None:
    first, second = facts("same"), facts("same")
    second = Facts(**{**{name: getattr(second, name) for name in Facts.__slots__}, "pair": record("twin", "train")})
    found = verdicts([first, second], LIMITS, said("same", "drop"))
    assert {name: one.rule for name, one in found.items()} == {"same": DECISION, "twin": ""}
    both = verdicts([first, second], LIMITS, said("twin", "keep"))
    assert (both["twin"].rule, both["twin"].also) == ("", ["duplicate"])
