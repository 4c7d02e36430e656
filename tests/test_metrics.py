"""models/metrics.py: known values, limits, and the properties the figures are trusted for."""

import math

import numpy as np
import pytest
import torch

from models import metrics
from models.errors import UserError


def pictures(count: int, size: int = 64, seed: int = 0) -> np.ndarray:
    """Smooth coloured pictures with a few edges, (count,size,size,3) uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    waves = [
        0.5 + 0.4 * np.sin(2 * np.pi * (fx * x + fy * y) + phase)
        for fx, fy, phase in rng.uniform(0, 3, size=(count * 3, 3))
    ]
    image = np.stack(waves).reshape(count, 3, size, size).transpose(0, 2, 3, 1).copy()
    image[:, size // 4 : size // 2, size // 4 : size // 2] *= 0.4
    return (image * 255).astype(np.uint8)


def recolour(inputs: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """An exact colour-affine teacher, as float in [0,1]."""
    return inputs.astype(np.float64) / 255 @ matrix[:, :3].T + matrix[:, 3]


@pytest.fixture(scope="module")
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and what a strong teacher made of them."""
    inputs = metrics.to_tensor(pictures(4))
    return inputs, (inputs.flip(1) * 0.8 + 0.1).clamp(0, 1)


def test_to_tensor_scales_uint8_and_leaves_floats() -> None:
    image = np.full((1, 4, 4, 3), 255, np.uint8)
    assert metrics.to_tensor(image).max() == 1.0
    assert metrics.to_tensor(np.full((1, 4, 4, 3), 0.25, np.float32)).max() == 0.25


