"""pair_scores, effect_norm and the planted faults: each fault raises the score that is to find it."""

import numpy as np
import pytest
from skimage import data

from models.pair_scores import (
    SLOW,
    WIDE,
    burnt,
    cliffs,
    edges_lost,
    fresh_strokes,
    inside,
    look_at,
    palette,
    shrink,
    spikes,
)
from tasks.effect_norm import cut_off, loneliness, repetition, unforetold
from tasks.faces import find_faces
from tasks.pictures import Pixels, crop_and_resize
from tasks.planted_faults import FAULTS, with_face

SIZE = 128
PHOTO = crop_and_resize(np.asarray(data.coffee()), (60, 0, 400), SIZE)
OTHER = crop_and_resize(np.asarray(data.chelsea()), (50, 0, 300), SIZE)
FACE = crop_and_resize(np.asarray(data.astronaut()), (50, 0, 350), SIZE)


def painted(pixels: Pixels) -> Pixels:
    """A plain effect: other colours, more contrast, edges where they were."""
    return np.clip((pixels[..., ::-1].astype(int) - 100) * 1.2 + 110, 0, 255).astype(np.uint8)


def spoilt(name: str, given: Pixels = PHOTO) -> Pixels:
    target = FAULTS[name](given, painted(given), painted(OTHER), np.random.default_rng(1))
    assert target is not None
    assert target.shape == given.shape
    assert target.dtype == np.uint8
    return target


def lost(target: Pixels, given: Pixels = PHOTO) -> tuple[float, float]:
    return edges_lost(look_at(given).luma, look_at(target).luma)


def test_an_effect_that_only_changes_colours_loses_no_edges() -> None:
    structure, background = lost(painted(PHOTO))
    assert structure < 0.1
    assert background < 0.1
    assert lost(PHOTO) == pytest.approx((0, 0), abs=1e-6)


@pytest.mark.parametrize("fault", ["shifted", "swapped"])
def test_edges_that_moved_are_lost(fault: str) -> None:
    assert lost(spoilt(fault))[0] > lost(painted(PHOTO))[0] + 0.2


def test_another_background_is_lost_outside_the_middle_alone() -> None:
    structure, background = lost(spoilt("other-background"))
    assert background > 0.4
    assert background > structure
    # A subject's box says where the background is: round the whole picture there is none.
    everywhere = edges_lost(look_at(PHOTO).luma, look_at(spoilt("other-background")).luma, (0, 0, SIZE))
    assert everywhere[1] == 0


def test_the_subject_is_the_middle_or_twice_its_box() -> None:
    assert inside(8, None, 1.0).sum() == 16
    found = inside(16, (8, 8, 8), 0.5)
    assert found[2:10, 2:10].all()
    assert found.sum() == 64


def test_flat_pictures_have_nothing_to_lose() -> None:
    flat = np.full((SIZE, SIZE, 3), 90, np.uint8)
    noisy = (flat + np.random.default_rng(0).integers(-1, 2, flat.shape)).astype(np.uint8)
    assert lost(noisy, flat) == pytest.approx((0, 0), abs=0.05)
    assert not cliffs(look_at(flat).spectrum).any()
    assert fresh_strokes(look_at(flat).slope, look_at(noisy).slope) == 0


def test_a_grid_is_a_spike_that_the_input_does_not_have() -> None:
    clean = spikes(look_at(painted(PHOTO)).spectrum).max()
    assert spikes(look_at(spoilt("grid")).spectrum).max() > clean + 0.15


def test_waves_that_are_cut_off_are_a_cliff() -> None:
    assert cliffs(look_at(spoilt("ringing")).spectrum).max() > cliffs(look_at(painted(PHOTO)).spectrum).max() + 0.5
    steps = cliffs(np.repeat([0.0, -2.0], 32)[None])
    assert steps.max() == pytest.approx(2)
    assert int(steps.argmax()) == 32 - WIDE - SLOW


