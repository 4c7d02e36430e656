"""The StyleGAN2 generator against a straightforward reading of the paper, and its training."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_stylegan2
import torch
from PIL import Image
from scipy.signal import convolve2d, correlate2d
from torch.nn import functional

from models.errors import UserError
from models.teachers.stylegan2 import network, training
from models.teachers.stylegan2.discriminator import Discriminator, spread
from models.teachers.stylegan2.operations import TAPS, Conv, downsample, modulated_conv2d, upsample
from tasks import train_stylegan2

FILTER = np.outer(TAPS, TAPS) / np.sum(TAPS) ** 2


def sparse(x: np.ndarray) -> np.ndarray:
    """Zeros after every pixel in both directions."""
    made = np.zeros((2 * x.shape[0], 2 * x.shape[1]))
    made[::2, ::2] = x
    return made


def literally(x: np.ndarray, weight: np.ndarray, style: np.ndarray, *, demodulate: bool, up: bool) -> np.ndarray:
    """One sample (I,H,W): equations 1 and 3 of the paper, weight by weight."""
    scaled = weight * style[None, :, None, None]
    if demodulate:
        scaled = scaled / np.sqrt((scaled**2).sum(axis=(1, 2, 3), keepdims=True) + 1e-8)
    out = []
    for kernels in scaled:
        if up:  # the kernel on the spread-out picture, then the filter; as much is cut off as makes twice the size
            whole = sum(
                convolve2d(convolve2d(sparse(plane), kernel), 4 * FILTER)
                for plane, kernel in zip(x, kernels, strict=True)
            )
            size = 2 * x.shape[1]
            out.append(whole[2 : 2 + size, 2 : 2 + size])
        else:
            out.append(sum(correlate2d(plane, kernel, mode="same") for plane, kernel in zip(x, kernels, strict=True)))
    return np.stack(out)


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("demodulate", [False, True])
def test_modulated_convolution(up: bool, demodulate: bool) -> None:
    source = torch.Generator().manual_seed(0)
    x, weight, styles = (
        torch.randn(shape, generator=source, dtype=torch.float64) for shape in ((2, 3, 6, 6), (4, 3, 3, 3), (2, 3))
    )
    made = modulated_conv2d(x, weight, styles, demodulate=demodulate, up=up)
    wanted = [
        literally(x[i].numpy(), weight.numpy(), styles[i].numpy(), demodulate=demodulate, up=up) for i in range(2)
    ]
    np.testing.assert_allclose(made.numpy(), np.stack(wanted), atol=1e-12)


def weights_of_each_sample(x: torch.Tensor, weight: torch.Tensor, styles: torch.Tensor) -> torch.Tensor:
    """The same with a kernel of its own for every sample, for its gradients."""
    scaled = weight[None] * styles[:, None, :, None, None]
    scaled = scaled * torch.rsqrt(scaled.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8)
    return torch.cat([functional.conv2d(x[i : i + 1], scaled[i], padding=1) for i in range(len(x))])


def test_its_gradient() -> None:
    source = torch.Generator().manual_seed(0)
    shapes = ((2, 2, 4, 4), (3, 2, 3, 3), (2, 2))
    given = [torch.randn(shape, generator=source, dtype=torch.float64).requires_grad_() for shape in shapes]
    head = torch.randn(2, 3, 4, 4, generator=source, dtype=torch.float64)
    ours = torch.autograd.grad((modulated_conv2d(*given) * head).sum(), given)
    theirs = torch.autograd.grad((weights_of_each_sample(*given) * head).sum(), given)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)
    for up in (False, True):
        assert torch.autograd.gradcheck(lambda *each, up=up: modulated_conv2d(*each, up=up), given)
    assert torch.autograd.gradgradcheck(modulated_conv2d, given)  # the path length penalty wants it


def test_up_and_down() -> None:
    x = torch.randn(1, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wanted = convolve2d(sparse(x[0, 1].numpy()), 4 * FILTER)[1:17, 1:17]
    np.testing.assert_allclose(upsample(x)[0, 1].numpy(), wanted, atol=1e-12)
    flat = torch.full((1, 1, 16, 16), 3.0)
    assert torch.allclose(upsample(flat)[:, :, 2:-2, 2:-2], torch.tensor(3.0))
    assert torch.allclose(downsample(flat)[:, :, 1:-1, 1:-1], torch.tensor(3.0))
    for kernel in (1, 3):
        assert Conv(2, 5, kernel, down=True)(torch.randn(1, 2, 8, 8)).shape == (1, 5, 4, 4)


def test_layers_and_their_latents() -> None:
    made = tiny_stylegan2.generator()
    assert (made.resolution, made.num_ws) == (32, 8)
    ws = torch.randn(2, made.num_ws, 8, generator=torch.Generator().manual_seed(1))
    whole = made(ws)
    assert whole.shape == (2, 3, 32, 32) and whole.isfinite().all()
    torch.testing.assert_close(made(ws[1:]), whole[1:], rtol=1e-4, atol=1e-5)
    # The last latent colours the last picture only; the first shapes everything.
    last = ws.clone()
    last[:, -1] += 1
    styles, changed = made.synthesis.styles(ws), made.synthesis.styles(last)
    assert [torch.equal(a, b) for a, b in zip(styles, changed, strict=True)] == [True] * (len(styles) - 1) + [False]
    shared = ws.clone()
    shared[:, 1] += 1  # torgb of 4x4 and conv0 of 8x8
    changed = made.synthesis.styles(shared)
    assert [i for i, (a, b) in enumerate(zip(styles, changed, strict=True)) if not torch.equal(a, b)] == [1, 2]
    z = torch.randn(2, 8)
    assert torch.equal(made.truncated(z, 0), made.mapping.w_avg.expand(2, -1))
    torch.testing.assert_close(made.truncated(z, 1), made.mapping(z))


def test_a_folder(tmp_path: Path) -> None:
    folder = tiny_stylegan2.save_generator(tmp_path / "g")
    w = torch.randn(1, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(network.load(folder)(w), tiny_stylegan2.generator()(w))
    config = json.loads((folder / network.CONFIG).read_text())
    (folder / network.CONFIG).write_text(json.dumps(config | {"channels": [16, 16]}))
    with pytest.raises(UserError, match="holds no StyleGAN2 generator .*teacher convert"):
        network.load(folder)


def test_the_discriminator_and_the_penalties() -> None:
    made = tiny_stylegan2.generator().requires_grad_(True)
    judge = Discriminator(channels=tiny_stylegan2.CHANNELS)
    source = torch.Generator().manual_seed(0)
    assert spread(torch.ones(8, 3, 4, 4)).shape == (8, 1, 4, 4)
    assert float(spread(torch.randn(8, 3, 4, 4)).mean()) > 0.5 > 1e-3 > float(spread(torch.ones(8, 3, 4, 4)).max())
    real = torch.randn(4, 3, 32, 32, generator=source)
    mean = torch.zeros(())
    penalty = training.gradient_penalty(judge, real)
    (slope,) = torch.autograd.grad(judge(real.requires_grad_()).sum(), real)
    assert float(penalty.detach()) == pytest.approx(float(slope.square().sum()) / 4 / 2, rel=1e-4)
    length = training.path_length_penalty(made, 2, mean, source)
    assert float(mean) > 0
    for loss, part in ((penalty, judge), (length, made.synthesis), (length, made.mapping)):
        gradients = torch.autograd.grad(loss, list(part.parameters()), retain_graph=True, allow_unused=True)
        assert any(each is not None and bool(each.abs().sum() > 0) for each in gradients)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Small photos, and training in miniature in an empty folder."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(12):
        rough = Image.fromarray(random.integers(0, 256, (4, 4, 3), np.uint8)).resize((40, 36))
        rough.save(folder / f"{number}.png")
    (folder / "notes.txt").write_text("no picture")
    monkeypatch.setattr(train_stylegan2, "BATCH", 4)
    return folder


TINY: dict[str, Any] = {"resolution": 16, "steps": 5, "channels": 16, "r1": 1.0, "seed": 0}


def test_training_that_was_stopped_ends_as_one_that_was_not(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_stylegan2.train(photos, Path("whole"), **TINY)
    monkeypatch.setattr(train_stylegan2, "CHECKPOINT_S", 0.0)
    step = train_stylegan2.Parts.step

    def stop(parts: train_stylegan2.Parts, number: int, *rest: Any) -> tuple[float, float]:
        if number == 3:
            raise KeyboardInterrupt
        return step(parts, number, *rest)

    monkeypatch.setattr(train_stylegan2.Parts, "step", stop)
    with pytest.raises(KeyboardInterrupt):
        train_stylegan2.train(photos, Path("stopped"), **TINY)
    assert not Path("stopped").exists()
    monkeypatch.setattr(train_stylegan2.Parts, "step", step)
    train_stylegan2.train(photos, Path("stopped"), **TINY)
    whole, stopped = (network.load(Path(name)).state_dict() for name in ("whole", "stopped"))
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)
    held_out = json.loads(Path("whole/held_out.json").read_text())
    assert 0 < len(held_out) < 12 and all(train_stylegan2.is_held_out(Path(name)) for name in held_out)


def test_photos_that_do_not_do(photos: Path) -> None:
    with pytest.raises(UserError, match="too few photos of at least 64 pixels"):
        train_stylegan2.train(photos, Path("out"), **TINY | {"resolution": 64})
    with pytest.raises(UserError, match="resolution 48 is no power of 2"):
        train_stylegan2.train(photos, Path("out"), **TINY | {"resolution": 48, "steps": 1})
    assert not Path("out").exists()
