"""What an untrained student's files would be on a phone: findings with their layers, limits, and the stage."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_student import SIZE, tiny_student
from torch import nn

from models.errors import UserError
from models.exportability import INT8, ONNX, Exportability, culprit, inspect
from models.torch_setup import prepare_torch
from tasks import exportability as stage
from tasks.exportability_rules import LIMITS, judge
from tasks.params import load_params
from tasks.stage_params import Exportability as Limits

REFERENCE = {
    "encoder": "mobilenetv3_small_050",
    "decoder_channels": [96, 64, 48, 32],
    "skip": "concat",
    "upsample": "nearest",
    "head": "full-resolution",
}


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(16, 16, 1)
        self.gate = nn.Hardsigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gate(self.squeeze(x.mean((2, 3), keepdim=True)))


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.mean() > 0 else -x


class Counting(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.nonzero(x > 0).sum() * 0


class SecondLeast(nn.Module):
    """Of the channels: neither converter knows it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.kthvalue(x, 2, dim=1, keepdim=True)[0]


def samples(size: int = SIZE) -> list[np.ndarray]:
    return list(np.random.default_rng(0).random((2, 1, size, size, 3), dtype=np.float32))


def inspected(**parts: Any) -> Exportability:
    prepare_torch(1)
    return inspect(tiny_student(**parts), SIZE, samples())


def layers(found: Exportability, kind: str, op: str) -> list[str]:
    return list(dict.fromkeys(one.layer for one in found.findings if (one.kind, one.op) == (kind, op)))


@pytest.fixture(scope="module")
def bad() -> Exportability:
    """A student with one of everything."""
    inner = nn.Sequential(nn.Conv2d(16, 16, 1), nn.LeakyReLU(), nn.Hardswish(), SqueezeExcite(), nn.InstanceNorm2d(16))
    return inspected(inner=inner, skip="concat", upsample="nearest", head="full-resolution")


@pytest.fixture
def limits(repository: Path) -> Limits:
    return load_params(repository / "params.yaml").exportability


def test_each_operation_is_found_in_its_layer(bad: Exportability) -> None:
    assert layers(bad, "float island", "LEAKY_RELU") == ["encoder.inner.1"]
    assert layers(bad, "fallback", "HARD_SWISH") == ["encoder.inner.2"]
    assert layers(bad, "fallback", "RSQRT") == ["encoder.inner.4"]
    assert layers(bad, "fallback", "RESIZE_NEAREST_NEIGHBOR") == ["decoder.0", "forward"]
    assert "encoder.inner.4" in layers(bad, "transpose", "TRANSPOSE")
    assert layers(bad, "concatenation", "CONCATENATION") == ["decoder.0"]
    assert layers(bad, "full resolution", "CONV_2D") == ["head"]
    assert layers(bad, "onnx float", "HardSwish") == ["encoder.inner.2"]
    assert layers(bad, "onnx float", "ReduceMean") == []  # written as a pool (models/onnx_export.py)
    assert layers(bad, "onnx float", "HardSigmoid") == ["encoder.inner.3.gate"]


def test_each_finding_says_what_to_use_instead(bad: Exportability) -> None:
    told = {(one.op, one.layer): one.instead for one in bad.findings}
    assert "ReLU6" in told["LEAKY_RELU", "encoder.inner.1"]
    assert "ReLU6" in told["HARD_SWISH", "encoder.inner.2"]
    assert "ends in ReLU6" in told["HardSigmoid", "encoder.inner.3.gate"]
    assert "BatchNorm" in told["RSQRT", "encoder.inner.4"]
    assert "upsample: bilinear" in told["RESIZE_NEAREST_NEIGHBOR", "decoder.0"]
    assert "skip: add" in told["CONCATENATION", "decoder.0"]
    assert "head: pixel-shuffle" in told["CONV_2D", "head"]


def test_its_figures(bad: Exportability) -> None:
    figures = bad.figures
    assert figures["partitions"] == figures["fallbacks"] + 1 == 5
    assert figures["float_islands"] == figures["concatenations"] == figures["full_resolution"] == 1
    assert figures["onnx_float_operations"] == 2
    assert figures["operations"] > 20
    assert set(bad.files) == {INT8, "litert fp32", ONNX}


def test_every_limit_has_its_figure_and_the_first_that_is_broken_is_told(bad: Exportability, limits: Limits) -> None:
    verdicts = judge(bad.figures | {"latency_over_budget": 0.5}, limits)
    assert {one.rule for one in verdicts} == set(LIMITS) == {name for name in Limits.model_fields if "max_" in name}
    kept = {one.rule for one in verdicts if one.kept}
    assert kept == {"max_dynamic_shapes", "max_latency_over_budget"}
    assert {one.rule for one in verdicts if one.warns and not one.kept} == {"max_concatenations", "max_full_resolution"}
    findings = [one.to_json() for one in bad.findings]
    with pytest.raises(UserError, match=r"^encoder\.inner\.1 \(LEAKY_RELU\) has no int8 form .*: use ReLU6") as told:
        stage.refuse(findings, verdicts, Path("x/exportability.json"))
    line = str(told.value)
    assert "max_float_islands is 0, found 1; max_fallbacks is 0, found 4; max_partitions is 1, found 5" in line
    assert "\n" not in line and "max_concatenations" not in line and line.endswith("x/exportability.json")
    only_warn = limits.model_copy(update={"only_warn": list(LIMITS)})
    stage.refuse(findings, judge(bad.figures, only_warn), Path("x"))