def test_writing_shows_where_the_input_has_no_edges() -> None:
    slope = look_at(PHOTO).slope
    clean = fresh_strokes(slope, look_at(painted(PHOTO)).slope)
    assert fresh_strokes(slope, look_at(spoilt("overlay")).slope) > clean + 0.1


def test_clipping_burns() -> None:
    assert burnt(np.array([[[0, 1, 254], [255, 2, 128]]], np.uint8)) == pytest.approx(4 / 6)
    assert burnt(spoilt("clipping")) > burnt(painted(PHOTO)) + 0.2


def test_another_face_replaces_the_one_there_and_needs_one() -> None:
    random = np.random.default_rng(0)
    assert FAULTS["other-face"](PHOTO, PHOTO, OTHER, random) is None
    left, top, side = find_faces(FACE)[0]
    changed = with_face(FACE, (left, top, side), random) != FACE
    assert changed[top : top + side, left : left + side].any()
    changed[top : top + side, left : left + side] = False
    assert not changed.any()


def test_large_pictures_are_measured_small() -> None:
    assert look_at(np.zeros((512, 512, 3), np.uint8)).luma.shape == (256, 256)
    assert np.array_equal(shrink(np.arange(16, dtype=np.float32).reshape(4, 4), 2), [[2.5, 4.5], [10.5, 12.5]])
    assert palette(PHOTO).shape == (14,)


def test_what_the_inputs_foretell_is_taken_off_and_bad_pairs_do_not_bend_it() -> None:
    random = np.random.default_rng(0)
    given = random.normal(size=(200, 2))
    target = given @ np.array([[2.0, 0.0], [1.0, -1.0]]) + 3 + random.normal(scale=0.01, size=(200, 2))
    target[:10] += 5
    is_train = np.ones(200, bool)
    is_train[190:] = False
    rest = unforetold(given, target, is_train, np.full(2, 0.01))
    assert np.abs(rest[10:]).max() < 0.1
    assert rest[:10] == pytest.approx(5, abs=0.1)


def test_a_fifth_of_the_pairs_all_of_one_kind_do_not_bend_the_plane() -> None:
    random = np.random.default_rng(0)
    given = random.normal(size=(200, 2))
    target = given @ np.array([[2.0, 0.0], [1.0, -1.0]]) + 3 + random.normal(scale=0.01, size=(200, 2))
    wrong = given[:, 0] > np.quantile(given[:, 0], 0.8)
    target[wrong] += 5
    rest = unforetold(given, target, np.ones(200, bool), np.full(2, 0.01))
    assert np.abs(rest[~wrong]).max() < 0.1
    assert rest[wrong] == pytest.approx(5, abs=0.1)


def test_a_weave_that_the_effect_always_leaves_is_no_grid() -> None:
    random = np.random.default_rng(0)
    given, target = (random.normal(scale=0.05, size=(40, 2, 65)).astype(np.float16) for _ in range(2))
    target[:, :, 30] += 1
    target[3, 1, 50] += 1
    found = repetition(given, target, np.ones(40, bool))
    assert int(found.argmax()) == 3
    assert found[3] > 0.7
    assert np.delete(found, 3).max() < 0.5


def test_a_fall_that_the_input_has_too_is_no_cut() -> None:
    random = np.random.default_rng(0)
    given, target = (random.normal(scale=0.05, size=(40, 2, 65)).astype(np.float16) for _ in range(2))
    given[4, :, 40:] -= 2
    target[4:6, :, 40:] -= 2
    found = cut_off(given, target, np.ones(40, bool))
    assert int(found.argmax()) == 5
    assert found[5] > 1.8
    assert found[4] < 0.3


def test_the_lonely_one_is_far_from_all() -> None:
    vectors = np.random.default_rng(0).normal(size=(100, 6)).astype(np.float32)
    vectors[7] += 9
    assert int(loneliness(vectors).argmax()) == 7
    assert not loneliness(vectors[:5]).any()
