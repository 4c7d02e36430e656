"""Losses: zero on equal pictures, equal to a plain re-computation, sensitive to what they are there for."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from models.errors import UserError
from models.losses import LOSSES, check_losses, total
from models.perceptual import distances


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 3, 32, 32, generator=generator), torch.rand(2, 3, 32, 32, generator=generator)


def test_a_gradient_passes_a_network_that_was_made_without_one() -> None:
    from models.perceptual import perceptual, random_features

    random_features.cache_clear()
    with torch.inference_mode():
        random_features()
    output = torch.rand(2, 3, 64, 64, requires_grad=True)
    perceptual(output, torch.rand(2, 3, 64, 64)).backward()
    assert output.grad is not None and output.grad.abs().sum() > 0


@pytest.mark.parametrize("name", list(LOSSES))
def test_zero_on_equal_pictures_and_a_gradient_elsewhere(name: str, pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    output, target = pair
    assert LOSSES[name](target, target).item() == pytest.approx(0, abs=1.1e-3)
    output.requires_grad_()
    LOSSES[name](output, target).backward()
    assert output.grad is not None
    assert output.grad.abs().sum() > 0


def plain_pixel(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.mean(np.sqrt((x - y) ** 2 + 1e-6)))


def plain_gradient(x: np.ndarray, y: np.ndarray) -> float:
    d, parts = x - y, 0.0
    for scale in range(3):
        if scale:
            n, c, h, w = d.shape
            d = d.reshape(n, c, h // 2, 2, w // 2, 2).mean((3, 5))
        parts += np.abs(np.diff(d, axis=3)).mean() + np.abs(np.diff(d, axis=2)).mean()
    return float(parts / 3)


def plain_luma(x: np.ndarray) -> np.ndarray:
    return 0.299 * x[:, 0] + 0.587 * x[:, 1] + 0.114 * x[:, 2]


def plain_chroma(x: np.ndarray, y: np.ndarray) -> float:
    n, c, h, w = x.shape
    d = (x - y).reshape(n, c, h // 4, 4, w // 4, 4).mean((3, 5))
    return float(np.abs(d[:, 0] - plain_luma(d)).mean() + np.abs(d[:, 2] - plain_luma(d)).mean())


def plain_structure(x: np.ndarray, y: np.ndarray) -> float:
    x, y, values = plain_luma(x), plain_luma(y), []
    for sample in range(len(x)):
        for top in range(0, x.shape[1] - 7, 4):
            for left in range(0, x.shape[2] - 7, 4):
                a = x[sample, top : top + 8, left : left + 8]
                b = y[sample, top : top + 8, left : left + 8]
                covariance = (a * b).mean() - a.mean() * b.mean()
                top_term = (2 * a.mean() * b.mean() + 1e-4) * (2 * covariance + 9e-4)
                values.append(top_term / ((a.mean() ** 2 + b.mean() ** 2 + 1e-4) * (a.var() + b.var() + 9e-4)))
    return float(1 - np.mean(values))


def plain_sharpness(x: np.ndarray, y: np.ndarray) -> float:
    levels = []
    for image in (plain_luma(x), plain_luma(y)):
        middle = image[:, 1:-1, 1:-1]
        detail = image[:, :-2, 1:-1] + image[:, 2:, 1:-1] + image[:, 1:-1, :-2] + image[:, 1:-1, 2:] - 4 * middle
        levels.append(windows(detail))
    return float(np.abs(levels[0] - levels[1]).mean())


def windows(image: np.ndarray) -> np.ndarray:
    """Root mean squares of (N,H,W) in 8x8 windows every 4 pixels."""
    rows, columns = (range(0, side - 7, 4) for side in image.shape[1:])
    return np.sqrt([[(image[:, i : i + 8, j : j + 8] ** 2).mean((1, 2)) + 1e-5 for j in columns] for i in rows])


def plain_colour(x: np.ndarray, y: np.ndarray) -> float:
    found = []
    for image in (x, y):
        grey = plain_luma(image)
        chroma = np.hypot((image[:, 2] - grey) / 1.772, (image[:, 0] - grey) / 1.402)
        found.append(windows(chroma))
    return float(np.abs(found[0] - found[1]).mean())


def halved(image: np.ndarray) -> np.ndarray:
    *batch, h, w = image.shape
    return image.reshape(*batch, h // 2, 2, w // 2, 2).mean((-3, -1))


def plain_laplacian(x: np.ndarray, y: np.ndarray) -> float:
    d, loss = x - y, 0.0
    for level in range(3):
        coarse = halved(d)
        loss += 2**level * np.abs(d - coarse.repeat(2, axis=-2).repeat(2, axis=-1)).mean()
        d = coarse
    return float((loss + 8 * np.abs(d).mean()) / 15)


def plain_wavelet(x: np.ndarray, y: np.ndarray) -> float:
    d, loss = x - y, 0.0
    for _ in range(3):
        a, b, c, e = d[..., ::2, ::2], d[..., ::2, 1::2], d[..., 1::2, ::2], d[..., 1::2, 1::2]
        loss += sum(np.abs(one).mean() / 2 for one in (a + b - c - e, a - b + c - e, a - b - c + e))
        d = halved(d)
    return float(loss / 9)


def plain_frequency(x: np.ndarray, y: np.ndarray) -> float:
    power = np.abs(np.fft.rfft2(x - y, norm="ortho"))
    return float((power / power.max((-2, -1), keepdims=True) * power**2).mean())


def plain_ms_ssim(x: np.ndarray, y: np.ndarray) -> float:
    x, y, product = plain_luma(x), plain_luma(y), np.ones(len(x))
    for scale, weight in enumerate((0.071, 0.4525, 0.4765)):
        if scale:
            x, y = halved(x), halved(y)
        values: list[list[float]] = [[] for _ in x]
        for sample in range(len(x)):
            for top in range(0, x.shape[1] - 7, 4):
                for left in range(0, x.shape[2] - 7, 4):
                    a = x[sample, top : top + 8, left : left + 8]
                    b = y[sample, top : top + 8, left : left + 8]
                    value = (2 * ((a * b).mean() - a.mean() * b.mean()) + 9e-4) / (a.var() + b.var() + 9e-4)
                    if scale == 2:
                        value *= (2 * a.mean() * b.mean() + 1e-4) / (a.mean() ** 2 + b.mean() ** 2 + 1e-4)
                    values[sample].append(value)
        product *= np.maximum(np.mean(values, axis=1), 1e-4) ** weight
    return float(1 - product.mean())


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("l1", lambda x, y: float(np.abs(x - y).mean())),
        ("colour", plain_colour),
        ("laplacian", plain_laplacian),
        ("wavelet", plain_wavelet),
        ("frequency", plain_frequency),
        ("ms_ssim", plain_ms_ssim),
        ("pixel", plain_pixel),
        ("gradient", plain_gradient),
        ("chroma", plain_chroma),
        ("structure", plain_structure),
        ("sharpness", plain_sharpness),
    ],
)
def test_golden(name: str, plain: object, pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    output, target = pair
    expected = plain(output.double().numpy(), target.double().numpy())  # type: ignore[operator]
    assert LOSSES[name](output, target).item() == pytest.approx(expected, rel=1e-4)


def test_chroma_sees_greying_and_gradient_sees_blur(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    _, target = pair
    grey = target.mean(dim=1, keepdim=True).expand_as(target)
    assert LOSSES["chroma"](grey, target) > 0.05
    blurred = functional.avg_pool2d(target, 5, stride=1, padding=2, count_include_pad=False)
    assert LOSSES["gradient"](blurred, target) > LOSSES["gradient"](target * 0.9, target)


def test_colour_asks_for_colour_wherever_it_lies(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    """The other way round in every window, it is as colourful; grey, it is not."""
    _, target = pair
    assert LOSSES["colour"](target.flip(1), target) < 0.1 * LOSSES["colour"](
        target.mean(1, True).expand(2, 3, 32, 32), target
    )


def test_the_perceptual_distance_sees_blur_before_noise_before_a_shade() -> None:
    """All three as far from the photograph by squared error."""
    from skimage.data import astronaut

    target = torch.from_numpy(astronaut()[:256, :256].copy()).permute(2, 0, 1)[None] / 255
    blurred = functional.avg_pool2d(target, 5, stride=1, padding=2, count_include_pad=False)
    far = (blurred - target).square().mean().sqrt()
    noisy = target + far * torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
    blur, noise, shade = (distances(one, target).item() for one in (blurred, noisy, target + far))
    assert blur > noise > 2 * shade > 0


def test_perceptual_looks_at_the_middle_of_every_second_picture() -> None:
    target = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    output = target.clone()
    output[1] = 0
    output[2, :, :16] = 0
    assert LOSSES["perceptual"](output, target).item() == pytest.approx(0, abs=1e-6)
    output[2, :, 16:48, 16:48] = 0
    found = LOSSES["perceptual"](output, target)
    assert found.item() == pytest.approx(distances(output[2:, :, 16:48, 16:48], target[2:, :, 16:48, 16:48]) / 2)


def test_total_is_the_weighted_sum_and_skips_what_weighs_nothing(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    loss = total(*pair, {"pixel": 2.0, "chroma": 0.5, "structure": 0.0})
    assert loss.item() == pytest.approx(2 * LOSSES["pixel"](*pair).item() + 0.5 * LOSSES["chroma"](*pair).item())


@pytest.mark.parametrize(
    ("weights", "says"),
    [({"pixle": 1.0}, "unknown pixle; there are: l1, pixel"), ({"pixel": 0.0}, "every weight is 0")],
)
def test_wrong_weights_are_refused(weights: dict[str, float], says: str) -> None:
    with pytest.raises(UserError, match=says):
        check_losses(weights)
