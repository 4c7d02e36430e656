"""The gate's truth table: each rule at, above and below its limit; what is not known fails."""

import dataclasses
import json
import math
import re
from typing import Any

import pytest
from evidences import CHANGE, CROPS, PHOTOS, SAMPLES, champion, good, photos, slices
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import UserError
from tasks.evidence import SLICES, Evidence, Photo, Slice
from tasks.evidence_kinds import read_evidence
from tasks.gate import IDENTITY, Decision, decide
from tasks.gate_params import Gate, TargetLimits
from tasks.gate_table import gate_table
from tasks.params import load_params
from tasks.rules import RULES
from tasks.slices import HALVES

LIMITS = Gate(
    min_explained_effect=0.5,
    min_explained_effect_low=0.45,
    min_above_colour_affine=0.25,
    min_worst_slice=0.25,
    min_sharpness_ratio=0.5,
    max_sharpness_ratio=1.5,
    min_chroma_ratio=0.75,
    min_int8_psnr_db=35.0,
    max_banding=1.5,
    max_flicker=12.0,
    max_flicker_over_teacher=2.0,
    max_detector_false_positives=0.25,
    max_dropped=0.3,
    max_copied_failures=0.1,
    max_invented_failures=0.15,
    min_test_samples=8,
    min_gain_over_champion=0.0,
    min_worst_slice_gain=-0.05,
    max_flicker_over_champion=1.25,
    max_structure_drop=0.1,
    max_p90_ms=33.0,
    max_bundle_mib=20.0,
    max_p90_over_champion=1.25,
    max_size_over_champion=1.5,
)
VERSUS = [name for name, measure in RULES.items() if measure.versus]
FIELDS = [field.name for field in dataclasses.fields(Evidence)]
# p90_in_turn_ms is looked at only where the target is another machine (tests/test_targets.py).
FLAT = [
    field.name
    for field in dataclasses.fields(Evidence)
    if field.type == float | None and field.name != "p90_in_turn_ms"
]
UNKNOWN = [None, math.nan, math.inf, -math.inf, "0.9"]


def failed(decision: Decision) -> list[str]:
    names = [result.name for result in decision.results if not result.passed]
    assert decision.passed == (not names) == (decision.quality and decision.target)
    return names


def judged(**changed: Any) -> list[str]:
    return failed(decide(good(**changed), champion(), LIMITS))


def beside(**changed: Any) -> list[str]:
    """What fails when the champion is another."""
    return failed(decide(good(), champion(**changed), LIMITS))


def effect(value: float) -> dict[str, Any]:
    """An explained effect that all photos and slices share."""
    return {"explained_effect": value, "photos": photos(*[value] * len(PHOTOS)), "slices": slices(value)}


def test_every_key_of_the_gate_section_is_a_rule() -> None:
    assert list(RULES) == [key for key in Gate.model_fields if key != "target"]  # where max_p90_ms is to hold
    assert all((measure.own is None) != (measure.versus is None) for measure in RULES.values())


def test_a_good_student_passes() -> None:
    decision = decide(good(), champion(), LIMITS)
    assert decision.passed and decision.reason == "every rule is met" and not decision.skipped
    assert [result.name for result in decision.results] == [*IDENTITY, *RULES]


def test_without_a_champion_its_rules_are_skipped_not_passed() -> None:
    decision = decide(good(timed_with=None), None, LIMITS)
    assert decision.passed and list(decision.skipped) == VERSUS
    assert not set(VERSUS) & {result.name for result in decision.results}
    assert [name for name in RULES if "champion" in RULES[name].against] == VERSUS


def test_a_detector_that_is_left_out_is_not_judged_and_one_that_cannot_be_told_of_fails() -> None:
    left_out = {"detector_false_positives": None, "without_detector": True}
    decision = decide(good(**left_out), champion(), LIMITS)
    assert decision.passed and decision.skipped == ("max_detector_false_positives",)
    assert "Not judged, as the stage detector is left out: `max_detector_false_positives`." in gate_table(decision)
    # Where there is a figure it counts, whatever is told beside it.
    assert judged(detector_false_positives=0.5, without_detector=True) == ["max_detector_false_positives"]
    few = good(detector_false_positives=None, detector_note="cannot be told from 4 pictures of 1 photo")
    decision = decide(few, champion(), LIMITS)
    assert failed(decision) == ["max_detector_false_positives"]
    assert decision.reason == "false alarms of the detector cannot be told from 4 pictures of 1 photo"


