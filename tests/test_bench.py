"""The benchmark table: what holds, what could not be measured, and where the figures come from."""

from pathlib import Path

import pytest
from tiny_onnx import affine_bytes, pinned

from models.errors import UserError
from tasks import bench, bench_teachers
from tasks.files import write_json
from tasks.params import load_params
from tasks.pipeline import SHARED, STAGES


def test_a_target_is_met_at_or_beyond_it() -> None:
    assert bench.at_most(bench.LATENCY, 0.40, "").holds
    assert not bench.at_most(bench.LATENCY, 0.41, "").holds
    assert bench.at_least(bench.TRAINING, 3.0, "").holds
    assert not bench.at_least(bench.TRAINING, 2.9, "").holds


def test_nan_does_not_hold() -> None:
    assert not bench.at_most(bench.LATENCY, float("nan"), "").holds
    assert not bench.at_least(bench.TRAINING, float("nan"), "").holds


def test_a_measurement_that_fails_leaves_one_line_for_each_goal() -> None:
    def fails() -> list[bench.Line]:
        raise UserError("run this first")

    lines = bench.measured((bench.TRAINING, bench.DATA_WAIT), fails)
    assert [line.name for line in lines] == [bench.TRAINING[0], bench.DATA_WAIT[0]]
    for line in lines:
        assert line.value is None
        assert not line.holds
        assert "run this first" in line.note


def test_peak_memory_is_the_largest_stage_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "WORK", tmp_path)
    for stage in STAGES:
        folder = tmp_path if stage in SHARED else tmp_path / "oil"
        write_json(folder / f"{stage}.run.json", {"stage": stage, "seconds": 1, "peak_mib": 512})
    write_json(tmp_path / "oil" / "train.run.json", {"stage": "train", "seconds": 1, "peak_mib": 2048})
    [line] = bench.memory("oil")
    assert (line.value, line.holds, line.note) == (2.0, True, "stage train")
    (tmp_path / "oil" / "bundle.run.json").unlink()
    [line] = bench.memory("oil")
    assert line.value is None
    assert "bundle" in line.note


def test_a_teacher_is_asked_by_generate_and_by_the_plain_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    asked: list[tuple[int, ...]] = []
    affine = pinned(tmp_path / "affine.onnx", affine_bytes(0.5, 0.25))
    rival = bench_teachers.Rival(
        name="affine", settings=affine, load=lambda: lambda picture: asked.append(picture.shape), pairs=12
    )
    ours, plain = bench_teachers.compare(rival, load_params(repository / "params.yaml"), tmp_path)
    assert ours > 0 and plain > 0
    assert asked == [(256, 256, 3)] * (1 + 2 * 4)  # once to begin with, then two rounds
    assert len(list(tmp_path.glob("turn-*/done/*.json"))) == 2 * 3
