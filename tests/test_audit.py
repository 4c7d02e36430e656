"""The audit log rebuilds the state; two moves decided upon one champion never both count."""

import itertools
import json
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tasks.audit import KEPT, LogRecord, StudentState, after, counts, replay

KINDS = ("started", "registered", "awaiting", "promoted", "refused", "rejected", "rolled-back", "restored", "failed")


def log(*entries: dict[str, Any]) -> list[LogRecord]:
    return [
        LogRecord(**({"at": f"t{seq}", "by": "me", "reason": "because", "seq": seq} | entry))
        for seq, entry in enumerate(entries, start=1)
    ]


def promoted(version: int, upon: int, key: str = "", teacher: str = "t") -> dict[str, Any]:
    return {"kind": "promoted", "version": version, "decided_on": upon, "key": key, "teacher": teacher}


def test_an_upgrade() -> None:
    state = replay(
        log(
            {"kind": "started", "key": "a"},
            {"kind": "registered", "key": "a", "version": 1, "teacher": "t1"},
            promoted(1, 0, "a", "t1"),
            {"kind": "started", "key": "b"},
            {"kind": "registered", "key": "b", "version": 2, "teacher": "t2"},
        )
    )
    assert (state.champion, state.challenger, state.teacher) == (1, 2, "t1")
    assert state.outcomes == {"a": "promoted"} and list(state.begun) == ["b"]


def test_of_two_promotions_upon_one_champion_the_first_in_the_log_counts() -> None:
    entries = log(promoted(1, 0, "a"), promoted(2, 1, "b", "t2"), promoted(3, 1, "c", "t3"))
    state = replay(entries)
    assert (state.champion, state.moved, state.history) == (2, 2, (1,))
    assert "c" not in state.outcomes  # it has to be judged again, against version 2
    assert not counts(entries[2], replay(entries[:2]))


def test_rollback_goes_back_one_champion_at_a_time() -> None:
    moves = [promoted(1, 0, "a", "t1"), promoted(2, 1, "b", "t2"), promoted(3, 2, "c", "t3")]
    once = {"kind": "rolled-back", "version": 2, "decided_on": 3, "teacher": "t2"}
    twice = {"kind": "rolled-back", "version": 1, "decided_on": 4, "teacher": "t1"}
    state = replay(log(*moves, once))
    assert (state.champion, state.history, state.teacher) == (2, (1,), "t2")
    state = replay(log(*moves, once, twice))
    assert (state.champion, state.history, state.teacher) == (1, (), "t1")


def test_what_is_reopened_counts_as_new_again() -> None:
    back = {"kind": "rolled-back", "version": 1, "decided_on": 2, "teacher": "t1", "pinned": "t2", "production": "t2"}
    moves = [promoted(1, 0, "a", "t1"), promoted(2, 1, "b", "t2"), back]
    assert (replay(log(*moves)).pinned, replay(log(*moves)).outcomes) == ("t2", {"b": "promoted"})
    state = replay(log(*moves, {"kind": "reopened", "key": "b", "teacher": "t2"}))
    assert (state.pinned, state.production, state.outcomes) == ("", "", {})
    assert state.champion == 1


def test_what_was_replaced_may_be_asked_for_again() -> None:
    state = replay(log(promoted(1, 0, "a"), {"kind": "refused", "key": "x"}, promoted(2, 1, "b")))
    assert state.outcomes == {"x": "refused", "b": "promoted"}


def test_failures_are_counted_and_forgotten_when_reopened() -> None:
    failures = [{"kind": "failed", "key": "a"}] * 3
    assert replay(log(*failures)).failures == {"a": 3}
    assert replay(log(*failures, {"kind": "reopened", "key": "a"})).failures == {}


entries = st.lists(
    st.fixed_dictionaries(
        {
            "kind": st.sampled_from(KINDS),
            "version": st.integers(1, 4),
            "decided_on": st.integers(0, 8),
            "key": st.sampled_from(["", "a", "b"]),
            "teacher": st.sampled_from(["t1", "t2"]),
        }
    ),
    max_size=10,
)


@given(entries, st.randoms())
def test_the_state_depends_on_the_numbers_not_on_the_order_of_reading(found: list[dict[str, Any]], chance: Any) -> None:
    records = log(*found)
    shuffled = list(records)
    chance.shuffle(shuffled)
    assert replay(shuffled) == replay(records)
    assert StudentState.from_json(replay(records).to_json()) == replay(records)


@given(entries)
def test_every_move_that_counts_was_decided_upon_the_one_before(found: list[dict[str, Any]]) -> None:
    records = log(*found)
    moves = [
        entry
        for entry in records
        if entry.kind in ("promoted", "rolled-back") and counts(entry, replay(records[: entry.seq - 1]))
    ]
    for before, move in itertools.pairwise(moves):
        assert move.decided_on == before.seq
    assert replay(records).moved == (moves[-1].seq if moves else 0)


def test_the_copy_of_the_state_fits_a_tag_however_long_the_log() -> None:
    state = StudentState()
    for number in range(400):
        entry = {"kind": ("promoted", "refused", "failed", "rolled-back", "started")[number % 5]}
        entry |= {"key": f"{number:016x}", "teacher": f"{number:064x}", "version": 1000 + number}
        entry |= {"reason": "no" * 900, "pinned": f"{number:064x}", "at": "2026-11-22T20:19:22.103+00:00"}
        (record,) = log(entry)
        state = after(state, replace(record, seq=number + 1, decided_on=state.moved))
    assert len(state.outcomes) == len(state.begun) == KEPT
    assert len(json.dumps(state.to_json())) < 5000