def test_a_size_that_hangs_on_the_picture_is_found_without_a_conversion(limits: Limits) -> None:
    found = inspected(inner=nn.Sequential(nn.ReLU6(), Counting()))
    [finding] = found.findings
    assert (finding.kind, finding.op, finding.layer) == ("dynamic shape", "nonzero", "encoder.inner.1")
    assert not found.files
    with pytest.raises(UserError, match=r"encoder\.inner\.1 \(nonzero\) has an output whose size hangs on the picture"):
        stage.refuse([finding.to_json()], judge(found.figures, limits), Path("x"))


def test_a_layer_that_decides_by_the_picture_is_named(limits: Limits) -> None:
    prepare_torch(1)
    student = tiny_student()
    student.encoder.inner = nn.Sequential(nn.ReLU6(), Branching())
    found = inspect(student, SIZE, samples())
    with pytest.raises(UserError, match=r"^encoder\.inner\.1 cannot be converted \(Could not guard .*: use operations"):
        stage.refuse([one.to_json() for one in found.findings], judge(found.figures, limits), Path("x"))


def test_a_layer_that_no_converter_knows_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    inner = nn.Sequential(nn.ReLU6(), SecondLeast())
    [finding] = inspected(inner=inner).findings
    assert (finding.kind, finding.op, finding.layer) == ("unconvertible", "kthvalue", "encoder.inner.1")
    assert finding.file == ONNX and "aten.kthvalue" in finding.why and "\n" not in finding.why
    step = culprit(tiny_student(inner=inner), SIZE, ONNX)  # and where the reason does not say: by bisection
    assert step is not None and (step.op, step.layer) == ("kthvalue", "encoder.inner.1")
    assert capfd.readouterr().err == ""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path) -> Path:
    """An empty repository with params.yaml; also the current folder."""
    (tmp_path / "params.yaml").write_text((repository / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_stage(monkeypatch: pytest.MonkeyPatch, **parts: Any) -> None:
    """The stage on a tiny student in the place of the one that params.yaml describes."""
    params = load_params()
    block = params.student("oil")
    pairs = block.pairs.model_copy(update={"size": SIZE})
    student = tiny_student(**parts)
    monkeypatch.setattr(stage, "untrained", lambda block: copy.deepcopy(student))
    stage.exportability(params, "oil", block.model_copy(update={"pairs": pairs}))


def test_the_stage_on_a_student_that_is_fine(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_stage(monkeypatch)
    path = place / "data/students/oil/exportability/exportability.json"
    result = json.loads(path.read_text())
    assert result["figures"]["partitions"] == result["figures"]["transposes"] == 1
    assert [one["op"] for one in result["findings"]] == ["TRANSPOSE", "DepthToSpace"]
    assert 0 < result["figures"]["mega_macs"] < 2
    latency = json.loads((place / "data/.work/oil/exportability.latency.json").read_text())
    assert set(latency["p50_ms"]) == set(result["files"]) and min(latency["p50_ms"].values()) > 0
    assert latency["latency_over_budget"] == pytest.approx(latency["p50_ms"][INT8] / 33, abs=1e-3)
    told = capsys.readouterr().err
    assert "partitions" in told and "DepthToSpace" in told and latency["machine"]["cpu"] in told
    for word in ("ms", "cpu", str(place)):
        assert word not in path.read_text().split('"')  # equal work, equal bytes


def test_the_stage_refuses_and_leaves_the_findings(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"encoder\.inner .*exportability/exportability\.json$"):
        run_stage(monkeypatch, inner=Counting())
    folder = place / "data/students/oil"
    assert [path.name for path in folder.rglob("*")] == ["exportability", "exportability.json"]
    [finding] = json.loads((folder / "exportability/exportability.json").read_text())["findings"]
    assert finding["layer"] == "encoder.inner"


@pytest.mark.slow
def test_the_reference_student_is_found_out(limits: Limits) -> None:
    """A mobilenetv3_small_050 encoder, concatenated, nearest, at full resolution; about a minute."""
    from models.students import build_student

    prepare_torch(1)
    torch.manual_seed(0)
    student = build_student(REFERENCE, 128)
    student(torch.rand(4, 3, 128, 128))
    found = inspect(student.eval(), 128, samples(128))
    assert len(layers(found, "fallback", "HARD_SWISH")) == 18
    assert layers(found, "fallback", "HARD_SWISH")[:2] == ["encoder.act1", "encoder.blocks.2.0.bn1.act"]
    assert layers(found, "onnx float", "HardSigmoid")[0] == "encoder.blocks.0.0.se.gate"
    nearest = [*(f"decoder.{level}" for level in range(4)), "forward"]
    assert layers(found, "fallback", "RESIZE_NEAREST_NEIGHBOR") == nearest
    assert layers(found, "concatenation", "CONCATENATION") == nearest[:4]
    assert layers(found, "full resolution", "CONV_2D") == ["head"]
    with pytest.raises(UserError, match=r"^encoder\.act1 \(HARD_SWISH\) is taken by no delegate: use ReLU6"):
        stage.refuse([one.to_json() for one in found.findings], judge(found.figures, limits), Path("x"))


@pytest.mark.slow
def test_the_default_students_keep_every_limit(repository: Path) -> None:
    params = load_params(repository / "params.yaml")
    for block in {block.architecture.model_dump_json(): block for block in params.students.values()}.values():
        prepare_torch(1)
        found = inspect(stage.untrained(block), block.pairs.size, samples(block.pairs.size))
        assert all(one.kept for one in judge(found.figures, params.exportability))