def test_failures_that_could_not_be_judged_are_named() -> None:
    names = ("max_copied_failures", "max_invented_failures")
    unjudged = {"copied_failures": None, "invented_failures": None, "without_failures": "9 training pairs"}
    decision = decide(good(**unjudged), champion(), LIMITS)
    assert decision.passed and decision.skipped == names
    told = "Not judged, as too little is known of what the teacher usually does: "
    assert told + ", ".join(f"`{name}`" for name in names) in gate_table(decision)
    # Where there is a figure it counts, whatever is told beside it; without a reason a missing one fails.
    assert judged(**(unjudged | {"copied_failures": 0.5})) == ["max_copied_failures"]
    assert judged(copied_failures=None) == ["max_copied_failures"]


def test_flicker_beside_a_teacher_that_was_not_asked_is_not_judged() -> None:
    decision = decide(good(flicker_over_teacher=None, without_teacher="it costs"), champion(), LIMITS)
    assert decision.passed and decision.skipped == ("max_flicker_over_teacher",)
    assert "Not judged, as the teacher was not asked for video: `max_flicker_over_teacher`." in gate_table(decision)
    assert "no champion" not in gate_table(decision)
    # Where there is a figure it counts, whatever is told beside it.
    assert judged(flicker_over_teacher=2.5, without_teacher="it costs") == ["max_flicker_over_teacher"]


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        (effect(0.7), []),
        (effect(0.5), ["min_gain_over_champion", "min_worst_slice_gain"]),
        (
            effect(0.4999),
            ["min_explained_effect", "min_above_colour_affine", "min_gain_over_champion", "min_worst_slice_gain"],
        ),
        # As good on the whole, but all of it from two photos; five of the resamples draw none of them.
        ({"photos": photos(1.0, 1.0, 0.5, 0.5)}, ["min_gain_over_champion", "min_worst_slice_gain"]),
        ({"colour_affine_explained": 0.5}, []),
        ({"colour_affine_explained": 0.5000001}, ["min_above_colour_affine"]),
        ({"slices": slices(0.75, dark=0.62)}, []),
        ({"slices": slices(0.75, dark=0.59)}, ["min_worst_slice_gain"]),
        ({"slices": slices(0.75, dark=0.2)}, ["min_worst_slice", "min_worst_slice_gain"]),
        ({"sharpness_ratio": 0.5}, []),
        ({"sharpness_ratio": 0.499}, ["min_sharpness_ratio"]),
        ({"sharpness_ratio": 1.5}, []),
        ({"sharpness_ratio": 1.501}, ["max_sharpness_ratio"]),
        ({"chroma_ratio": 0.75}, []),
        ({"chroma_ratio": 0.74}, ["min_chroma_ratio"]),
        ({"int8_psnr_db": 35.0}, []),
        ({"int8_psnr_db": 34.9}, ["min_int8_psnr_db"]),
        ({"banding": 1.5}, []),
        ({"banding": 1.6}, ["max_banding"]),
        ({"flicker": 7.5}, []),
        ({"flicker": 7.51}, ["max_flicker_over_champion"]),
        ({"flicker": 12.01}, ["max_flicker", "max_flicker_over_champion"]),
        ({"flicker_over_teacher": 2.0}, []),
        ({"flicker_over_teacher": 2.01}, ["max_flicker_over_teacher"]),
        ({"detector_false_positives": 0.25}, []),
        ({"detector_false_positives": 0.26}, ["max_detector_false_positives"]),
        ({"dropped": 0.3}, []),
        ({"dropped": 0.31}, ["max_dropped"]),
        ({"copied_failures": 0.1, "invented_failures": 0.15}, []),
        ({"copied_failures": 0.11}, ["max_copied_failures"]),
        ({"invented_failures": 0.16}, ["max_invented_failures"]),
        ({"structure_kept": 0.501}, []),
        ({"structure_kept": 0.499}, ["max_structure_drop"]),
        ({"p90_ms": 7.5}, []),
        ({"p90_ms": 7.51}, ["max_p90_over_champion"]),
        ({"p90_ms": 33.1}, ["max_p90_ms", "max_p90_over_champion"]),
        ({"timed_with": "3" * 64}, ["max_p90_over_champion"]),
        ({"file_bytes": 1_800_000}, []),
        ({"file_bytes": 1_800_001}, ["max_size_over_champion"]),
        ({"bundle_mib": 20.0}, []),
        ({"bundle_mib": 20.1}, ["max_bundle_mib"]),
        # The identity map: sharp, steady and colourful, but it does nothing.
        (
            effect(0.0) | {"flicker": 0.0, "structure_kept": 1.0},
            [
                "min_explained_effect",
                "min_explained_effect_low",
                "min_above_colour_affine",
                "min_worst_slice",
                "min_gain_over_champion",
                "min_worst_slice_gain",
            ],
        ),
        # The best colour map.
        (effect(0.7) | {"colour_affine_explained": 0.7}, ["min_above_colour_affine"]),
    ],
)
def test_truth_table(changed: dict[str, Any], names: list[str]) -> None:
    assert judged(**changed) == names


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({"pairs": "c" * 64}, ["same_reference"]),
        ({"teacher": "c" * 64}, ["same_reference"]),
        ({"teacher": None}, ["same_reference"]),
        # Other crops: the teacher changed them by another amount.
        ({"photos": photos(0.64, 0.65, 0.65, 0.66, change=0.05)}, ["same_reference"]),
        ({"shipped_sha256": "3" * 64}, ["same_file"]),
        ({"measured_sha256": None}, ["same_file", "max_p90_over_champion"]),
        ({"timed_with": None}, ["max_p90_over_champion"]),
        ({"photos": ()}, ["same_reference", "min_gain_over_champion", "min_worst_slice_gain"]),
        ({"slices": ()}, ["min_worst_slice_gain"]),
        ({"flicker": math.nan}, ["max_flicker_over_champion"]),
        ({"structure_kept": None}, ["max_structure_drop"]),
        ({"p90_ms": None}, ["max_p90_over_champion"]),
        ({"file_bytes": math.inf}, ["max_size_over_champion"]),
        # Better than the candidate.
        (
            effect(0.8) | {"photos": photos(0.79, 0.8, 0.8, 0.81)},
            ["min_gain_over_champion", "min_worst_slice_gain"],
        ),
        (effect(0.72), []),
    ],
)
def test_truth_table_of_the_champions_evidence(changed: dict[str, Any], names: list[str]) -> None:
    changed = dict(changed)
    if changed.get("explained_effect") == 0.8:
        changed["slices"] = slices(0.81)
    assert beside(**changed) == names


