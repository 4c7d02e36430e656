"""Bands and grain on smooth areas: told apart, and a coarse quantisation fails the gate where a fine one passes."""

import dataclasses

import numpy as np
import pytest
from evidences import good

from models import banding
from models.banding import Floats, Model, Pictures, gradients, on_gradients, on_plain_areas
from tasks.gate import decide
from tasks.params import load_params
from tasks.quality import scale, smoothness

SIZE = 128


def levels(count: int) -> Model:
    """The picture rounded to so many levels."""
    return lambda x: (np.rint(scale(x) * (count - 1)) / (count - 1)).astype(np.float32)


def grainy(x: Pictures) -> Floats:
    return scale(x) + (np.random.default_rng(0).standard_normal(x.shape) * 3 / 255).astype(np.float32)


def test_gradients_are_smooth_and_differ() -> None:
    pictures = gradients(SIZE)
    assert pictures.shape == (6, SIZE, SIZE, 3) and pictures.dtype == np.uint8
    assert len({picture.tobytes() for picture in pictures}) == 6
    for axis in (1, 2):
        assert np.abs(np.diff(pictures.astype(int), axis=axis)).max() <= 3


def test_coarse_levels_are_bands_and_noise_is_grain() -> None:
    coarse, noise = on_gradients(levels(16), scale, SIZE), on_gradients(grainy, scale, SIZE)
    assert coarse["banding"] > 2 * on_gradients(levels(64), scale, SIZE)["banding"] > 0
    assert noise["grain"] == pytest.approx(3, rel=0.05)
    assert noise["banding"] < 0.3 * noise["grain"]
    assert on_gradients(scale, scale, SIZE) == {"banding": 0, "grain": 0}


def test_a_shift_of_the_whole_colour_is_no_band() -> None:
    shifted = on_gradients(lambda x: scale(x) + np.float32(0.02), scale, SIZE)
    assert shifted["banding"] == pytest.approx(0, abs=1e-3) and shifted["grain"] == pytest.approx(0, abs=1e-3)


def test_only_plain_areas_of_photos_count() -> None:
    chance = np.random.default_rng(1)
    photo = gradients(SIZE)[:1].copy()
    photo[:, :, SIZE // 2 :] = chance.integers(0, 256, (1, SIZE, SIZE // 2, 3))

    def wrong_in_texture(x: Pictures) -> Floats:
        output = scale(x)
        output[:, :, SIZE * 3 // 4 :] = 0
        return output

    assert on_plain_areas(wrong_in_texture, scale, iter([photo]))["plain_banding"] == pytest.approx(0, abs=1e-4)
    assert (on_plain_areas(levels(8), scale, iter([photo]))["plain_banding"] or 0) > 1
    assert on_plain_areas(scale, scale, iter([photo[:, :, SIZE // 2 :]]))["plain_banding"] is None


def test_a_coarse_quantisation_fails_the_gate_and_a_fine_one_passes(repository: object) -> None:
    rules = load_params().students["oil"].gate
    inputs = gradients(SIZE)
    models = {"coarse": levels(16), "fine": levels(200), "float": scale}
    found = smoothness(models, inputs, {"coarse": "float", "fine": "float"})
    assert set(found) == {"coarse", "fine"}
    verdicts = {
        name: next(
            result
            for result in decide(dataclasses.replace(good(), banding=one["banding"]), None, rules).results
            if result.name == "max_banding"
        )
        for name, one in found.items()
    }
    assert not verdicts["coarse"].passed and "bands that int8 adds" in verdicts["coarse"].reason
    assert verdicts["fine"].passed


def test_the_error_is_split_without_loss() -> None:
    import torch

    error = torch.randn(1, 3, 64, 64) / 255
    bands, grain = banding.split_error(error)
    fine = banding.box_mean(error * 255, banding.FINE)
    torch.testing.assert_close(grain + fine, error * 255)
    torch.testing.assert_close(bands + banding.box_mean(fine, banding.WIDE), fine)
