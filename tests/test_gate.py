"""The gate's truth table: each rule at, above and below its limit; what is not known fails."""

import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.gate import RULES, Evidence, decide
from tasks.params import Gate

LIMITS = Gate(
    min_explained_effect=0.5,
    min_above_colour_affine=0.25,
    min_sharpness_ratio=0.5,
    max_sharpness_ratio=1.5,
    min_chroma_ratio=0.75,
    min_int8_psnr_db=35.0,
    max_p90_ms=33.0,
    max_bundle_mib=20.0,
    min_test_samples=8,
)
GOOD = Evidence(
    explained_effect=0.75,
    colour_affine_explained=0.25,
    sharpness_ratio=1.0,
    chroma_ratio=1.0,
    int8_psnr_db=42.0,
    p90_ms=6.0,
    bundle_mib=8.0,
    test_samples=40,
)
FIELDS = [field.name for field in dataclasses.fields(Evidence)]
numbers = st.none() | st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf, -math.inf])
evidences = st.builds(Evidence, **dict.fromkeys(FIELDS, numbers))


def failed(**changed: Any) -> list[str]:
    decision = decide(dataclasses.replace(GOOD, **changed), LIMITS)
    names = [result.name for result in decision.results if not result.passed]
    assert decision.passed == (not names)
    return names


def test_every_key_of_the_gate_section_is_a_rule() -> None:
    assert list(RULES) == list(Gate.model_fields)


def test_a_good_student_passes() -> None:
    decision = decide(GOOD, LIMITS)
    assert decision.passed and decision.reason == "every rule is met"
    assert [result.name for result in decision.results] == list(RULES)


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({"explained_effect": 0.5}, []),
        ({"explained_effect": 0.4999999}, ["min_explained_effect", "min_above_colour_affine"]),
        ({"colour_affine_explained": 0.5}, []),
        ({"colour_affine_explained": 0.5000001}, ["min_above_colour_affine"]),
        ({"sharpness_ratio": 0.5}, []),
        ({"sharpness_ratio": 0.499}, ["min_sharpness_ratio"]),
        ({"sharpness_ratio": 1.5}, []),
        ({"sharpness_ratio": 1.501}, ["max_sharpness_ratio"]),
        ({"chroma_ratio": 0.75}, []),
        ({"chroma_ratio": 0.74}, ["min_chroma_ratio"]),
        ({"int8_psnr_db": 35.0}, []),
        ({"int8_psnr_db": 34.9}, ["min_int8_psnr_db"]),
        ({"p90_ms": 33.0}, []),
        ({"p90_ms": 33.1}, ["max_p90_ms"]),
        ({"bundle_mib": 20.0}, []),
        ({"bundle_mib": 20.1}, ["max_bundle_mib"]),
        ({"test_samples": 8}, []),
        ({"test_samples": 7}, ["min_test_samples"]),
        # The identity map: sharp and colourful, but it does nothing.
        ({"explained_effect": 0.0}, ["min_explained_effect", "min_above_colour_affine"]),
    ],
)
def test_truth_table(changed: dict[str, float], names: list[str]) -> None:
    # 0.4999999 - 0.25 stays just below the limit of the second rule.
    assert failed(**changed) == names


@pytest.mark.parametrize("unknown", [None, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", FIELDS)
def test_what_is_not_known_fails(field: str, unknown: float | None) -> None:
    assert failed(**{field: unknown})


def test_no_evidence_fails_every_rule() -> None:
    decision = decide(Evidence(), LIMITS)
    assert not any(result.passed for result in decision.results)
    assert "explained effect was not measured" in decision.reason


def test_reasons_are_words_with_value_and_limit() -> None:
    decision = decide(dataclasses.replace(GOOD, p90_ms=40.5), LIMITS)
    assert decision.reason == "p90 latency of int8 on one thread 40.5 ms is above 33 ms"


@given(evidences)
def test_a_pass_needs_every_figure_within_its_limit(evidence: Evidence) -> None:
    decision = decide(evidence, LIMITS)
    values = [getattr(evidence, field) for field in FIELDS]
    known = all(value is not None and math.isfinite(value) for value in values)
    assert decision.passed == (
        known
        and evidence.explained_effect >= 0.5
        and evidence.explained_effect - evidence.colour_affine_explained >= 0.25
        and 0.5 <= evidence.sharpness_ratio <= 1.5
        and evidence.chroma_ratio >= 0.75
        and evidence.int8_psnr_db >= 35
        and evidence.p90_ms <= 33
        and evidence.bundle_mib <= 20
        and evidence.test_samples >= 8
    )
    json.dumps(decision.to_json(), allow_nan=False)


@given(evidences)
def test_losing_evidence_never_helps(evidence: Evidence) -> None:
    before = sum(result.passed for result in decide(evidence, LIMITS).results)
    for field in FIELDS:
        assert sum(r.passed for r in decide(dataclasses.replace(evidence, **{field: None}), LIMITS).results) <= before