@pytest.mark.parametrize(
    "changed",
    [
        {"measured_sha256": None},
        {"shipped_sha256": None},
        {"shipped_sha256": ""},
        {"shipped_sha256": "3" * 64},
    ],
)
def test_another_file_than_the_measured_one_voids_both_blessings(changed: dict[str, Any]) -> None:
    decision = decide(good(**changed), None, LIMITS)
    assert failed(decision) == ["same_file"]
    assert not decision.quality and not decision.target


def test_the_two_blessings_are_given_apart() -> None:
    slow, blurred = decide(good(p90_ms=50), None, LIMITS), decide(good(sharpness_ratio=0.1), None, LIMITS)
    assert (slow.quality, slow.target, slow.passed) == (True, False, False)
    assert (blurred.quality, blurred.target, blurred.passed) == (False, True, False)


@pytest.mark.parametrize("champion_too", [False, True])
@pytest.mark.parametrize("unknown", UNKNOWN)
@pytest.mark.parametrize("field", FLAT)
def test_what_is_not_known_fails(field: str, unknown: Any, champion_too: bool) -> None:
    decision = decide(good(**{field: unknown}), champion() if champion_too else None, LIMITS)
    if field in ("structure_kept", "file_bytes") and not champion_too:
        assert decision.passed  # looked at beside a champion only
    else:
        assert failed(decision)


def test_few_test_pairs_fail() -> None:
    few = Gate(**(LIMITS.model_dump() | {"min_test_samples": SAMPLES + 1}))
    assert failed(decide(good(), champion(), few)) == ["min_test_samples"]


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ((), "needs at least 2 photos, each told once, and has 0"),
        ((Photo(name="a", count=SAMPLES, error=0.25, change=1.0),), "needs at least 2 photos, each told once, and has"),
        (photos(0.74, 0.75, 0.75, 0.76)[:3], "has photos that do not make up the test samples"),
        ((*photos(0.74, 0.75, 0.75, 0.76)[:3], photos(0.76, 0, 0, 0)[0]), "each told once"),
        (photos(0.9, 0.9, 0.9, 0.9), "has photos that do not add up to the explained effect"),
        (photos(0.74, 0.75, 0.75, math.nan), "has a photo whose sums are not finite numbers"),
        (photos(1, 1, 1, 1, change=0.0), "has photos that do not make up the test samples"),
    ],
)
def test_photos_that_cannot_be_believed(told: tuple[Photo, ...], says: str) -> None:
    decision = decide(good(photos=told), None, LIMITS)
    assert failed(decision) == ["min_explained_effect_low", "min_worst_slice"]
    assert says in decision.reason


