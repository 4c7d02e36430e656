"""Export of a small student to four files: what they compute, what they hold, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from models.errors import UserError
from models.file_graph import BORDERS, Delegation, delegation, float_islands, litert_operations
from models.runtimes import open_model
from tasks import quantise
from tasks.files import sha256_bytes, sha256_file, write_json
from tasks.parity import parity
from tasks.stage_params import Quantise

SIZE = 64
SETTINGS = Quantise.model_validate(
    {
        "calibration_samples": 6,
        "parity_samples": 3,
        "max_float_difference": 1e-3,
        "min_float_psnr_db": 80.0,
        "precisions": {"litert": ["fp32", "fp16", "int8"], "onnx": ["fp32", "int8", "fp16"]},
        "min_psnr_db": 45.0,
        "min_worst_psnr_db": 42.0,
    }
)
FILES = tuple(
    f"student.{precision}.{suffix}"
    for suffix, precisions in (("tflite", SETTINGS.precisions.litert), ("onnx", SETTINGS.precisions.onnx))
    for precision in precisions
)
ARCHITECTURE = {
    "encoder": "test_resnet",
    "decoder_channels": [16, 16, 16, 8],
    "skip": "add",
    "upsample": "bilinear",
    "head": "pixel-shuffle",
}


def write_student(folder: Path) -> None:
    """A student folder with random weights whose output reaches both ends of [0,1]."""
    import torch
    from safetensors.torch import save_file

    from models.students import build_student
    from models.torch_setup import prepare_torch

    prepare_torch(1)
    torch.manual_seed(0)
    student: Any = build_student(ARCHITECTURE, SIZE)
    with torch.no_grad():
        student.train()
        for _ in range(3):
            student(torch.rand(4, 3, SIZE, SIZE))
        student.head.weight *= 30
    folder.mkdir(parents=True)
    save_file(student.state_dict(), folder / "weights.safetensors")
    sha256 = sha256_file(folder / "weights.safetensors")
    write_json(folder / "student.json", {"architecture": ARCHITECTURE, "size": SIZE, "weights_sha256": sha256})


def write_pairs(folder: Path) -> None:
    """Random inputs for the training and the validation split."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for split, count in (("train", 9), ("val", 4)):
        np.save(folder / f"{split}.inputs.npy", random.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8))


def export(folder: Path) -> None:
    quantise.export(folder, SETTINGS, sizes=[], threads=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student's folder after quantise; converting is slow, so it is made once."""
    folder = tmp_path_factory.mktemp("student")
    write_student(folder / "student")
    write_pairs(folder / "pairs")
    export(folder)
    return folder


def lines(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "exported" / "exported.json").read_text())["files"]
    return found


def test_the_files_are_listed_with_their_digests(made: Path) -> None:
    assert [line["file"] for line in lines(made)] == list(FILES)
    assert sorted(path.name for path in (made / "exported").iterdir()) == sorted([*FILES, "exported.json"])
    for line in lines(made):
        path = made / "exported" / line["file"]
        assert line["sha256"] == sha256_file(path)
        assert line["bytes"] == path.stat().st_size
        assert line["layout"] == {"litert": "NHWC", "onnx": "NCHW"}[line["runtime"]]


def test_its_own_size_is_supported(made: Path) -> None:
    [own] = json.loads((made / "exported" / "exported.json").read_text())["sizes"]
    of_files = {line["runtime"]: line["parity"] for line in lines(made) if line["precision"] == "fp32"}
    assert own == {"size": SIZE, "parity": of_files}


def test_every_file_computes_what_torch_does(made: Path) -> None:
    for line in lines(made):
        found = line["parity"]
        assert found["worst_psnr_db"] <= found["psnr_db"]
        if line["precision"] == "fp32":
            assert found["max_abs"] < 1e-5
        else:
            assert found["worst_psnr_db"] > {"int8": 42, "fp16": 55}[line["precision"]]


def test_outputs_are_clamped_pictures_that_use_the_whole_range(made: Path) -> None:
    picture = np.random.default_rng(1).random((1, SIZE, SIZE, 3), dtype=np.float32)
    for line in lines(made):
        output = open_model(made / "exported" / line["file"], line["runtime"])(picture)
        assert output.shape == (1, SIZE, SIZE, 3)
        assert output.dtype == np.float32
        assert output.min() == 0
        assert output.max() == pytest.approx(1, abs=3e-3)