def test_the_teacher_itself_is_perfect(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    inputs, target = batch
    figures = metrics.pool(metrics.measure(target, inputs, target))
    assert figures["psnr_db"] == metrics.PSNR_LIMIT_DB
    for name in ("ssim", "ms_ssim", "explained_effect", "sharpness_ratio", "chroma_ratio"):
        assert figures[name] == pytest.approx(1.0, abs=1e-5), name


def test_identity_explains_nothing(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    inputs, target = batch
    assert metrics.pool(metrics.measure(inputs, inputs, target))["explained_effect"] == 0.0


def test_psnr_is_the_textbook_formula() -> None:
    a = torch.zeros(2, 3, 16, 16)
    b = torch.stack([torch.full((3, 16, 16), 0.1), torch.full((3, 16, 16), 0.01)])
    assert metrics.psnr_db(a, b).tolist() == pytest.approx([20.0, 40.0], abs=1e-3)


def test_greying_and_blur_show_in_their_own_ratio(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    inputs, target = batch
    grey = metrics.luma(target).expand_as(target)
    figures = metrics.pool(metrics.measure(grey, inputs, target))
    assert figures["chroma_ratio"] < 0.1
    assert figures["sharpness_ratio"] == pytest.approx(1.0, abs=1e-3)
    blurred = torch.nn.functional.avg_pool2d(target, 5, stride=1, padding=2, count_include_pad=False)
    figures = metrics.pool(metrics.measure(blurred, inputs, target))
    assert figures["sharpness_ratio"] < 0.3
    assert figures["chroma_ratio"] > 0.85


def test_laplacian_energy_and_chroma_by_hand() -> None:
    dot = torch.zeros(1, 3, 5, 5)
    dot[..., 2, 2] = 1.0
    # Inside the border: the dot gives -4, its four neighbours 1 each, so (16 + 4) / 9.
    assert metrics.laplacian_energy(dot).item() == pytest.approx(20 / 9, rel=1e-5)
    red = torch.zeros(1, 3, 2, 2)
    red[:, 0] = 1.0
    assert metrics.mean_chroma(red).item() == pytest.approx(math.hypot(-0.299 / 1.772, 0.701 / 1.402), rel=1e-5)
    assert metrics.mean_chroma(torch.full((1, 3, 2, 2), 0.3)).item() == pytest.approx(0.0, abs=1e-6)


def test_ratios_to_an_invisible_reference_are_bounded() -> None:
    assert metrics.floored_ratio(0.0, 0.0, metrics.LEVEL) == 1.0
    assert metrics.floored_ratio(0.001, 0.0, metrics.LEVEL) == 1.0
    assert metrics.floored_ratio(0.2, 0.1, metrics.LEVEL) == 2.0


def test_explained_effect_is_pooled_not_averaged() -> None:
    error, change = np.array([0.0, 1.0]), np.array([1.0, 3.0])
    assert metrics.explained(error, change) == 0.75  # the mean of the two would be 0.83
    with pytest.raises(UserError, match="changed none"):
        metrics.explained(error, np.zeros(2))


@pytest.mark.parametrize(("side", "scales"), [(32, 2), (64, 3), (128, 4), (175, 4), (176, 5), (256, 5)])
def test_ms_ssim_takes_the_scales_that_fit(side: int, scales: int) -> None:
    betas = metrics.ms_ssim_betas(side)
    assert len(betas) == scales
    assert sum(betas) == pytest.approx(1.0, abs=1e-3)
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    assert 0.0 <= metrics.ms_ssim(image, image * 0.9).item() <= 1.0


def test_ms_ssim_is_the_published_one_at_256() -> None:
    assert metrics.ms_ssim_betas(256) == metrics.MS_SSIM_BETAS


def test_single_pictures_keep_a_batch_axis() -> None:
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert {values.shape for values in metrics.measure(image, image, image * 0.5).values()} == {(1,)}


def test_measuring_in_batches_equals_measuring_at_once(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    inputs, target = batch
    whole = metrics.measure(inputs * 0.5, inputs, target)
    parts = [metrics.measure(inputs[i : i + 3] * 0.5, inputs[i : i + 3], target[i : i + 3]) for i in (0, 3)]
    for name, values in metrics.join(parts).items():
        np.testing.assert_allclose(values, whole[name], rtol=1e-5, err_msg=name)


def test_colour_affine_recovers_an_affine_teacher() -> None:
    matrix = np.array([[0.5, 0.2, 0.0, 0.1], [0.1, 0.6, 0.1, 0.0], [0.0, 0.1, 0.4, 0.3]])
    inputs = pictures(5)
    targets = np.round(recolour(inputs, matrix) * 255).astype(np.uint8)
    found = metrics.fit_colour_affine(metrics.batches([inputs, targets], 2))
    np.testing.assert_allclose(found, matrix, atol=2e-3)
    x = metrics.to_tensor(inputs)
    output = metrics.colour_affine(found)(x)
    assert metrics.pool(metrics.measure(output, x, metrics.to_tensor(targets)))["explained_effect"] > 0.999


def test_colour_affine_is_the_least_squares_optimum() -> None:
    inputs, targets = pictures(3, seed=1), pictures(3, seed=2)
    found = metrics.fit_colour_affine(metrics.batches([inputs, targets], 3))
    x = np.concatenate([inputs.reshape(-1, 3) / 255, np.ones((inputs.size // 3, 1))], axis=1)
    expected = np.linalg.lstsq(x, targets.reshape(-1, 3) / 255, rcond=None)[0].T
    np.testing.assert_allclose(found, expected, atol=1e-8)


def test_colour_affine_of_one_flat_colour_does_not_fail() -> None:
    inputs = np.full((1, 8, 8, 3), 128, np.uint8)
    targets = np.full((1, 8, 8, 3), 64, np.uint8)
    found = metrics.fit_colour_affine(metrics.batches([inputs, targets], 1))
    output = metrics.colour_affine(found)(metrics.to_tensor(inputs))
    assert output.mean().item() == pytest.approx(64 / 255, abs=1e-5)


def test_colour_affine_is_clipped() -> None:
    output = metrics.colour_affine(np.array([[3.0, 0, 0, 0], [0, 1.0, 0, -2.0], [0, 0, 1.0, 0]]))
    assert output(torch.full((1, 3, 2, 2), 0.5))[0, :, 0, 0].tolist() == [1.0, 0.0, 0.5]


def test_a_scene_is_described_by_its_input() -> None:
    grey = np.full((1, 16, 16, 3), 51, np.uint8)
    red = np.zeros((1, 16, 16, 3), np.uint8)
    red[..., ::2, 0] = 255
    found = metrics.scene(metrics.to_tensor(np.concatenate([grey, red])))
    assert found["luma"].tolist() == pytest.approx([0.2, 0.299 / 2], abs=1e-6)
    assert found["detail"][0] == pytest.approx(0, abs=1e-12) and found["detail"][1] > 0.1
    assert found["chroma"][0] == pytest.approx(0, abs=1e-6) and found["chroma"][1] > 0.2
