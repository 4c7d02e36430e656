"""A student with a slider: it folds at any strength, learns to follow it, and its files and figures are right."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import save_file
from test_quantise import SETTINGS, write_pairs
from test_training import LOSSES, pairs, recipe

from models.batches import Batches, Graded
from models.controls import Blended, Controlled, at, bake
from models.errors import UserError
from models.file_graph import float_islands, litert_operations
from models.runtimes import open_model
from models.students import UNet, build_student, load_student
from models.terms import Pictures
from models.torch_setup import prepare_torch
from models.training import begin, run
from models.validation import on_pairs
from tasks import quantise
from tasks.control_quality import STRIP, STRIP_ROWS, control_quality, open_slider, slider_figures, slider_strip
from tasks.files import sha256_file, write_json
from tasks.quality import Work

__all__ = ["pairs"]

SIZE = 64
ARCHITECTURE = {
    "encoder": "patches2_16_24_32",
    "decoder_channels": [24, 16],
    "skip": "add",
    "upsample": "bilinear",
    "head": "pixel-shuffle",
}


def slider(**change: Any) -> Controlled:
    """One whose strength matters, in eval mode; its BatchNorm has seen pictures."""
    prepare_torch(1)
    torch.manual_seed(0)
    made = build_student({**ARCHITECTURE, **change}, SIZE, "strength")
    assert isinstance(made, Controlled)
    with torch.no_grad():
        made.film.out.weight.normal_(std=0.3)
        for _ in range(3):
            made(torch.rand(4, 3, SIZE, SIZE), torch.rand(4))
        made.head.weight *= 10
    return made.eval()


@pytest.mark.parametrize("change", [{}, {"skip": "concat"}, {"upsample": "nearest"}])
@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_it_folds_at_any_strength(change: dict[str, Any], strength: float) -> None:
    made, x = slider(**change), torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        torch.testing.assert_close(bake(made, strength)(x), at(made, strength)(x), atol=1e-5, rtol=0)
        assert (at(made, 0.3)(x) - (0.7 * x + 0.3 * made(x))).abs().max() > 0.01  # it is not the blend alone


def test_at_full_strength_it_is_a_plain_student() -> None:
    made, plain = slider(), build_student(ARCHITECTURE, SIZE)
    assert type(bake(made, 1.0)) is UNet and type(bake(made, 0.5)) is Blended
    assert list(bake(made, 1.0).state_dict()) == list(plain.state_dict())
    added = [name for name in made.state_dict() if name not in plain.state_dict()]
    assert added and all(name.startswith("film.") for name in added)


def test_its_ends_are_the_input_and_what_it_gives_without_a_strength() -> None:
    made, x = slider(), torch.rand(2, 3, SIZE, SIZE)
    assert torch.equal(at(made, 0.0)(x), x)
    assert torch.equal(at(made, 1.0)(x), made(x))
    mixed = made(x, torch.tensor([0.2, 0.9]))  # each picture its own
    torch.testing.assert_close(mixed[1:], at(made, 0.9)(x[1:]), atol=1e-5, rtol=0)


def test_every_weight_gets_a_gradient() -> None:
    made = slider().train()
    made(torch.rand(4, 3, SIZE, SIZE), torch.rand(4)).square().mean().backward()
    without = [name for name, weight in made.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert not without


def test_batches_hold_the_effect_at_strengths_of_their_own(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    plain, graded = (kind(*pairs, batch_size=64, crop=32, seed=3) for kind in (Batches, Graded))
    x, full = plain.batch(5)
    inputs, targets, strengths = graded.batch(5)
    assert torch.equal(inputs, x)
    torch.testing.assert_close(targets, x + strengths[:, None, None, None] * (full - x))
    assert strengths.dtype == torch.float32 and (strengths == 1).any() and (strengths < 0.5).any()
    assert 0 <= strengths.min() and strengths.max() == 1
    assert all(
        torch.equal(one, other) for one, other in zip(graded.batch(5), (inputs, targets, strengths), strict=True)
    )
    assert not torch.equal(graded.batch(6)[2], strengths)
    assert torch.equal(graded.batch(5, slice(1, None, 2))[2], strengths[1::2])


class Few(Graded):
    """At four strengths alone, in turn, the path to the full effect bent by `power`."""

    power = 1

    def strengths(self, step: int) -> np.ndarray:
        return np.resize(np.array([0, 0.25, 0.5, 1], np.float32), self.batch_size)

    def made_of(self, raw: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        *pictures, strengths = raw
        inputs, full = Batches.made_of(self, tuple(pictures))
        return inputs, torch.lerp(inputs, full, strengths[:, None, None, None] ** self.power), strengths


def learnt(folder: Path, pairs: tuple[np.ndarray, np.ndarray], power: int) -> dict[str, Any]:
    """Figures on the very pairs of a slider that was trained at four strengths."""
    prepare_torch(1)
    torch.manual_seed(0)
    settings = recipe(steps=160, ema_decay=0.5, checkpoint_every=1000, validate_every=1000)
    training = begin(build_student(ARCHITECTURE, SIZE, "strength"), settings, [Pictures(LOSSES)])
    batches = Few(*pairs, batch_size=8, crop=64, seed=3)
    batches.power = power
    made = run(training, batches, on_pairs(pairs), settings, Accelerator(cpu=True), folder / "state", lambda *_: None)

    def slide(pictures: np.ndarray, strength: float) -> np.ndarray:
        x = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255
        with torch.no_grad():
            return made(x, torch.full((len(x),), strength)).permute(0, 2, 3, 1).numpy()

    x, y = (one.astype(np.float64) / 255 for one in pairs)
    effect = {}
    for strength in (0.25, 0.375, 0.5, 0.75, 1.0):
        wanted = x + strength**power * (y - x)
        error = np.square(slide(pairs[0], strength) - wanted).mean()
        effect[strength] = 1 - error / np.square(wanted - x).mean()
    return slider_figures("made", slide, *pairs) | {"effect": effect}


def test_a_slider_is_right_at_strengths_it_never_saw(tmp_path: Path, pairs: tuple[np.ndarray, np.ndarray]) -> None:
    found = learnt(tmp_path, pairs, power=1)
    assert found["identity_levels"] < 0.1 and found["monotone"] == 1 and found["step_back"] == 0
    seen = min(found["effect"][strength] for strength in (0.25, 0.5, 1.0))
    assert seen > 0.8
    assert min(found["effect"][strength] for strength in (0.375, 0.75)) > seen - 0.05


def test_a_slider_follows_a_bent_path(tmp_path: Path, pairs: tuple[np.ndarray, np.ndarray]) -> None:
    found = learnt(tmp_path, pairs, power=2)
    # The best that a blend of one picture with the input can do at these strengths is 0.46 at 0.5.
    assert found["effect"][0.5] > 0.7
    assert found["monotone"] == 1


def test_figures_of_a_slider_that_is_right_and_of_one_that_turns_back(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = (one.astype(np.float32) / 255 for one in pairs)
    right = slider_figures("right", lambda _, strength: x + np.float32(strength) * (y - x), *pairs)
    assert right["explained_effect"] == pytest.approx({"0.25": 1, "0.5": 1, "0.75": 1, "1": 1})
    assert (right["identity_levels"], right["monotone"], right["step_back"]) == pytest.approx((0, 1, 0))

    def turning(_: np.ndarray, strength: float) -> np.ndarray:
        share = np.full((len(x), 1, 1, 1), strength, np.float32)
        share[0] = 0.5 if strength == 1 else strength  # falls from 0.875 to 0.5 at the end
        return x + share * (y - x)

    wrong = slider_figures("wrong", turning, *pairs)
    assert wrong["monotone"] == 0.75 and wrong["step_back"] == pytest.approx(0.375 / 0.5, abs=1e-4)
    still = slider_figures("still", lambda _, strength: y, *pairs)
    assert still["identity_levels"] == pytest.approx(255 * np.sqrt(np.square(x - y).mean()), rel=1e-4)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student's folder after quantise, with one more strength baked; converting is slow, so it is made once."""
    folder = tmp_path_factory.mktemp("slider")
    (folder / "student").mkdir()
    save_file(slider().state_dict(), folder / "student/weights.safetensors")
    sha256 = sha256_file(folder / "student/weights.safetensors")
    record = {"architecture": ARCHITECTURE, "size": SIZE, "control": "strength", "weights_sha256": sha256}
    write_json(folder / "student/student.json", record)
    write_pairs(folder / "pairs")
    quantise.export(folder, SETTINGS, sizes=[], threads=1, baked=[0.5])
    return folder


