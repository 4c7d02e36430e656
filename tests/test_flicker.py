"""models/flicker.py on models whose flicker is known beforehand."""

import numpy as np
import pytest
from scenes import scene

from models import flicker
from models.flicker import Floats, Model, Pictures, between_frames, camera_path, jitter_path, steps_of, under_noise

SIZE = 64
PATHS = {"camera": camera_path(6), "jitter": jitter_path(6)}


def pictures(count: int = 2, edges: bool = True) -> Pictures:
    """(count,64,64,3) uint8 with soft shapes, and hard edges; far from black and white."""
    made = np.stack([scene(seed, SIZE, SIZE) for seed in range(count)]) // 2 + np.uint8(64)
    if edges:
        made[:, 20:40, 16:48] -= 40
    return made


def identity(x: Pictures) -> Floats:
    return x.astype(np.float32) / np.float32(255)


def negative(x: Pictures) -> Floats:
    return (1 - 0.8 * identity(x)[..., ::-1]).astype(np.float32)


def textured(x: Pictures) -> Floats:
    """A grid of 4 pixels that stays where it is, 10 levels up or down."""
    grid = np.where(np.arange(SIZE) // 2 % 2, 10, -10).astype(np.float32) / 255
    return identity(x) + grid[:, None]


def louder(gain: float) -> Model:
    return lambda x: (0.5 + gain * (identity(x) - 0.5)).astype(np.float32)


@pytest.mark.parametrize("model", [identity, negative])
def test_what_only_recolours_follows_every_motion(model: Model) -> None:
    found = flicker.under_motion(model, pictures(), PATHS)
    assert found.keys() == PATHS.keys() and all(value < 0.05 for value in found.values())


def test_a_texture_that_stays_flickers_under_a_camera_and_in_a_jumping_box() -> None:
    found = flicker.under_motion(textured, pictures(), PATHS)
    # Two square waves of 10 levels that are out of step differ by 14 (RMS, over all phases).
    assert found["camera"] == pytest.approx(14, abs=3) and 5 < found["jitter"] < 20


def test_the_paths_move_by_fractions_of_a_pixel_and_stay_within_the_margin() -> None:
    side = 256
    margin = side // flicker.MARGIN_SHARE
    for path in (camera_path(24), jitter_path(50)):
        ramp = np.stack(np.broadcast_arrays(*np.mgrid[0:side, 0:side], 0), axis=-1).astype(np.float32) / side
        away = side * np.abs(flicker.moved(ramp, path) - ramp)[:, margin:-margin, margin:-margin]
        assert 1 < away.max() < margin
    assert len({pose.right % 1 for pose in camera_path(24)}) > 12
    assert {pose.right for pose in jitter_path(50)} == {-2.0, -1.0, 0.0, 1.0, 2.0}


def test_a_whole_pixel_is_moved_without_loss() -> None:
    picture = identity(pictures(1))[0]
    moved = flicker.moved(picture, [flicker.Pose(2, 1)])[0]
    assert moved[:-1, :-2] == pytest.approx(picture[1:, 2:], abs=1e-5)


def test_a_closed_path_and_the_same_path_twice() -> None:
    path = camera_path(1000)
    assert abs(path[0].right - path[-1].right) < 0.05 and abs(path[0].zoom - path[-1].zoom) < 0.001
    assert jitter_path(5) == jitter_path(5) != jitter_path(5, seed=1)


def test_noise_passes_through_the_identity_and_is_amplified_by_a_known_gain() -> None:
    own = under_noise(identity, pictures(), 6, 3.0)
    assert own == pytest.approx(3.0, rel=0.05)
    for gain in (0.5, 1.0, 1.5):
        assert under_noise(louder(gain), pictures(), 6, 3.0) == pytest.approx(gain * own, rel=1e-4)


def translating(frames: int = 6) -> Pictures:
    """A scene that pans by whole pixels, right and down."""
    big = scene(3, 2 * SIZE, 2 * SIZE)
    return np.stack([big[at : at + SIZE, 2 * at : 2 * at + SIZE] for at in range(frames)])


def test_a_static_clip_does_not_flicker() -> None:
    still = np.repeat(pictures(1), 4, axis=0)
    steps = steps_of(still)
    assert len(steps) == 3 and all(step.seen.all() for step in steps)
    assert between_frames(textured(still), steps) < 1e-3


def test_a_moving_clip_flickers_by_its_wobble_alone() -> None:
    frames = translating()
    steps = steps_of(frames)
    assert np.mean([step.seen.mean() for step in steps]) > 0.8
    assert between_frames(identity(frames), steps) < 1
    # Brighter and darker by 4 levels from frame to frame: a change of 8.
    wobble = (4 / 255 * (-1) ** np.arange(len(frames))).astype(np.float32)[:, None, None, None]
    assert between_frames(0.25 + identity(frames) / 2 + wobble, steps) == pytest.approx(8, rel=0.02)
    assert between_frames(textured(frames), steps) > 5


def test_what_came_into_sight_does_not_count() -> None:
    """A square jumps over a still ground: what it covers and uncovers is not flicker."""
    frames = np.repeat(pictures(1, edges=False), 2, axis=0)
    frames[0, 10:30, 10:30] = frames[1, 10:30, 34:54] = 255
    steps = steps_of(frames)
    assert not steps[0].seen.all()
    unmasked = [flicker.Step(steps[0].grid, np.ones_like(steps[0].seen))]
    assert between_frames(identity(frames), steps) < between_frames(identity(frames), unmasked) / 2