def test_int8_files_are_smaller_and_hold_int8(made: Path) -> None:
    size = {line["file"]: line["bytes"] for line in lines(made)}
    assert size["student.int8.tflite"] < 0.6 * size["student.fp32.tflite"]
    assert size["student.int8.onnx"] < 0.6 * size["student.fp32.onnx"]
    assert size["student.fp16.tflite"] < 0.7 * size["student.fp32.tflite"]
    assert size["student.fp16.onnx"] < 0.7 * size["student.fp32.onnx"]


def test_int8_holds_the_budget_and_says_what_stays_in_float(made: Path) -> None:
    from models.litert_int8 import find_layers
    from models.students import load_student

    modules = [name for name, _ in load_student(made / "student").named_modules()]
    layers = find_layers((made / "exported/student.fp32.tflite").read_bytes(), modules)
    for line in lines(made):
        if line["precision"] != "int8":
            assert "high" not in line
            continue
        assert line["budget_held"] and line["to_float"]["psnr_db"] >= 45 and line["to_float"]["worst_psnr_db"] >= 42
        assert set(line["high"]) <= {layer.name for layer in layers}
        if not line["high"]:
            assert line["to_float"] == line["all_int8"]


def test_every_block_has_its_cost(made: Path) -> None:
    exported = json.loads((made / "exported/exported.json").read_text())
    blocks = [row["block"] for row in exported["sensitivity"]]
    assert {"encoder.conv1.0", "decoder.3", "head"} <= set(blocks) and len(set(blocks)) == len(blocks)
    costs = [max(row["cost_db"], row["worst_cost_db"]) for row in exported["sensitivity"]]
    assert costs == sorted(costs, reverse=True)


def test_layers_bear_the_names_of_torch_modules(made: Path) -> None:
    from models.litert_int8 import find_layers
    from models.students import load_student

    student = load_student(made / "student")
    modules = dict(student.named_modules())
    layers = find_layers((made / "exported/student.fp32.tflite").read_bytes(), list(modules))
    assert all(layer.name in modules for layer in layers)
    convolutions = {name for name, module in modules.items() if type(module).__name__.startswith("Conv2d")}
    found = {layer.name for layer in layers if layer.convolution}
    # A branch whose last BatchNorm begins at zero is none to the converter.
    assert found <= convolutions and all(".conv" in name and "layer" in name for name in convolutions - found)
    assert {layer.block for layer in layers if layer.name.startswith("decoder.1")} == {"decoder.1"}


def test_a_layer_that_stays_in_float_is_float_in_the_file(made: Path) -> None:
    from models.litert_int8 import LiteRtQuantiser

    content = (made / "exported/student.fp32.tflite").read_bytes()
    samples = quantise.evenly(made / "pairs", "train", 2)
    quantiser = LiteRtQuantiser(content, samples, 1, ["head"])
    plain, kept = quantiser.quantised(), quantiser.quantised(["head"])
    assert len(kept) > len(plain)
    for file in (plain, kept):
        assert quantise.opened(file, "litert")(*samples[0]).shape == (1, SIZE, SIZE, 3)
    every = quantiser.quantised([layer.name for layer in quantiser.layers])
    same = quantise.opened(every, "litert")(*samples[0])
    np.testing.assert_allclose(same, quantise.opened(content, "litert")(*samples[0]), atol=1e-4)


def test_equalising_changes_the_weights_and_not_the_function(made: Path) -> None:
    from models.equalise import equalise

    content = (made / "exported/student.fp32.tflite").read_bytes()
    samples = quantise.evenly(made / "pairs", "train", 6)
    other, done = equalise(content, samples, 1)
    assert other != content and any(one.made is not None and one.made.max() > 1.5 for one in done.values())
    assert all(one.made is None or one.made.min() >= 1 for one in done.values())
    for (check,) in quantise.evenly(made / "pairs", "val", 3):
        before, after = (quantise.opened(one, "litert")(check) for one in (content, other))
        np.testing.assert_allclose(after, before, atol=2e-3)


@pytest.fixture(scope="module")
def gated() -> Any:
    """A student with squeeze and excitation and random weights, its gates far from 1."""
    import torch

    from models.students import build_student

    torch.manual_seed(0)
    student = build_student({**ARCHITECTURE, "encoder": "patches2_8_16_24_se", "decoder_channels": [16, 8]}, SIZE)
    with torch.no_grad():
        for name, weight in student.named_parameters():
            if ".scale." in name:
                weight += 0.5 * torch.randn_like(weight)
        for _ in range(3):
            student(torch.rand(4, 3, SIZE, SIZE))
    return student.eval()


