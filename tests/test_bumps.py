"""What is due: the truth table over git's pin, the registry's alias, the champion and what happened before."""

import dataclasses
from typing import Any

import pytest

from models.teachers.digests import teacher_digest
from tasks.audit import StudentState
from tasks.bumps import MAX_FAILURES, Base, find, job_for
from tasks.params import Params, load_params


def pin(version: int) -> dict[str, Any]:
    return {"kind": "painter", "name": "oil-painter", "version": version, "style": "oil"}


V1, V2, V3 = (teacher_digest(pin(number)) for number in (1, 2, 3))


@pytest.fixture
def params(repository: Any) -> Params:
    return load_params(repository / "params.yaml")


def at(params: Params, version: int, code: str = "code") -> Base:
    """A commit that pins that version."""
    block = params.students["oil"]
    teacher = block.teacher.model_copy(update={"version": version})
    students = {"oil": block.model_copy(update={"teacher": teacher})}
    return Base(commit="c", code=code, params=params.model_copy(update={"students": students}))


def state(teacher: str, **more: Any) -> StudentState:
    return StudentState(**({"champion": 1, "moved": 3, "teacher": teacher, "pinned": teacher} | more))


@pytest.mark.parametrize(
    ("pinned", "production", "champion", "due", "told"),
    [
        (1, None, StudentState(), 1, "no champion"),
        (1, 2, StudentState(), 1, "no champion"),
        (1, None, state(V1), None, "up to date"),
        (1, 1, state(V1), None, "up to date"),
        (2, None, state(V1), 2, "git pins oil-painter version 2"),
        (2, 1, state(V1, production=V1), 2, "git pins"),
        (1, 2, state(V1), 2, "production of oil-painter moved to version 2"),
        (1, 2, state(V1, production=V1), 2, "production"),
        (2, 2, state(V1), 2, "git pins"),
        (1, 2, state(V2, pinned=V1, production=V2), None, "merge the retrain's branch"),  # followed, not merged yet
        (2, 2, state(V2, pinned=V1, production=V2), None, "up to date"),  # merged
        (1, 3, state(V2, pinned=V1, production=V2), 3, "production"),  # and moved again
        (1, 1, state(V2, pinned=V1, production=V2), 1, "production"),  # the alias was moved back
        (1, 2, state(V2, production=V2), 1, "git pins"),  # git was set back
        (3, 2, state(V2, pinned=V1, production=V2), 3, "git pins"),  # not merged, and git went on
        (3, 2, state(V1), 3, "git pins"),  # both moved: git is the truth
        (2, 1, state(V2, production=V1), None, "production stands at version 1"),  # git led, the alias stayed behind
        (2, None, state(V1, pinned=V2), None, "rolled back"),
        (2, 2, state(V1, pinned=V2, production=V2), None, "rolled back"),
        (1, 2, state(V1, production=V2), None, "production stands at version 2"),  # rolled back from the alias's
        (2, None, state(V1, pinned=""), 2, "git pins"),  # and taken up again
    ],
)
def test_truth_table(
    params: Params, pinned: int, production: int | None, champion: StudentState, due: int | None, told: str
) -> None:
    finding = find(at(params, pinned), "oil", pin(production) if production else None, champion)
    assert told in finding.told
    assert (finding.job.teacher["version"] if finding.job else None) == due
    if finding.job:
        assert finding.told.startswith("retrain due: ")
        assert finding.job.digest == teacher_digest(pin(due or 0)) and finding.job.pinned == teacher_digest(pin(pinned))


@pytest.mark.parametrize(
    ("outcome", "told"),
    [("refused", "was refused"), ("rejected", "was rejected"), ("awaiting", "waits"), ("promoted", "up")],
)
def test_what_was_decided_is_not_done_again(params: Params, outcome: str, told: str) -> None:
    base = at(params, 2)
    job = find(base, "oil", None, state(V1)).job
    assert job
    finding = find(base, "oil", None, state(V1, outcomes={job.key: outcome}, reason="too blurred"))
    assert finding.job is None and told in finding.told
    if outcome in ("refused", "rejected"):
        assert "too blurred" in finding.told and "--again" in finding.told
        # Other code is another retrain.
        assert find(at(params, 2, code="other"), "oil", None, state(V1, outcomes={job.key: outcome})).job


def test_a_retrain_that_keeps_failing_waits_for_a_person(params: Params) -> None:
    job = find(at(params, 2), "oil", None, state(V1)).job
    assert job
    assert find(at(params, 2), "oil", None, state(V1, failures={job.key: MAX_FAILURES - 1})).job == job
    finding = find(at(params, 2), "oil", None, state(V1, failures={job.key: MAX_FAILURES}))
    assert finding.job is None and "--again" in finding.told


def test_the_key_is_of_student_teacher_code_and_settings_alone(params: Params) -> None:
    base = at(params, 1)
    key = job_for(base, "oil", pin(2), "why").key
    assert job_for(dataclasses.replace(base, commit="later"), "oil", pin(2), "another why").key == key
    assert job_for(at(params, 3), "oil", pin(2), "why").key == key  # whoever pins what: the teacher is the same
    assert job_for(base, "oil", pin(3), "why").key != key
    assert job_for(at(params, 1, code="other"), "oil", pin(2), "why").key != key
    assert job_for(base, "oil", pin(2), "why", inputs="data/recent", of="digest").key != key
    block = base.params.students["oil"]
    longer = block.model_copy(update={"train": block.train.model_copy(update={"steps": 1})})
    other = dataclasses.replace(base, params=base.params.model_copy(update={"students": {"oil": longer}}))
    assert job_for(other, "oil", pin(2), "why").key != key