@pytest.mark.timeout(900)
@pytest.mark.slow  # three LiteRT conversions and three calibrations
def test_files_that_take_the_strength_agree_with_torch(made: Path) -> None:
    student, picture = load_student(made / "student"), np.random.default_rng(1).random((1, SIZE, SIZE, 3), np.float32)
    assert isinstance(student, Controlled)
    x = torch.from_numpy(picture).permute(0, 3, 1, 2)
    for suffix, runtime in (("tflite", "litert"), ("onnx", "onnx")):
        model = open_model(made / f"exported/student.strength.fp32.{suffix}", runtime)
        for strength in (0.0, 0.2, 0.55, 1.0):
            with torch.no_grad():
                expected = at(student, strength)(x).permute(0, 2, 3, 1).numpy()
            np.testing.assert_allclose(model(picture, strength), expected, atol=1e-5)
        np.testing.assert_array_equal(model(picture), model(picture, 1.0))


@pytest.mark.timeout(900)
@pytest.mark.slow  # uses the files above
def test_int8_files_that_take_the_strength_are_near_it_at_every_one(made: Path) -> None:
    picture = np.load(made / "pairs/val.inputs.npy")[:1].astype(np.float32) / 255
    for suffix, runtime in (("tflite", "litert"), ("onnx", "onnx")):
        exact, rounded = (
            open_model(made / f"exported/student.strength.{precision}.{suffix}", runtime)
            for precision in ("fp32", "int8")
        )
        assert np.abs(rounded(picture, 0.0) - picture).max() < 0.6 / 255
        moved = []
        for strength in np.linspace(0, 1, 9).tolist():
            output = rounded(picture, strength)
            error = np.sqrt(np.square(output - exact(picture, strength)).mean())
            assert error < 10 / 255  # of noise, by random weights: a real one is within 2
            moved.append(np.square(output - picture).mean())
        assert (np.diff(moved) > 0).all()
    operations = litert_operations((made / "exported/student.strength.int8.tflite").read_bytes())
    assert float_islands(operations) == []


