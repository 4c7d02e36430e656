"""Frames of a video: which are taken, upright, and what a broken file gives."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scenes import clip, scene

from tasks import videos


def test_video_frames_are_sampled_evenly_and_decoded(tmp_path: Path) -> None:
    colours = [(250, 20 * i, 10) for i in range(12)]
    clip(tmp_path / "c.mp4", [np.full((32, 48, 3), colour, dtype=np.uint8) for colour in colours])
    found = list(videos.sample_frames(tmp_path / "c.mp4", 2.0, 3))
    assert [seconds for seconds, _ in found] == [0.0, 1.0, 2.5]  # 6 at 2 a second, 3 of them
    for seconds, pixels in found:
        assert pixels.shape == (32, 48, 3)
        assert np.abs(pixels.mean(axis=(0, 1)) - colours[round(seconds * 4)]).max() < 12


def test_the_turn_a_phone_notes_in_a_video_is_honoured(tmp_path: Path) -> None:
    path = tmp_path / "turned.mp4"
    half = np.zeros((64, 96, 3), dtype=np.uint8)
    half[:32] = 255  # white above black
    clip(path, [half] * 2)
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44  # of the track header; (a, b, u, c, d, v, ...) as 16.16 fixed-point numbers
    clockwise = [0, 1 << 16, 0, -1 << 16, 0, 0]
    assert data[matrix : matrix + 4] == (1 << 16).to_bytes(4, "big")
    data[matrix : matrix + 24] = b"".join(number.to_bytes(4, "big", signed=True) for number in clockwise)
    path.write_bytes(data)
    pixels = next(videos.sample_frames(path, 1.0, 1))[1]
    assert pixels.shape == (96, 64, 3)
    assert pixels[:, :24].mean() < 20  # what was below is on the left now
    assert pixels[:, 40:].mean() > 235


@given(st.lists(st.floats(0.001, 3), min_size=1, max_size=80), st.floats(0.2, 30), st.integers(1, 20))
def test_chosen_frames_are_ascending_and_few_enough(gaps: list[float], rate: float, most: int) -> None:
    times = [float(time) for time in np.cumsum(gaps)]
    chosen = videos.choose(times, rate, most)
    assert chosen[0] == 0
    assert chosen == sorted(set(chosen))
    assert len(chosen) <= most
    assert len(chosen) <= (times[-1] - times[0] + 1e-3) * rate + 1


def test_a_video_that_breaks_off_gives_its_first_frames(tmp_path: Path) -> None:
    clip(tmp_path / "c.mkv", [scene(i, 96, 96) for i in range(40)])
    data = (tmp_path / "c.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    seconds = [second for second, _ in videos.sample_frames(tmp_path / "cut.mkv", 4.0, 100)]
    assert 5 < len(seconds) < 40


def test_real_clips_give_a_frame_a_second(shared_data: Path) -> None:
    frames = list(videos.sample_frames(shared_data / "clips" / "d11.mp4", 1.0, 300))
    assert [seconds for seconds, _ in frames] == list(range(9))
    assert {pixels.shape for _, pixels in frames} == {(512, 512, 3)}
