"""Training with int8's rounding in it: rounded as the int8 file rounds, off by default, whole after a kill."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from onnx import numpy_helper
from test_students import SMALL
from test_train import STUDENT, write_repository
from tiny_student import SIZE, TinyStudent, tiny_student

from models.compression import factorise, prune
from models.errors import UserError
from models.litert import to_litert
from models.litert_int8 import LiteRtQuantiser
from models.losses import pixel
from models.onnx_export import to_onnx
from models.onnx_int8 import OnnxQuantiser
from models.quantise_aware import LITERT_LEVELS, ONNX_LEVELS, Rounded, Rounding, rounded, settle
from models.students import build_student, load_student
from models.terms import Look, Part
from tasks.files import read_json, read_jsonl
from tasks.params import load_params
from tasks.quantise import opened
from tasks.train import train


def student_of(upsample: str) -> TinyStudent:
    """One whose pictures reach both ends of [0,1]."""
    student = tiny_student(upsample=upsample)
    with torch.no_grad():
        student.head.weight *= 16
        student.head.bias.fill_(0.5)  # type: ignore[union-attr]
    return student


def pictures() -> torch.Tensor:
    return torch.rand(6, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def nhwc(x: torch.Tensor) -> Any:
    return x.detach().permute(0, 2, 3, 1).contiguous().numpy()


def as_int8(made: Rounded, x: torch.Tensor) -> Any:
    """What is made of pictures with everything rounded, those that come out too."""
    made.train()
    for quantiser in made.quantisers():
        quantiser.disable_observer()
    return nhwc(torch.fake_quantize_per_tensor_affine(made(x), 1 / 255, 0, 0, 255))


@pytest.fixture
def as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Int8 files that are not equalised, as training does not."""
    monkeypatch.setattr("models.litert_int8.equalise", lambda content, samples, threads: (content, {}))


@pytest.mark.usefixtures("as_it_is")
@pytest.mark.parametrize(("upsample", "likeness", "left"), [("nearest", 0.95, 0.1), ("bilinear", 0.6, 0.8)])
def test_it_rounds_as_the_int8_file_does(upsample: str, likeness: float, left: float) -> None:
    """The file's own error, not only its size. A bilinear resize has its input's scale there, here its own."""
    student, x = student_of(upsample), pictures()
    content = to_litert(student, SIZE)
    samples = [(one[None],) for one in nhwc(x)]
    quantiser = LiteRtQuantiser(content, samples, 1, [name for name, _ in student.named_modules()])
    float_file, int8_file = (opened(one, "litert") for one in (content, quantiser.quantised()))
    expected, found = (np.concatenate([file(*one) for one in samples]) for file in (float_file, int8_file))
    simulated = as_int8(rounded(student, x, LITERT_LEVELS), x)
    assert np.corrcoef((simulated - expected).ravel(), (found - expected).ravel())[0, 1] > likeness
    assert ((simulated - found) ** 2).mean() < left * ((expected - found) ** 2).mean()


@pytest.mark.usefixtures("as_it_is")
def test_weights_have_the_files_own_scales() -> None:
    from models.equalise import CONVOLUTIONS, Graph

    student, x = student_of("bilinear"), pictures()
    samples = [(one[None],) for one in nhwc(x)]
    quantiser = LiteRtQuantiser(to_litert(student, SIZE), samples, 1, [name for name, _ in student.named_modules()])
    graph = Graph(quantiser.quantised())
    tensors = [
        graph.part.tensors[operator.inputs[1]].quantization.scale
        for kind, operator in graph.operators
        if kind in CONVOLUTIONS
    ]
    scales = weight_scales(rounded(student, x, LITERT_LEVELS))
    assert len(scales) == len(tensors) == 8
    for theirs in tensors[:-1]:  # the head's is six times as large
        assert any(len(ours) == len(theirs) and np.allclose(ours, theirs, rtol=1e-4) for ours in scales)


def weight_scales(made: Rounded) -> list[Any]:
    return [one.scale.numpy() for one in made.quantisers() if one.is_per_channel]


def test_weights_learn_on_the_scales_of_the_coarser_file() -> None:
    """ONNX Runtime's, whose int8 graph has seven bits for weights: half as many levels, found in the file itself."""
    student, x = student_of("bilinear"), pictures()
    ours = weight_scales(rounded(student, x))
    for fine, coarse in zip(weight_scales(rounded(student, x, LITERT_LEVELS)), ours, strict=True):
        np.testing.assert_allclose(coarse, fine * (LITERT_LEVELS / ONNX_LEVELS), rtol=1e-4)
    content = OnnxQuantiser(to_onnx(student, SIZE), [(one[None],) for one in nhwc(x)]).quantised()
    graph = onnx.load_model_from_string(content).graph
    constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    # A convolution's inputs are its values, its weights and its bias, each behind a DequantizeLinear with its scale.
    scales = {node.output[0]: constants[node.input[1]] for node in graph.node if node.op_type == "DequantizeLinear"}
    theirs = [scales[node.input[1]] for node in graph.node if node.op_type == "Conv"]
    assert len(ours) == len(theirs) == 8
    for scale in ours[:-1]:
        assert any(scale.shape == one.shape and np.allclose(scale, one, rtol=1e-3) for one in theirs)


def test_in_eval_mode_it_is_the_student() -> None:
    student, x = student_of("bilinear"), pictures()
    made = rounded(student, x)
    torch.testing.assert_close(made.eval()(x), student(x), atol=1e-5, rtol=0)
    assert (made.train()(x) - made.eval()(x)).abs().max() > 1e-4
    torch.testing.assert_close(made(x[:1, :, :16, :24]), student(x[:1, :, :16, :24]), atol=1e-5, rtol=0)


