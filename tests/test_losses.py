"""Losses: zero on equal pictures, equal to a plain re-computation, sensitive to what they are there for."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from models.errors import UserError
from models.losses import LOSSES, check_losses, total


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 3, 32, 32, generator=generator), torch.rand(2, 3, 32, 32, generator=generator)


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
        places = range(0, detail.shape[1] - 7, 4)
        squares = [[(detail[:, i : i + 8, j : j + 8] ** 2).mean((1, 2)) for j in places] for i in places]
        levels.append(np.sqrt(np.array(squares) + 1e-5))
    return float(np.abs(levels[0] - levels[1]).mean())


@pytest.mark.parametrize(
    ("name", "plain"),
    [
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


def test_total_is_the_weighted_sum_and_skips_what_weighs_nothing(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    loss, parts = total(*pair, {"pixel": 2.0, "chroma": 0.5, "structure": 0.0})
    assert set(parts) == {"pixel", "chroma"}
    assert loss.item() == pytest.approx(2 * parts["pixel"].item() + 0.5 * parts["chroma"].item())


@pytest.mark.parametrize(
    ("weights", "says"), [({"pixle": 1.0}, "unknown pixle; there are: pixel"), ({"pixel": 0.0}, "every weight is 0")]
)
def test_wrong_weights_are_refused(weights: dict[str, float], says: str) -> None:
    with pytest.raises(UserError, match=says):
        check_losses(weights)