def test_squeeze_and_excitation_is_int8_in_one_delegate(gated: Any) -> None:
    from models.litert import to_litert
    from models.litert_int8 import to_litert_int8
    from models.onnx_export import to_onnx

    picture = np.random.default_rng(1).random((1, SIZE, SIZE, 3), dtype=np.float32)
    content = to_litert_int8(to_litert(gated, SIZE), [(picture,)], 1)
    assert delegation(content) == Delegation(partitions=1, fallbacks=())
    assert float_islands(litert_operations(content)) == []
    kinds = [node.op_type for node in onnx.load_model_from_string(to_onnx(gated, SIZE)).graph.node]
    assert kinds.count("GlobalAveragePool") == 2 and "ReduceMean" not in kinds


def test_channels_are_equalised_through_gates(gated: Any) -> None:
    """Both what is gated and what the gate is made of, but never the gate itself."""
    from models.equalise import Graph, equalise
    from models.litert import to_litert

    chance = np.random.default_rng(1)
    samples = [(chance.random((1, SIZE, SIZE, 3), dtype=np.float32),) for _ in range(3)]
    content = to_litert(gated, SIZE)
    other, done = equalise(content, samples, 1)
    before, after = (quantise.opened(one, "litert")(*samples[0]) for one in (content, other))
    np.testing.assert_allclose(after, before, atol=1e-5)
    graph = Graph(content)
    names = [
        graph.name(one) for kind, one in graph.operators if kind == "CONV_2D" and "SqueezeExcite" in graph.name(one)
    ]
    gates, hidden = names[1::2], names[::2]
    assert len(gates) == 2 and all("Sequential_scale" in name for name in gates)
    assert all(done[name].made is None and done[name].used is not None for name in gates)
    assert all(done[name].used is not None and done[name].used.max() > 1.5 for name in hidden)


def test_int16_activations_are_nearly_exact(made: Path) -> None:
    from models.litert_int8 import to_litert_w8a16
    from tasks.parity import parity as compare

    content = (made / "exported/student.fp32.tflite").read_bytes()
    samples = quantise.evenly(made / "pairs", "train", 2)
    file = to_litert_w8a16(content, samples, 1)
    expected = [quantise.opened(content, "litert")(*sample) for sample in samples]
    all_int8 = next(line for line in lines(made) if line["file"] == "student.int8.tflite")["all_int8"]
    assert compare(quantise.opened(file, "litert"), samples, expected)["psnr_db"] > all_int8["psnr_db"]


def test_calibration_is_on_training_inputs_alone(made: Path) -> None:
    told = json.loads((made / "exported/exported.json").read_text())["calibration"]
    samples = quantise.evenly(made / "pairs", "train", 6)
    assert told == {"samples": 6, "sha256": sha256_bytes(b"".join(sample.tobytes() for (sample,) in samples))}
    quantise.refuse_shared(samples, quantise.evenly(made / "pairs", "val", 4))
    with pytest.raises(UserError, match="validation input is a training input too"):
        quantise.refuse_shared(samples, [samples[2]])


def test_the_int8_graph_of_our_own_layers_is_one_delegate_without_float_islands() -> None:
    import torch

    from models.encoders import conv_bn
    from models.litert import to_litert
    from models.litert_int8 import to_litert_int8
    from models.students import DecoderLevel

    class Small(torch.nn.Module):
        block = 2

        def __init__(self) -> None:
            super().__init__()
            self.stem = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, stride=2, padding=1), conv_bn(8, 8))
            self.down = torch.nn.Sequential(torch.nn.Conv2d(8, 16, 3, stride=2, padding=1), conv_bn(16, 16))
            self.up = DecoderLevel(inputs=16, skip_channels=8, outputs=8, skip="add", upsample="bilinear")
            self.head = torch.nn.Conv2d(8, 12, 3, padding=1)

        def features(self, x: torch.Tensor) -> torch.Tensor:
            skip = self.stem(x)
            return self.up(self.down(skip), skip)

    torch.manual_seed(0)
    model = to_litert(Small().eval(), SIZE)
    picture = np.random.default_rng(1).random((1, SIZE, SIZE, 3), dtype=np.float32)
    for content in (model, to_litert_int8(model, [(picture,)], 1)):
        assert delegation(content) == Delegation(partitions=1, fallbacks=())
    operations = litert_operations(content)
    assert float_islands(operations) == []
    borders = [one.op for one in operations if one.op in BORDERS]
    assert borders == ["QUANTIZE", "DEQUANTIZE"]


