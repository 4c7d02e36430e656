"""The detector's model: its figures recomputed plainly, its distances, its files, and what an app makes of scores."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scenes import scene

from models.controls import Controlled
from models.encoders import make_encoder
from models.fade import Fade, weight
from models.metrics import to_tensor
from models.outside import (
    LEAST_DEVIATION,
    LEAST_SQUARE,
    OPPONENT,
    SHRINKAGE,
    Gaussian,
    Outside,
    PictureFigures,
    figures_of,
    levels_of,
    to_files,
)
from models.runtimes import open_model
from models.students import UNet

SIZE = 32
FRAME_S = 1 / 30
SMALL: dict[str, Any] = {"encoder": "patches2_8_16", "decoder_channels": [8]}
SMALL |= {"skip": "add", "upsample": "bilinear", "head": "pixel-shuffle"}


def pictures(count: int = 6) -> np.ndarray:
    return np.stack([scene(seed, SIZE, SIZE) for seed in range(count)])


def plainly(picture: np.ndarray) -> np.ndarray:
    """The figures of one picture, block by block."""
    x = picture.astype(np.float64) / 255 @ np.array(OPPONENT).T
    x[..., 0] -= 0.5
    mean, square = x.mean(axis=(0, 1)), np.square(x).mean(axis=(0, 1))
    squares, magnitudes = [], []
    for _ in range(levels_of(len(picture))):
        a, b, c, d = x[::2, ::2], x[::2, 1::2], x[1::2, ::2], x[1::2, 1::2]
        details = np.stack([a - b + c - d, a + b - c - d, a - b - c + d]) / 4
        squares.append(np.square(details).mean(axis=(1, 2)).sum(axis=0))
        magnitudes.append(np.abs(details).mean(axis=(0, 1, 2)))
        x = (a + b + c + d) / 4
    strength = np.concatenate([square[1:], square - mean**2, *squares])
    return np.concatenate([mean, np.log(strength + LEAST_SQUARE), np.log(np.concatenate(magnitudes) + 1e-3)])


def test_the_figures_are_those_of_a_plain_computation() -> None:
    inputs = pictures()
    found = PictureFigures(SIZE)(to_tensor(inputs)).numpy()
    assert found.shape == (6, 3 + 2 + 3 + 2 * 3 * levels_of(SIZE))
    assert np.allclose(found, [plainly(one) for one in inputs], atol=2e-3)


def test_sizes_are_halved_as_long_as_they_can_be() -> None:
    assert [levels_of(size) for size in (64, 96, 256, 7)] == [4, 4, 6, 0]


def test_grey_pictures_and_flat_ones_have_finite_figures() -> None:
    flat = np.stack([np.full((SIZE, SIZE, 3), level, np.uint8) for level in (0, 128, 255)])
    assert np.isfinite(PictureFigures(SIZE)(to_tensor(flat)).numpy()).all()


def test_distances_are_mahalanobis_with_shrunken_correlations() -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(50, 3)) @ np.array([[2.0, 0.5, 0.0], [0.0, 1.0, 0.3], [0.0, 0.0, 0.5]]) + 7
    found = Gaussian(values).distance(values[:5])
    deviation = values.std(axis=0)
    correlations = (1 - SHRINKAGE) * np.corrcoef(values.T) + SHRINKAGE * np.eye(3)
    inverse = np.linalg.inv(correlations * np.outer(deviation, deviation))
    away = values[:5] - values.mean(axis=0)
    assert np.allclose(found, np.sqrt(np.einsum("nc,cd,nd->n", away, inverse, away) / 3))


def test_a_figure_that_never_varied_does_not_drown_the_rest() -> None:
    values = np.stack([np.arange(9.0), np.full(9, 5.0)], axis=1)
    usual = Gaussian(values)
    assert np.isfinite(usual.whitening).all()
    assert usual.distance(np.array([[4.0, 5.0 + LEAST_DEVIATION]]))[0] < 2


@pytest.mark.parametrize("kind", [UNet, Controlled])
def test_the_furthest_part_is_the_score_with_or_without_a_slider(kind: type) -> None:
    torch.manual_seed(0)
    student = kind(**SMALL).eval()
    inputs = pictures()
    parts, wanted = [], []
    with torch.inference_mode():
        for looks_at, unit in (("picture", 2.0), ("encoder", 0.5)):
            figures = figures_of(looks_at, SIZE, student)
            values = figures(to_tensor(inputs)).double().numpy()
            usual = Gaussian(values[:4])
            parts.append((figures, usual, unit))
            wanted.append(usual.distance(values) / unit)
        found = Outside(parts)(to_tensor(inputs)).numpy()
    assert found.shape == (6,) and np.allclose(found, np.max(wanted, axis=0), rtol=1e-4)
    assert (wanted[0] > wanted[1]).any() or (wanted[1] > wanted[0]).any()


def test_timms_encoders_have_figures_too() -> None:
    torch.manual_seed(0)
    encoder = make_encoder("test_resnet", 3).eval()
    student = torch.nn.Module()
    student.encoder = encoder
    found = figures_of("encoder", 64, student)(torch.rand(2, 3, 64, 64))
    assert found.shape == (2, 2 * sum(encoder.feature_info.channels()))


def test_the_files_give_what_torch_gives(tmp_path: Path) -> None:
    figures = PictureFigures(SIZE).eval()
    inputs = pictures()
    outside = Outside([(figures, Gaussian(figures(to_tensor(inputs[:4])).double().numpy()), 1.0)]).eval()
    expected = outside(to_tensor(inputs)).numpy()
    made = to_files(outside, SIZE)
    assert made == to_files(outside, SIZE), "equal weights give equal bytes"
    for runtime, data in made.items():
        path = tmp_path / runtime
        path.write_bytes(data)
        model = open_model(path, runtime, gives="number")
        found = [float(model(one[None].astype(np.float32) / 255)[0]) for one in inputs]
        assert model.size == SIZE and np.allclose(found, expected, rtol=1e-4)
        with pytest.raises(Exception, match=r"a student takes and gives one float32 picture"):
            open_model(path, runtime)


def test_the_effect_is_whole_up_to_one_and_gone_from_passes_at_on() -> None:
    assert [weight(score, 1.5) for score in (0.0, 1.0, 1.25, 1.5, 99.0)] == [1.0, 1.0, 0.5, 0.0, 0.0]


def test_one_odd_frame_does_not_flicker_and_a_covered_lens_is_gone_within_a_second() -> None:
    fade = Fade(passes_at=1.5)
    assert [fade(0.5, FRAME_S) for _ in range(5)] == [1.0] * 5
    assert fade(40.0, FRAME_S) == 1.0
    shares = [fade(40.0, FRAME_S) for _ in range(30)]
    assert shares[-1] == 0.0 and sorted(shares, reverse=True) == shares


def test_an_effect_that_is_gone_stays_so_at_the_border_and_comes_back_well_below() -> None:
    fade = Fade(passes_at=1.5)
    assert [fade(9.0, FRAME_S) for _ in range(60)][-1] == 0.0
    border = [fade(1.45 if frame % 2 else 1.55, FRAME_S) for frame in range(120)]
    assert set(border) == {0.0}
    assert [fade(0.6, FRAME_S) for _ in range(60)][-1] == 1.0


def test_it_is_as_quick_at_every_third_frame() -> None:
    every, third = Fade(passes_at=1.5), Fade(passes_at=1.5)
    every(0.5, FRAME_S), third(0.5, FRAME_S)
    for _ in range(3):
        share = every(2.0, FRAME_S)
    assert math.isclose(third(2.0, 3 * FRAME_S), share)


def test_a_detector_that_fails_passes_the_frame_through() -> None:
    fade = Fade(passes_at=1.5)
    assert fade(math.nan, FRAME_S) == 0.0
