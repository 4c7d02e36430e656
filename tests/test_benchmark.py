"""Latency, memory and size of exported files, on tiny models; what cannot be measured is told, and the rest is."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_litert
import tiny_onnx

from models.errors import UserError
from tasks import benchmark, machine_state, timing
from tasks.files import read_json, sha256_bytes, write_json
from tasks.stage_params import Benchmark

SIZE = 8


def settings(**changed: Any) -> Benchmark:
    """The section of params.yaml, for seconds."""
    values = {"warmup": 1, "runs": 5, "threads": [1], "targets": ["local"], "sustained_s": 0, "frames": 0}
    return Benchmark(**(values | {"benchmark_model": ""} | changed))


def add_file(folder: Path, name: str, runtime: str, data: bytes) -> None:
    """One more exported file."""
    exported = folder / "exported"
    exported.mkdir(exist_ok=True)
    (exported / name).write_bytes(data)
    listed = exported / "exported.json"
    files = read_json(listed)["files"] if listed.exists() else []
    record = {"file": name, "runtime": runtime, "precision": "fp32", "sha256": sha256_bytes(data), "bytes": len(data)}
    write_json(listed, {"student": "0" * 64, "files": [*files, record]})


@pytest.fixture
def student(tmp_path: Path) -> Path:
    """A student's folder as quantise leaves it, with one file for each runtime."""
    add_file(tmp_path, "student.fp32.tflite", "litert", tiny_litert.relu6_bytes())
    add_file(tmp_path, "student.fp32.onnx", "onnx", tiny_onnx.affine_bytes(2.0, 1.0, shape=(1, 3, SIZE, SIZE)))
    return tmp_path


def test_every_file_is_measured_on_every_number_of_threads(student: Path) -> None:
    result = benchmark.measure(student, settings(threads=[1, 2], sustained_s=0.2))
    assert [(one["runtime"], one["threads"]) for one in result["files"]] == [
        ("litert", 1),
        ("litert", 2),
        ("onnx", 1),
        ("onnx", 2),
    ]
    for one in result["files"]:
        digests = {"file", "runtime", "precision", "sha256", "bytes", "target"}
        assert set(one) == {*digests, "threads", "p50_ms", "p90_ms", "p99_ms", "peak_mib", "runs"}
        assert 0 <= one["p50_ms"] <= one["p90_ms"] <= one["p99_ms"]
        assert 0 <= one["peak_mib"] < 1000
        assert (one["runs"], one["target"]) == (5, "local")
    (told,) = result["targets"]
    assert told["target"] == "local" and told["not_measured"] == {} and told["machine"] == result["machine"]
    assert told["before"]["cores"] >= 1 and told["sustained"]["runs"] > 1 and told["sustained"]["seconds"] >= 0.2
    json.dumps(result, allow_nan=False)


def test_the_machine_is_described_without_its_name() -> None:
    import platform

    found = machine_state.machine()
    assert found["cores"] >= 1
    assert found["cpu"]
    assert set(found) == {"cpu", "cores", "architecture", "os", "python", "litert", "onnxruntime"}
    assert platform.node() not in json.dumps(found)
    assert machine_state.installed("no-such-package") == "none"


def test_models_take_turns() -> None:
    order: list[str] = []

    class Recorder:
        def __init__(self, name: str) -> None:
            self.name = name

        def example(self) -> str:
            return f"what {self.name} takes"

        def load(self, shown: object) -> None:
            assert shown == f"what {self.name} takes"
            order.append("load")

        def invoke(self) -> None:
            order.append(self.name)

    times = timing.interleaved([Recorder("a"), Recorder("b")], warmup=1, runs=3)
    assert order == ["load", "a", "load", "b", *["a", "b"] * 3]
    assert times.shape == (2, 3)
    assert np.isfinite(times).all()


@pytest.mark.parametrize(
    ("name", "runtime", "data", "told"),
    [
        ("student.int8.tflite", "litert", b"no model", "is no model that LiteRT can open"),
        ("student.int8.onnx", "onnx", b"no model", "is no model that ONNX Runtime can open"),
        (
            "other.onnx",
            "onnx",
            tiny_onnx.affine_bytes(1.0, 0.0, shape=(1, 1, 8, 8)),
            "takes tensor(float) [1, 1, 8, 8]",
        ),
    ],
)
def test_a_file_that_cannot_run_is_told_and_the_others_are_measured(
    student: Path, capsys: pytest.CaptureFixture[str], name: str, runtime: str, data: bytes, told: str
) -> None:
    add_file(student, name, runtime, data)
    result = benchmark.measure(student, settings())
    assert [one["file"] for one in result["files"]] == ["student.fp32.tflite", "student.fp32.onnx"]
    assert told in result["targets"][0]["not_measured"][name]
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("benchmark: ")]
    assert len(lines) == 1 and lines[0].startswith(f"benchmark: {name} was not measured on local: ")


def test_a_target_that_fails_leaves_the_others(
    student: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # neither adb nor ssh nor Chromium
    tool = tmp_path / "benchmark_model"
    tool.touch()
    targets = ["adb", "ssh:pi@board", "browser", "local"]
    result = benchmark.measure(student, settings(targets=targets, benchmark_model=str(tool)))
    told = {one["target"]: one.get("failed") for one in result["targets"]}
    assert list(told) == targets and told["local"] is None
    assert told["adb"] == "no adb on this machine: install it (apt-get install adb)"
    assert told["ssh:pi@board"] == "no ssh on this machine: install it (apt-get install openssh-client)"
    assert told["browser"].startswith(("no Chromium on this machine", "ONNX Runtime for browsers is not installed"))
    assert {one["target"] for one in result["files"]} == {"local"} and len(result["files"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_no_file_that_runs_is_a_target_that_failed(tmp_path: Path) -> None:
    add_file(tmp_path, "student.int8.tflite", "litert", b"no model")
    (told,) = benchmark.measure(tmp_path, settings())["targets"]
    assert "is no model that LiteRT can open" in told["failed"]


def test_a_changed_file_is_not_measured(student: Path) -> None:
    other = tiny_onnx.affine_bytes(3.0, 1.0, shape=(1, 3, SIZE, SIZE))
    (student / "exported" / "student.fp32.onnx").write_bytes(other)
    with pytest.raises(UserError, match=r"student\.fp32\.onnx.*sha256"):
        benchmark.measure(student, settings())


def test_a_missing_file_is_named(student: Path) -> None:
    (student / "exported" / "student.fp32.tflite").unlink()
    with pytest.raises(UserError, match=r"no file at .*student\.fp32\.tflite"):
        benchmark.measure(student, settings())


def test_an_empty_list_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "exported" / "exported.json", {"student": "0" * 64, "files": []})
    with pytest.raises(UserError, match="lists no files"):
        benchmark.measure(tmp_path, settings())


def test_pictures_that_are_no_array(student: Path) -> None:
    (student / "pairs").mkdir()
    (student / "pairs" / "val.inputs.npy").write_bytes(b"x")
    with pytest.raises(UserError, match="is no whole array"):
        benchmark.measure(student, settings())