def test_files_hold_no_path_of_this_machine(made: Path, repository: Path) -> None:
    for name in FILES:
        content = (made / "exported" / name).read_bytes()
        assert str(repository).encode() not in content
        assert b"site-packages" not in content


def test_equal_weights_give_equal_bytes(made: Path, tmp_path: Path) -> None:
    for part in ("student", "pairs"):
        shutil.copytree(made / part, tmp_path / part)
    export(tmp_path)
    for path in sorted((made / "exported").iterdir()):
        assert sha256_file(tmp_path / "exported" / path.name) == sha256_file(path), path.name


@pytest.mark.parametrize(("levels", "head"), [(4, "pixel-shuffle"), (3, "pixel-shuffle"), (4, "full-resolution")])
def test_the_channels_last_form_is_the_same_function(levels: int, head: str) -> None:
    import torch

    from models.litert import ChannelsLast
    from models.students import build_student

    torch.manual_seed(0)
    changed = {"decoder_channels": ARCHITECTURE["decoder_channels"][:levels], "head": head}
    student: Any = build_student({**ARCHITECTURE, **changed}, SIZE).eval()
    with torch.no_grad():
        student.head.weight *= 300
        x = torch.rand(1, 3, SIZE, SIZE)
        expected = student(x).permute(0, 2, 3, 1)
        found = ChannelsLast(student)(x.permute(0, 2, 3, 1))
    assert expected.min() == 0
    assert expected.max() == 1
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_changed_weights_are_refused(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "copy")
    weights = tmp_path / "copy" / "student" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(UserError, match="sha256"):
        export(tmp_path / "copy")
    assert sha256_file(tmp_path / "copy" / "exported" / FILES[0]) == lines(made)[0]["sha256"]


def test_a_float_file_that_differs_from_torch_is_refused(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models import onnx_export
    from models.students import load_student

    for part in ("student", "pairs"):
        shutil.copytree(made / part, tmp_path / part)
    other: Any = load_student(made / "student")
    other.decoder[1].pointwise[0].weight.data[0] += 1
    convert = onnx_export.to_onnx
    monkeypatch.setattr(onnx_export, "to_onnx", lambda _, size: convert(other, size))  # it gets a layer wrong
    with pytest.raises(UserError, match=r"student\.fp32\.onnx differs .* first at decoder\.1\.pointwise\.0 \(conv2d\)"):
        export(tmp_path)
    assert not (tmp_path / "exported").exists()


def test_samples_lie_evenly_over_the_split(tmp_path: Path) -> None:
    inputs = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1).repeat(3, axis=3)
    np.save(tmp_path / "train.inputs.npy", inputs)
    values = [round(float(sample[0, 0, 0, 0]) * 255) for (sample,) in quantise.evenly(tmp_path, "train", 4)]
    assert values == [0, 3, 6, 9]
    assert len(quantise.evenly(tmp_path, "train", 50)) == 10


def test_missing_empty_and_broken_pairs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "val.inputs.npy"
    with pytest.raises(UserError, match="dvc repro curate"):
        quantise.evenly(tmp_path, "val", 4)
    np.save(path, np.zeros((0, 8, 8, 3), np.uint8))
    with pytest.raises(UserError, match="no val pairs"):
        quantise.evenly(tmp_path, "val", 4)
    path.write_bytes(b"\x93NUMPY")
    with pytest.raises(UserError, match="dvc repro curate"):
        quantise.evenly(tmp_path, "val", 4)


def test_identical_outputs_have_a_finite_psnr() -> None:
    zeros = np.zeros((1, 2, 2, 3), np.float32)
    same = parity(lambda picture: picture, [(zeros,)], [zeros])
    assert same == {"max_abs": 0.0, "psnr_db": 100.0, "worst_psnr_db": 100.0}
    assert parity(lambda picture: picture + np.float32(0.1), [(zeros,)], [zeros])["psnr_db"] == 20.0
