"""What kept answers save: both ways of a step are timed, and are the same training."""

from pathlib import Path
from typing import Any

import pytest
import torch
from digits import NAME, settings

from models.errors import UserError
from tasks.classification import bench_answers
from tasks.classification.taught import open_pairs
from tasks.files import read_json
from tasks.stage import STUDENTS


def test_it_times_both_and_tells_what_is_saved(
    own_digits: Path,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    params = settings(repository)
    monkeypatch.setattr(bench_answers, "load_params", lambda: params)
    bench_answers.bench(NAME, 4, own_digits / "out.json")
    found = read_json(own_digits / "out.json")
    low, high = found["quartiles"]
    assert 1 < low <= found["times_as_fast"] <= high  # the teacher is larger than the student: it costs
    assert all(0 <= found[way]["waiting"] < 1 and found[way]["samples_per_s"] > 0 for way in ("kept", "asked"))
    assert f"{found['times_as_fast']:.2f} times as fast" in capsys.readouterr().out
    with pytest.raises(UserError, match="oil is no classifier; there are: digits"):
        bench_answers.bench("oil", 4, own_digits / "out.json")


def test_asked_and_kept_answers_teach_the_same(
    own_digits: Path,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from models import training

    params, seen, step = settings(repository), [], training.train_step

    def keep(training: Any, batch: Any, *rest: Any) -> Any:
        seen.append(batch.targets)
        return step(training, batch, *rest)

    monkeypatch.setattr(training, "train_step", keep)
    pairs = open_pairs(STUDENTS / NAME, NAME)
    for asks in (False, True):
        with bench_answers.stepping(params, params.classifiers[NAME], pairs, asks=asks) as one:
            waited, seconds = one()
            assert 0 <= waited <= seconds
    torch.testing.assert_close(seen[0], seen[1], rtol=1e-4, atol=1e-4)
