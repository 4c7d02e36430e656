"""The camera: each degradation does what it claims, keeps everything in its place, and follows its seed alone."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import scene

from models import camera
from models.camera import Camera
from models.light import LIGHT, to_light, to_pixels

SHARES = st.floats(0, 1)
SIZE = 48


def grain(seed: int = 0, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(size, size, 3), dtype=np.uint8)


def laplacian_energy(pixels: np.ndarray) -> float:
    light = pixels.astype(float)
    inner = light[1:-1, 1:-1]
    around = light[:-2, 1:-1] + light[2:, 1:-1] + light[1:-1, :-2] + light[1:-1, 2:]
    return float(((around - 4 * inner) ** 2).mean())


def shifted(pixels: np.ndarray, by: tuple[int, int]) -> np.ndarray:
    return np.roll(pixels, by, axis=(0, 1))[8:-8, 8:-8].astype(float)


def test_light_goes_there_and_back() -> None:
    codes = np.arange(256, dtype=np.uint8)
    assert np.array_equal(to_pixels(to_light(codes)), codes)
    assert (LIGHT[0], LIGHT[255]) == (0, 1)
    assert LIGHT[188] == pytest.approx(0.5, abs=0.005)  # the sRGB code of half the light
    assert np.array_equal(to_pixels(np.array([-1.0, 2.0], np.float32)), [0, 255])


@settings(deadline=None)  # busy machines
@given(SHARES, SHARES, SHARES, st.integers(0, 2**31), st.integers(32, 70), st.integers(32, 70))
def test_any_camera_gives_a_picture_of_the_same_shape_from_its_seed(
    blur: float, noise: float, compression: float, seed: int, height: int, width: int
) -> None:
    see = Camera(blur=blur, noise=noise, compression=compression)
    picture = scene(seed % 7, width, height)
    before = picture.copy()
    seen = see(picture, np.random.default_rng(seed))
    assert (seen.shape, seen.dtype) == (picture.shape, np.uint8)
    assert np.array_equal(seen, see(picture, np.random.default_rng(seed)))
    assert np.array_equal(picture, before)


@given(st.integers(0, 2**31))
def test_shares_of_0_leave_a_picture_as_it_is(seed: int) -> None:
    see = Camera(blur=0.0, noise=0.0, compression=0.0)
    assert np.array_equal(see(grain(), np.random.default_rng(seed)), grain())


@pytest.mark.parametrize("kind", ["blur", "noise", "compression"])
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_a_share_is_the_share_of_pictures_that_change(kind: str, share: float) -> None:
    see = Camera(**{"blur": 0.0, "noise": 0.0, "compression": 0.0, kind: share})
    random = np.random.default_rng(0)
    changed = [not np.array_equal(see(grain(), random), grain()) for _ in range(400)]
    assert np.mean(changed) == pytest.approx(share, abs=0.07)


@given(st.floats(*camera.RADIUS))
def test_a_disc_is_symmetric_and_spreads_its_area(radius: float) -> None:
    kernel = camera.disc(radius).astype(float)
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    for turned in (kernel.T, kernel[::-1], kernel[:, ::-1]):
        assert np.allclose(kernel, turned)
    assert 1 / kernel.max() == pytest.approx(math.pi * radius**2, rel=0.35)


@given(st.floats(*camera.LENGTH), st.floats(0, math.pi))
def test_a_line_has_its_length_and_direction_and_no_shift(length: float, angle: float) -> None:
    kernel = camera.line(length, angle).astype(float)
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    reach = len(kernel) // 2
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    assert (kernel * x).sum() == pytest.approx(0, abs=1e-5) and (kernel * y).sum() == pytest.approx(0, abs=1e-5)
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    # A line's variance is length^2 / 12; sharing a point between four pixels adds at most a quarter in x and in y.
    assert 0 <= (kernel * along**2).sum() - length**2 / 12 < 0.6
    assert (kernel * across**2).sum() < 0.6


@pytest.mark.parametrize("kernel", [camera.disc(1.0), camera.disc(3.0), camera.line(8.0, 0.7)])
def test_blur_lowers_detail_keeps_light_and_moves_nothing(kernel: np.ndarray) -> None:
    sharp = grain()
    soft = camera.blur(sharp, kernel)
    assert laplacian_energy(soft) < 0.3 * laplacian_energy(sharp)
    assert to_light(soft).mean() == pytest.approx(to_light(sharp).mean(), rel=0.02)
    places = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    best = min(places, key=lambda by: np.square(shifted(soft, by) - shifted(sharp, (0, 0))).sum())
    assert best == (0, 0)
    flat = np.full((SIZE, SIZE, 3), 90, np.uint8)
    assert np.abs(camera.blur(flat, kernel).astype(int) - 90).max() <= 1


def test_a_point_becomes_the_kernel_in_light() -> None:
    point = np.zeros((33, 33, 3), np.uint8)
    point[16, 16] = 255
    kernel = camera.line(5.0, 0.0)
    reach = len(kernel) // 2
    seen = to_light(camera.blur(point, kernel))[16 - reach : 17 + reach, 16 - reach : 17 + reach, 0]
    np.testing.assert_allclose(seen, kernel, atol=0.004)


@pytest.mark.parametrize("code", [60, 120, 190])
@pytest.mark.parametrize(("shot", "read"), [(1e-3, 1e-6), (4e-3, 2e-5), (5e-4, 1e-4)])
def test_noise_has_the_variance_of_its_model(code: int, shot: float, read: float) -> None:
    flat = np.full((128, 128, 3), code, np.uint8)
    light = to_light(camera.noise(flat, shot, read, np.random.default_rng(0)))
    level = float(LIGHT[code])
    rounding = (float(LIGHT[code + 1] - LIGHT[code - 1]) / 2) ** 2 / 12
    assert light.var() == pytest.approx(shot * level + read + rounding, rel=0.06)
    assert light.mean() == pytest.approx(level, abs=0.002)


def test_noise_differs_from_pixel_to_pixel_and_channel_to_channel() -> None:
    flat = np.full((128, 128, 3), 128, np.uint8)
    error = camera.noise(flat, 4e-3, 1e-5, np.random.default_rng(1)).astype(float) - 128
    pairs = [(error[..., 0], error[..., 1]), (error[1:], error[:-1]), (error[:, 1:], error[:, :-1])]
    assert all(abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.03 for one, other in pairs)


def test_noise_is_drawn_from_the_published_ranges() -> None:
    random = np.random.default_rng(0)
    shot, read = np.log(np.array([camera.draw_noise(random) for _ in range(2000)])).T
    low, high = np.log(camera.SHOT)
    assert low <= shot.min() < low + 0.1 and high - 0.1 < shot.max() <= high
    slope, shift = np.polyfit(shot, read, 1)
    assert (slope, shift) == (pytest.approx(2.18, abs=0.03), pytest.approx(1.2, abs=0.2))


def test_compression_costs_more_the_lower_its_quality_and_moves_nothing() -> None:
    picture = scene(3, 64, 64).copy()
    picture[16:48:4, 16:48] = 255
    errors = [np.square(camera.compress(picture, quality) - picture.astype(float)).mean() for quality in (90, 50, 15)]
    assert 0 < errors[0] < errors[1] < errors[2] < 1500
    coarse = camera.compress(picture, 15)
    places = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    assert min(places, key=lambda by: np.square(shifted(coarse, by) - shifted(picture, (0, 0))).sum()) == (0, 0)