@pytest.mark.parametrize(
    ("told", "says"),
    [
        (slices(0.75)[1:], "lacks the slice dark"),
        ((*slices(0.75)[1:], Slice(name="dark", samples=20, error=math.nan, change=1.0)), "not finite"),
        ((*slices(0.75)[1:], Slice(name="dark", samples=20, error=0.0, change=0.0)), "did not change"),
    ],
)
def test_slices_that_cannot_be_believed(told: tuple[Slice, ...], says: str) -> None:
    decision = decide(good(slices=told), None, LIMITS)
    assert failed(decision) == ["min_worst_slice"] and says in decision.reason


def test_a_slice_of_two_is_not_judged_and_one_of_three_is() -> None:
    def bad(samples: int) -> list[str]:
        dark = Slice(name="dark", samples=samples, error=samples * CHANGE, change=samples * CHANGE)
        return judged(slices=(*slices(0.75)[1:], dark))

    # Of three the champion's evidence has twenty, so the gain cannot be told either.
    assert bad(2) == ["min_worst_slice_gain"] and bad(3) == ["min_worst_slice", "min_worst_slice_gain"]


def test_each_photo_is_a_slice() -> None:
    decision = decide(good(explained_effect=0.6, photos=photos(0.8, 0.8, 0.8, 0.0)), None, LIMITS)
    assert "explained effect on the worst slice (photo d) 0 is below 0.25" in decision.reason


def test_no_evidence_fails_every_rule() -> None:
    for other in (None, Evidence(), champion()):
        decision = decide(Evidence(), other, LIMITS)
        assert not any(result.passed for result in decision.results)
        assert "explained effect was not measured" in decision.reason


def test_reasons_are_words_with_value_and_limit() -> None:
    decision = decide(good(p90_ms=40.5), None, LIMITS)
    assert decision.reason == "p90 latency of int8 on one thread 40.5 ms is above 33 ms"
    decision = decide(good(), champion(pairs="c" * 64), LIMITS)
    assert decision.reason == "candidate and champion were measured on different pairs"
    for result in decide(Evidence(), Evidence(), LIMITS).results:
        assert result.against and re.fullmatch(r"[^\n]+", result.reason)


def test_the_halves_are_those_that_evidence_must_tell() -> None:
    assert tuple(name for pair in HALVES.values() for name in pair) == SLICES


def test_evidence_and_decision_survive_json() -> None:
    for record in (good(), champion(), Evidence()):
        assert Evidence.from_json(json.loads(json.dumps(record.to_json(), allow_nan=False))) == record
    for decision in (decide(good(), None, LIMITS), decide(Evidence(), champion(), LIMITS)):
        assert Decision.from_json(json.loads(json.dumps(decision.to_json(), allow_nan=False))) == decision


def test_evidence_without_a_kind_is_of_pictures() -> None:
    told = good().to_json()
    assert told.pop("kind") == "pictures"
    assert read_evidence(told) == read_evidence(told | {"kind": "pictures"}) == good()
    with pytest.raises(UserError, match="of the kind 'sounds' does not fit this version"):
        read_evidence(told | {"kind": "sounds"})


def test_limits_of_another_task_are_refused() -> None:
    limits = TargetLimits(max_p90_ms=33.0, max_bundle_mib=20.0, max_p90_over_champion=1.25, max_size_over_champion=1.5)
    with pytest.raises(UserError, match="have no min_explained_effect, being of another task"):
        decide(good(), None, limits)


@pytest.mark.parametrize("wrong", [{}, {"photos": [], "slices": [], "more": 1}, {"photos": [{"x": 1}], "slices": []}])
def test_another_versions_records_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="does not fit this version"):
        Evidence.from_json(wrong)
    with pytest.raises(UserError, match="does not fit this version"):
        Decision.from_json(wrong)


def test_the_table() -> None:
    table = gate_table(decide(good(p90_ms=40.5, structure_kept=None), champion(), LIMITS))
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert len(rows) == len(IDENTITY) + len(RULES)
    assert "| `same_file` | the shipped file | yes | yes | passed |" in rows
    assert "| `min_explained_effect` | the teacher's pictures | 0.75 | ≥ 0.5 | passed |" in rows
    assert "| `max_p90_ms` | the target | 40.5 ms | ≤ 33 ms | **failed** |" in rows
    assert any(row.startswith("| `max_structure_drop` |") and "| unknown |" in row for row in rows)
    assert "- Quality: **not blessed**\n- Runs on the target: **not blessed**\n" in table
    assert table.startswith("**Refused:** ")
    alone = gate_table(decide(good(), None, LIMITS))
    assert alone.startswith("**Passed:** every rule is met\n") and "there is no champion: `min_gain" in alone