def test_validation_teaches_no_ranges() -> None:
    made = rounded(student_of("bilinear"), pictures()).eval()
    before = copy.deepcopy(made.state_dict())
    made(3 * pictures())
    assert all(bool((value == before[name]).all()) for name, value in made.state_dict().items())


def test_every_weight_learns() -> None:
    made = rounded(student_of("bilinear"), pictures())
    made(pictures()).square().mean().backward()
    assert not [name for name, weight in made.named_parameters() if weight.grad is None or not weight.grad.any()]


def rounding(made: Rounded, x: torch.Tensor, weight: float) -> dict[str, Part]:
    """The part of the loss that the term adds."""
    return Rounding(weight)(Look(student=made, inputs=x, targets=x, output=made(x), step=0, share=0.0))


def test_the_distance_to_float_is_a_loss_beside_the_others() -> None:
    made, x = rounded(student_of("bilinear"), pictures()), pictures()
    assert rounding(made, x, 0.0) == {}
    part = rounding(made, x, 1000.0)["rounding"]
    assert part.weight == 1000.0
    apart = (made(x) - made.plain(x)).square().mean()
    torch.testing.assert_close(part.value, apart, rtol=0.02, atol=0, check_device=False)
    assert apart > 0


def test_training_brings_int8_nearer_to_float() -> None:
    """Measured afterwards on the float student that comes out, by another copy that rounds."""
    student, x = student_of("bilinear"), pictures()
    targets = student(x).detach()  # learned already: what is left is the rounding

    def apart() -> float:
        return rounding(rounded(student, x), x, 1.0)["rounding"].value.item()

    before = apart()
    made = rounded(student, x)
    optimizer = torch.optim.AdamW(made.parameters(), lr=1e-3)
    for _ in range(60):
        loss = pixel(made(x), targets) + 3e3 * rounding(made, x, 1.0)["rounding"].value
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    settle(student, made, [x])
    assert apart() < 0.7 * before
    assert (student(x) - targets).abs().mean() < 0.05


@pytest.mark.parametrize("skip", ["add", "concat"])
@pytest.mark.parametrize("head", ["pixel-shuffle", "full-resolution"])
def test_what_was_learned_becomes_a_student_again(skip: str, head: str) -> None:
    student, x = tiny_student(skip=skip, head=head), pictures()
    made = rounded(student, x)
    with torch.no_grad():
        for weight in made.parameters():
            weight += 0.01 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(2))
    kept = set(student.state_dict())
    settle(student, made, x.split(3))
    assert set(student.state_dict()) == kept
    torch.testing.assert_close(student(x), made.eval()(x), atol=1e-5, rtol=0)
    # A later training normalises by the batch: it must begin where this one ended.
    torch.testing.assert_close(student.train()(x).clamp(0, 1), made(x), atol=1e-4, rtol=0)


def test_a_compressed_student_is_rounded_too() -> None:
    torch.manual_seed(0)
    student, x = build_student(SMALL, 64), torch.rand(4, 3, 64, 64)
    with torch.no_grad():
        student.train()(x)
    prune(student.eval(), 64, 0.3)
    factorise(student, 0.9)
    wanted = student(x)
    settle(student, rounded(student, x), [x])
    torch.testing.assert_close(student(x), wanted, atol=1e-5, rtol=0)


@pytest.fixture
def here(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a tiny student."""
    write_repository(tmp_path, repository)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_with(**settings: Any) -> dict[str, bytes]:
    """The student folder's bytes after the stage, with these settings of `quantise_aware`."""
    path = Path("params.yaml")
    raw = yaml.safe_load(path.read_text())
    raw["students"]["oil"]["quantise_aware"] |= settings
    path.write_text(yaml.safe_dump(raw))
    params = load_params()
    train(params, "oil", params.student("oil"))
    return {path.name: path.read_bytes() for path in STUDENT.iterdir()}


def test_off_it_leaves_the_student_alone(here: Path) -> None:
    assert load_params().student("oil").quantise_aware.steps == 0
    off = run_with()
    assert not list(here.glob("data/.work/oil/round-*"))
    on = run_with(steps=4)
    assert on["weights.safetensors"] != off["weights.safetensors"]
    assert run_with(steps=0)["weights.safetensors"] == off["weights.safetensors"]


def test_killed_and_run_again_it_writes_the_same_bytes(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from models import training

    whole = run_with(steps=6)
    assert [line["step"] for line in read_jsonl(STUDENT / "curve.jsonl") if "val_l1" in line] == [10, 20, 30, 36]
    assert read_json(STUDENT / "student.json")["quantise_aware"] == {"steps": 6, "rate": 0.1, "weight": 1000.0}
    load_student(STUDENT)

    [checkpoint] = here.glob("data/.work/oil/round-*")
    checkpoint.unlink()
    shutil.rmtree(STUDENT)
    with monkeypatch.context() as patch:
        patch.setattr(training, "save_checkpoint", killed_after(training.save_checkpoint))
        with pytest.raises(KeyboardInterrupt):
            run_with()
    assert checkpoint.exists() and not STUDENT.exists()
    assert run_with() == whole


def killed_after(save: Callable[..., None]) -> Callable[..., None]:
    """`save`, and then the end of the process."""

    def once(*arguments: Any) -> None:
        save(*arguments)
        raise KeyboardInterrupt

    return once


def test_a_rate_that_breaks_it_is_one_line(here: Path) -> None:
    with pytest.raises(UserError, match=r"quantise_aware\.rate"):
        run_with(steps=6, rate=1e30)


@pytest.mark.parametrize("settings", [{"steps": -1}, {"rate": 0}, {"rate": float("nan")}, {"weight": -1}, {"speed": 1}])
def test_bad_settings_are_one_line(here: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"quantise_aware\.(steps|rate|weight|speed)"):
        run_with(**settings)