@pytest.mark.timeout(900)
@pytest.mark.slow  # uses the files above
def test_files_at_a_fixed_strength(made: Path) -> None:
    exported = json.loads((made / "exported/exported.json").read_text())
    assert [line["file"] for line in exported["files"]] == [
        f"student.{precision}.{suffix}"
        for suffix, precisions in (("tflite", SETTINGS.precisions.litert), ("onnx", SETTINGS.precisions.onnx))
        for precision in precisions
    ]
    lines = {line["file"]: line for line in exported["control"]}
    taking = {name for name, line in lines.items() if line["strength"] is None}
    assert taking == {line["file"].replace("student.", "student.strength.") for line in exported["files"]}
    fixed = [name for name, line in lines.items() if line["strength"] is not None]
    assert {lines[name]["strength"] for name in fixed} == {0.5} and "student.at-0.5.int8.tflite" in fixed
    for name in fixed:
        assert lines[name]["sha256"] == sha256_file(made / "exported" / name)
        least = {"fp32": 80, "fp16": 55, "int8": 40}[lines[name]["precision"]]
        assert lines[name]["parity"]["worst_psnr_db"] > least
    with pytest.raises(UserError, match="takes no strength"):
        open_model(made / "exported" / fixed[0], "litert")(np.zeros((1, SIZE, SIZE, 3), np.float32), 0.5)


@pytest.mark.timeout(900)
@pytest.mark.slow  # uses the files above
def test_the_figures_are_of_the_files(made: Path) -> None:
    exported = json.loads((made / "exported/exported.json").read_text())
    inputs = np.load(made / "pairs/val.inputs.npy")
    nothing: Any = {}
    work = Work(
        pairs=nothing,
        student=nothing,
        exported=exported,
        benchmark=nothing,
        inputs=inputs,
        targets=255 - inputs,
        verdicts=[],
        photos=[],
    )
    opened = open_slider(made, work)
    assert opened is not None
    found = control_quality(made, work, *opened)
    assert found["identity_levels"] < 1e-3
    own = found["explained_effect"]["0.5"]
    of_float = found["files"]["student.at-0.5.fp32.tflite"]
    assert of_float == {"strength": 0.5, "explained_effect": pytest.approx(own, abs=1e-4)}
    assert found["files"]["student.at-0.5.int8.tflite"]["explained_effect"] == pytest.approx(own, abs=0.02)
    assert set(found["sliders"]) == {
        f"student.strength.{rest}" for rest in ("int8.tflite", "fp32.onnx", "int8.onnx", "fp16.tflite", "fp16.onnx")
    } & {line["file"] for line in exported["control"]}
    assert found["sliders"]["student.strength.int8.tflite"]["explained_effect"]["0.5"] == pytest.approx(own, abs=0.02)
    strip = np.asarray(Image.open(io.BytesIO(slider_strip(opened[1], work.inputs))))
    assert strip.shape == (STRIP_ROWS * SIZE, len(STRIP) * SIZE, 3)
    np.testing.assert_array_equal(strip[:SIZE, :SIZE], inputs[0])  # at 0 the picture as it is
