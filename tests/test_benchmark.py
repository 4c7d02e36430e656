"""Latency, memory and size of exported files, on tiny models."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_litert
import tiny_onnx

from models.errors import UserError
from tasks import benchmark
from tasks.files import sha256_bytes, write_json


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """A folder as quantise leaves it, with one file for each runtime."""
    contents = {
        ("student.fp32.tflite", "litert"): tiny_litert.relu6_bytes(),
        ("student.fp32.onnx", "onnx"): tiny_onnx.affine_bytes(2.0, 1.0, shape=(1, 3, 8, 8)),
    }
    files = []
    for (name, runtime), data in contents.items():
        (tmp_path / name).write_bytes(data)
        record = {"file": name, "runtime": runtime, "precision": "fp32", "sha256": sha256_bytes(data)}
        files.append({**record, "bytes": len(data)})
    write_json(tmp_path / "exported.json", {"student": "0" * 64, "files": files})
    return tmp_path


def test_every_file_is_measured_on_every_number_of_threads(exported: Path) -> None:
    result = benchmark.measure(exported, warmup=1, runs=5, threads=[1, 2])
    assert [(one["runtime"], one["threads"]) for one in result["files"]] == [
        ("litert", 1),
        ("litert", 2),
        ("onnx", 1),
        ("onnx", 2),
    ]
    for one in result["files"]:
        digests = {"file", "runtime", "precision", "sha256", "bytes"}
        assert set(one) == {*digests, "threads", "p50_ms", "p90_ms", "p99_ms", "peak_mib", "runs"}
        assert 0 <= one["p50_ms"] <= one["p90_ms"] <= one["p99_ms"]
        assert 0 <= one["peak_mib"] < 1000
        assert one["runs"] == 5
    json.dumps(result, allow_nan=False)


def test_the_machine_is_described_without_its_name() -> None:
    import platform

    found = benchmark.machine()
    assert found["cores"] >= 1
    assert found["cpu"]
    assert set(found) == {"cpu", "cores", "architecture", "os", "python", "litert", "onnxruntime"}
    assert platform.node() not in json.dumps(found)


def test_models_take_turns() -> None:
    order: list[str] = []

    class Recorder:
        size = 8

        def __init__(self, name: str) -> None:
            self.name = name

        def load(self, images: object) -> None:
            order.append("load")

        def invoke(self) -> None:
            order.append(self.name)

    times = benchmark.interleaved([Recorder("a"), Recorder("b")], warmup=1, runs=3)
    assert order == ["load", "a", "load", "b", *["a", "b"] * 3]
    assert times.shape == (2, 3)
    assert np.isfinite(times).all()


def test_a_changed_file_is_not_measured(exported: Path) -> None:
    (exported / "student.fp32.onnx").write_bytes(tiny_onnx.affine_bytes(3.0, 1.0, shape=(1, 3, 8, 8)))
    with pytest.raises(UserError, match=r"student\.fp32\.onnx.*sha256"):
        benchmark.measure(exported, warmup=1, runs=1, threads=[1])


def test_a_missing_file_is_named(exported: Path) -> None:
    (exported / "student.fp32.tflite").unlink()
    with pytest.raises(UserError, match=r"no file at .*student\.fp32\.tflite"):
        benchmark.measure(exported, warmup=1, runs=1, threads=[1])


def test_an_empty_list_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "exported.json", {"student": "0" * 64, "files": []})
    with pytest.raises(UserError, match="lists no files"):
        benchmark.measure(tmp_path, warmup=1, runs=1, threads=[1])
