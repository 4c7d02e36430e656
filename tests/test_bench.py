"""The benchmark table: what holds, what could not be measured, and where the figures come from."""

from pathlib import Path

import pytest
import tiny_litert
from tiny_onnx import affine_bytes, pinned

from models.errors import UserError
from tasks import bench, bench_device, bench_teachers
from tasks.bench_lines import Line, at_least, at_most
from tasks.files import sha256_bytes, write_json
from tasks.params import load_params
from tasks.pipeline import SHARED, STAGES


def test_a_target_is_met_at_or_beyond_it() -> None:
    assert at_most(bench_device.LATENCY, 0.28, "").holds
    assert not at_most(bench_device.LATENCY, 0.29, "").holds
    assert at_least(bench.TRAINING, 4.0, "").holds
    assert not at_least(bench.TRAINING, 3.9, "").holds


def test_nan_does_not_hold() -> None:
    assert not at_most(bench_device.LATENCY, float("nan"), "").holds
    assert not at_least(bench.TRAINING, float("nan"), "").holds


def test_a_measurement_that_fails_leaves_one_line_for_each_goal() -> None:
    def fails() -> list[Line]:
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


def test_the_files_that_ship_are_timed_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    monkeypatch.setattr(bench_device, "STUDENTS", tmp_path)
    folder = tmp_path / "oil" / "bundle"
    folder.mkdir(parents=True)
    files = []
    for runtime, precision in (("litert", "fp32"), ("litert", "int8"), ("onnx", "fp32"), ("onnx", "int8")):
        if runtime == "onnx":
            data = affine_bytes(0.5, 0.25, shape=(1, 3, 64, 64))
        else:
            data = tiny_litert.affine_bytes(0.5, 0.25, (1, 64, 64, 3))
        (folder / f"{precision}.{runtime}").write_bytes(data)
        one = {"file": f"{precision}.{runtime}", "runtime": runtime, "precision": precision}
        files.append(one | {"sha256": sha256_bytes(data), "fastest": precision == "int8"})
    write_json(folder / "manifest.json", {"files": files})
    lines = bench_device.files(load_params(repository / "params.yaml"), "oil")
    assert [line.name for line in lines] == [name for name, _, _ in bench_device.FILES]
    assert all(line.value is not None and line.value > 0 for line in lines) and lines[2].note.startswith("int8 ")
    (folder / "int8.onnx").write_bytes(b"another")
    with pytest.raises(UserError, match="sha256"):
        bench_device.files(load_params(repository / "params.yaml"), "oil")


def test_what_the_pipeline_found_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_device, "STUDENTS", tmp_path)
    found = {"psnr_to_float_db": 45.5, "worst_psnr_to_float_db": 41.0}
    write_json(tmp_path / "oil" / "report" / "quality.json", {"files": {"student.int8.tflite": found}})
    assert [(line.value, line.holds) for line in bench_device.fidelity("oil")] == [(45.5, True), (41.0, False)]
    steps = [{"step": "decode", "p50_ms": 3.0}]
    frames = [
        {
            "target": target,
            "file": "student.int8.tflite",
            "threads": threads,
            "steps": steps,
            "total": {"p90_ms": p90_ms},
        }
        for target, threads, p90_ms in (("local", 1, 30.0), ("local", 2, 20.0), ("browser", 2, 10.0))
    ]
    write_json(tmp_path / "oil" / "benchmark" / "benchmark.json", {"frames": frames})
    [line] = bench_device.frames("oil")
    assert (line.value, line.holds, line.note) == (20.0, True, "student.int8.tflite, 2 threads; p50: decode 3.0 ms")
    write_json(tmp_path / "oil" / "benchmark" / "benchmark.json", {"frames": frames[2:]})
    with pytest.raises(UserError, match="measured no frames on this machine"):
        bench_device.frames("oil")


def test_quality_is_compared_where_it_was_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_device, "COMPARED", tmp_path)
    with pytest.raises(UserError, match=r"python -m tasks\.architectures --student oil --only reference default"):
        bench_device.quality("oil")
    figures = {"explained_effect": 0.6, "ms_ssim": 0.9, "sharpness_ratio": 0.8}
    rows = [
        {"student": "default", "precision": "int8", **figures},
        {"student": "reference", "precision": "fp32", **figures, "explained_effect": 0.75},
    ]
    write_json(tmp_path / "oil" / "architectures.json", {"rows": rows, "steps": 10, "seeds": [0]})
    assert [(line.value, line.holds) for line in bench_device.quality("oil")] == [
        (0.8, False),
        (1.0, True),
        (1.0, True),
    ]
    write_json(tmp_path / "oil" / "architectures.json", {"rows": rows[:1], "steps": 10, "seeds": [0]})
    with pytest.raises(UserError, match="does not compare default and reference"):
        bench_device.quality("oil")
