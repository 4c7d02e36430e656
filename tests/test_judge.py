"""Judging from evidence in files: what is refused, and what is put off because a busy machine was in the way."""

from pathlib import Path
from typing import Any

import pytest
from evidences import champion, good

from models.errors import TryAgain
from tasks import retrain
from tasks.audit import StudentState
from tasks.files import write_json


def judged(repository: Path, folder: Path, undisturbed: float, **candidate: Any) -> retrain.Judged:
    evidence = {"candidate": good(**candidate).to_json(), "champion": champion().to_json()}
    write_json(folder / retrain.COMPARISON, evidence | {"undisturbed": undisturbed})
    return retrain.judge(repository, "oil", folder, upon=StudentState(champion=1))


@pytest.mark.parametrize(
    ("undisturbed", "candidate"),
    [
        (1.0, {}),
        (0.5, {}),  # good enough even so
        (1.0, {"p90_ms": 1000.0}),  # slow by itself
        (0.5, {"p90_ms": 1000.0, "chroma_ratio": 0.1}),  # a quiet machine would not mend it
        (0.5, {"p90_ms": None}),  # as above: not timed with the champion, whatever the machine did
    ],
)
def test_a_verdict_stands(repository: Path, tmp_path: Path, undisturbed: float, candidate: dict[str, Any]) -> None:
    found = judged(repository, tmp_path, undisturbed, **candidate)
    assert found.decision.passed is not bool(candidate)
    retrain.wait_for_quiet(found, tmp_path)
    assert (tmp_path / retrain.DECISION).exists() and (tmp_path / retrain.TABLE).exists()


def test_latency_alone_is_not_judged_on_a_busy_machine(repository: Path, tmp_path: Path) -> None:
    found = judged(repository, tmp_path, 0.5, p90_ms=1000.0)
    with pytest.raises(
        TryAgain, match="other processes had 50% of the processor's time .* when the machine is quieter"
    ):
        retrain.wait_for_quiet(found, tmp_path)


def test_another_champion_than_the_measured_one(repository: Path, tmp_path: Path) -> None:
    write_json(tmp_path / retrain.COMPARISON, {"candidate": good().to_json(), "champion": None, "undisturbed": 1.0})
    with pytest.raises(TryAgain, match="the champion of oil changed"):
        retrain.judge(repository, "oil", tmp_path, upon=StudentState(champion=1))
