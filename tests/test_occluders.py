"""What is drawn into crops: it covers a part and leaves the rest, follows its seed, and the pair stays a pair."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import scene

from tasks.occluders import KINDS, occlude

SIZE = 96
SEEDS = range(24)
GREY = np.full((SIZE, SIZE, 3), 128, np.uint8)


def covered(kind: str, seed: int) -> float:
    """Share of the pixels that say nothing any more about what lay behind."""
    black, white = (occlude(np.full_like(GREY, level), kind, seed).astype(int) for level in (0, 255))
    return float((white - black < 64).all(axis=2).mean())


@settings(max_examples=30, deadline=None)  # the first call imports scipy.ndimage
@given(st.sampled_from(sorted(KINDS)), st.integers(0, 2**31), st.integers(64, 130))
def test_a_picture_of_the_same_shape_from_kind_and_seed(kind: str, seed: int, size: int) -> None:
    picture = scene(seed % 5, size, size)
    before = picture.copy()
    seen = occlude(picture, kind, seed)
    assert (seen.shape, seen.dtype) == (picture.shape, np.uint8)
    assert np.array_equal(seen, occlude(picture, kind, seed)) and np.array_equal(picture, before)
    assert not np.array_equal(seen, picture)


def test_no_kind_leaves_the_picture_as_it_is() -> None:
    assert occlude(GREY, "", 3) is GREY


# Glasses cover by their frames, and by their lenses where these are dark.
@pytest.mark.parametrize(
    ("kind", "least", "most", "mean"),
    [
        ("hand", 0.01, 0.6, (0.08, 0.3)),
        ("glasses", 0.004, 0.45, (0.03, 0.2)),
        ("bar", 0.02, 0.4, (0.06, 0.25)),
        ("ball", 0.005, 0.2, (0.04, 0.12)),
    ],
)
def test_it_covers_a_part_of_the_picture(kind: str, least: float, most: float, mean: tuple[float, float]) -> None:
    shares = [covered(kind, seed) for seed in SEEDS]
    assert least <= min(shares) and max(shares) <= most
    assert mean[0] <= np.mean(shares) <= mean[1]
    assert len(set(shares)) == len(shares)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_what_is_far_from_it_is_left(kind: str) -> None:
    picture = scene(1, SIZE, SIZE)
    for seed in SEEDS:
        same = np.abs(occlude(picture, kind, seed).astype(int) - picture).max(axis=2) <= 1
        assert same.mean() > 0.1, seed


def test_a_hand_comes_from_an_edge() -> None:
    for seed in SEEDS:
        hidden = np.abs(occlude(GREY, "hand", seed).astype(int) - 128).max(axis=2) > 24
        assert max(side.mean() for side in (hidden[0], hidden[-1], hidden[:, 0], hidden[:, -1])) > 0.08


def test_it_has_shade_and_soft_edges_and_is_no_noise() -> None:
    for kind in KINDS:
        for seed in range(6):
            seen = occlude(GREY, kind, seed).astype(float)
            assert len(np.unique(seen[..., 0])) > 20, kind  # shaded
            steps = np.abs(np.diff(seen, axis=1)).max(axis=2)
            assert (steps > 40).mean() < 0.06, kind  # few sharp steps, as noise would be made of


def test_dark_and_light_skin_are_drawn() -> None:
    tones = []
    for seed in range(60):
        seen = occlude(GREY, "hand", seed).astype(float)
        tones.append(seen[np.abs(seen - 128).max(axis=2) > 24].mean())
    assert min(tones) < 80 and max(tones) > 130
