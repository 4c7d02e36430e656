"""Flicker and kept structure: what follows every shift does not flicker, what keeps the edges keeps the structure."""

import numpy as np
import pytest
from scenes import scene

from models import stability
from models.stability import Floats, Pictures, flicker, structure_kept

SIZE = 64


def pictures(count: int = 3) -> Pictures:
    """(count,64,64,3) uint8 with soft shapes and hard edges."""
    made = np.stack([scene(seed, SIZE, SIZE) for seed in range(count)])
    made[:, 20:40, 16:48] //= 2
    return made


def identity(x: Pictures) -> Floats:
    return x.astype(np.float32) / np.float32(255)


def negative(x: Pictures) -> Floats:
    return 1 - 0.8 * identity(x)


def blur(x: Pictures) -> Floats:
    y = identity(x)
    near = [np.roll(y, (down, right), axis=(1, 2)) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    return np.mean(near, axis=0, dtype=np.float32)


def blocks(side: int) -> stability.Model:
    """Means of blocks that stay where they are while the picture moves: a mosaic."""

    def run(x: Pictures) -> Floats:
        y = identity(x)
        means = y.reshape(len(y), SIZE // side, side, SIZE // side, side, 3).mean(axis=(2, 4))
        return means.repeat(side, axis=1).repeat(side, axis=2)

    return run


def noise(x: Pictures) -> Floats:
    """Another noise for every picture, however little it differs."""
    return np.random.default_rng(int(x.astype(np.int64).sum())).random(x.shape, dtype=np.float32)


@pytest.mark.parametrize("model", [identity, negative, blur])
def test_what_follows_every_shift_does_not_flicker(model: stability.Model) -> None:
    assert flicker(model, pictures()) < 1e-4


def test_a_mosaic_flickers_more_the_coarser_it_is() -> None:
    fine, coarse = flicker(blocks(2), pictures()), flicker(blocks(16), pictures())
    assert 1 < fine < coarse < 255


def test_flicker_is_in_levels_of_255() -> None:
    # Two independent uniform pictures differ by sqrt(1/6) of the range.
    assert flicker(noise, pictures()) == pytest.approx(255 / np.sqrt(6), rel=0.02)


def test_a_student_that_jumps_by_one_level_flickers_by_one_level() -> None:
    still = np.full((1, SIZE, SIZE, 3), 100, np.uint8)
    calls: list[int] = []

    def jumps(x: Pictures) -> Floats:
        calls.append(len(x))
        return identity(x) + np.float32((len(calls) > 1) / 255)

    assert flicker(jumps, still) == pytest.approx(1.0, rel=1e-4)
    assert calls == [1] * (1 + len(stability.PATH))


def test_at_most_eight_pictures_are_asked() -> None:
    seen: list[int] = []

    def record(x: Pictures) -> Floats:
        seen.append(int(x[0, SIZE // 2, SIZE // 2, 0]))
        return identity(x)

    many = np.arange(30, dtype=np.uint8)[:, None, None, None] * np.ones((1, SIZE, SIZE, 3), np.uint8)
    flicker(record, many)
    assert sorted(set(seen)) == [0, 4, 8, 12, 17, 21, 25, 29]
    seen.clear()
    flicker(record, many[:2])
    assert set(seen) == {0, 1}


def test_the_path_has_odd_and_even_steps_both_ways() -> None:
    steps = [step for offset in stability.PATH for step in offset]
    assert stability.REACH == 5 and min(steps) == -5
    assert {step % 2 for step in steps} == {0, 1}


def test_tone_and_colour_keep_the_structure() -> None:
    for model in (identity, negative):
        assert structure_kept(model, pictures()) == pytest.approx(1.0, abs=1e-4)
    assert structure_kept(blur, pictures()) > 0.8


def test_other_edges_do_not() -> None:
    assert abs(structure_kept(noise, pictures())) < 0.1
    assert structure_kept(lambda x: identity(x[:, ::-1]), pictures()) < 0.5
    stripes = np.zeros((1, SIZE, SIZE, 3), np.uint8)
    stripes[:, :, ::8] = 255
    assert structure_kept(lambda x: identity(x.swapaxes(1, 2)), stripes) == pytest.approx(-1.0, abs=0.2)


def test_a_flat_output_keeps_nothing() -> None:
    assert structure_kept(lambda x: np.full(x.shape, 0.5, np.float32), pictures()) == 0.0