# Hypothesis: anything at all in any field.
numbers = st.none() | st.floats(-10, 10) | st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 1e300])
texts = st.sampled_from([None, "", "1" * 64, "2" * 64, "a" * 64, "b" * 64])
sums = st.floats(-1, 10) | st.sampled_from([math.nan, 0.0, 1e300])
some_photos = st.lists(
    st.builds(Photo, name=st.sampled_from(PHOTOS), count=st.integers(0, 20), error=sums, change=sums), max_size=4
).map(tuple) | st.just(good().photos)
some_slices = st.lists(
    st.builds(Slice, name=st.sampled_from(SLICES), samples=st.integers(0, 20), error=sums, change=sums), max_size=6
).map(tuple) | st.just(good().slices)
kinds = dict.fromkeys(FLAT, numbers) | {"photos": some_photos, "slices": some_slices}
kinds |= {name: texts for name in FIELDS if name not in kinds}


@st.composite
def evidences(draw: st.DrawFn, start: Evidence) -> Evidence:
    """A few fields of sound evidence, or of all of them, made anything."""
    chosen = draw(st.sets(st.sampled_from(FIELDS), max_size=3) | st.just(set(FIELDS)))
    return dataclasses.replace(start, **{name: draw(kinds[name]) for name in sorted(chosen)})


candidates, champions = evidences(good()), st.none() | evidences(champion())


@settings(deadline=None, max_examples=60)
@given(candidates, champions)
def test_a_pass_needs_every_figure_within_its_limit(candidate: Evidence, other: Evidence | None) -> None:
    decision = decide(candidate, other, LIMITS)
    json.dumps(decision.to_json(), allow_nan=False)
    assert decision == decide(candidate, other, LIMITS)
    assert len(decision.results) + len(decision.skipped) == len(IDENTITY) + len(RULES)
    failed(decision)
    if decision.passed:
        assert candidate.measured_sha256 == candidate.shipped_sha256
        assert candidate.explained_effect >= 0.5
        assert candidate.explained_effect - candidate.colour_affine_explained >= 0.25
        assert 0.5 <= candidate.sharpness_ratio <= 1.5 and candidate.chroma_ratio >= 0.75
        assert candidate.int8_psnr_db >= 35 and candidate.flicker <= 12 and candidate.test_samples >= 8
        assert candidate.p90_ms <= 33 and candidate.bundle_mib <= 20
        assert sum(photo.count for photo in candidate.photos) == candidate.test_samples
    if decision.passed and other is not None:
        assert (candidate.pairs, candidate.teacher) == (other.pairs, other.teacher)
        assert sum(photo.error for photo in candidate.photos) <= sum(photo.error for photo in other.photos)
        assert candidate.timed_with == other.measured_sha256 and other.timed_with == candidate.measured_sha256


def test_photos_that_neither_has_are_not_the_same_photos() -> None:
    decision = decide(good(photos=()), champion(photos=()), LIMITS)
    assert "the evidence of the candidate needs at least" in decision.reason
    assert next(result for result in decision.results if result.name == "same_reference").passed is False


@settings(deadline=None, max_examples=20)
@given(candidates, champions)
def test_losing_evidence_never_helps(candidate: Evidence, other: Evidence | None) -> None:
    def passed(candidate: Evidence, other: Evidence | None) -> set[str]:
        return {result.name for result in decide(candidate, other, LIMITS).results if result.passed}

    before = passed(candidate, other)
    for field in FIELDS:
        empty = () if field in ("photos", "slices") else None
        assert passed(dataclasses.replace(candidate, **{field: empty}), other) <= before
        if other is not None:
            assert passed(candidate, dataclasses.replace(other, **{field: empty})) <= before
    for field in ("photos", "slices"):
        parts = getattr(candidate, field)
        for index in range(len(parts)):
            less = dataclasses.replace(candidate, **{field: parts[:index] + parts[index + 1 :]})
            assert passed(less, other) <= before


def test_the_shipped_limits_can_be_met_and_refuse_what_does_nothing(repository: Any) -> None:
    for block in load_params(repository / "params.yaml").students.values():
        assert decide(good(), champion(), block.gate).passed
        assert not decide(good(**effect(0.0)), None, block.gate).passed
        assert not decide(good(**effect(0.7), colour_affine_explained=0.7), None, block.gate).passed
        assert CROPS >= block.pairs.held_out_crops
