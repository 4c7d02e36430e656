"""The budget of a video frame: the clip, each step's picture, and the verdict."""

from pathlib import Path

import av
import numpy as np
import pytest
from tiny_litert import affine_bytes

from models.runtimes import open_model
from tasks.clip import HEIGHT, WIDTH, make_clip, still
from tasks.frame_budget import STEPS, Compositor, frame_row, measure_frames, resized, soft_oval
from tasks.target import Job

SIZE, FRAMES = 64, 6


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    """Two pictures of colour gradients, which an encoder keeps well."""
    ramp = np.linspace(0.1, 0.9, SIZE, dtype=np.float32)
    x, y = np.meshgrid(ramp, ramp)
    return [np.stack([x, y, 1 - x], -1)[None], np.stack([1 - y, x, y], -1)[None]]


@pytest.fixture(scope="module")
def packets(pictures: list[np.ndarray]) -> list[bytes]:
    return make_clip(pictures, FRAMES)


def decoded(packets: list[bytes]) -> list[av.VideoFrame]:
    decoder = av.CodecContext.create("h264", "r")
    return [frame for packet in packets for frame in decoder.decode(av.Packet(packet))]


def test_every_packet_of_the_clip_is_a_frame_of_the_pictures(packets: list[bytes], pictures: list[np.ndarray]) -> None:
    frames = decoded(packets)
    assert len(packets) == len(frames) == FRAMES
    assert {(frame.width, frame.height) for frame in frames} == {(WIDTH, HEIGHT)}
    shown = frames[0].to_ndarray(format="rgb24").astype(float)
    assert np.abs(shown - still(pictures)).mean() < 8
    assert np.abs(shown - frames[-1].to_ndarray(format="rgb24")).mean() > 8, "it does not move"


def test_the_network_sees_the_frame(packets: list[bytes]) -> None:
    frame = decoded(packets)[0]
    small = resized(frame, SIZE)
    assert small.shape == (1, SIZE, SIZE, 3) and small.dtype == np.float32
    assert 0 <= small.min() < 0.3 and 0.7 < small.max() <= 1
    tiles = frame.to_ndarray(format="rgb24").reshape(HEIGHT, WIDTH, 3).mean((0, 1)) / 255
    assert small.mean((0, 1, 2)) == pytest.approx(tiles, abs=0.03)


def test_the_effect_is_seen_in_the_oval_alone(packets: list[bytes]) -> None:
    frame = decoded(packets)[0]
    before = frame.to_ndarray(format="rgb24").astype(int)
    white = np.ones((1, SIZE, SIZE, 3), np.float32)
    compositor = Compositor()
    for _ in range(2):
        after = compositor(frame, white).to_ndarray(format="rgb24").astype(int)
    middle = after[HEIGHT // 2 - 20 : HEIGHT // 2 + 20, WIDTH // 2 - 20 : WIDTH // 2 + 20]
    assert middle.min() > 245
    assert np.abs(after - before)[:40, :40].max() <= 3
    assert soft_oval().shape == (HEIGHT * 3 // 2, WIDTH)


def test_every_step_is_measured(tmp_path: Path, pictures: list[np.ndarray]) -> None:
    (tmp_path / "student.int8.tflite").write_bytes(affine_bytes(0.5, 0.25, (1, SIZE, SIZE, 3)))
    record = {"file": "student.int8.tflite", "runtime": "litert", "precision": "int8"}
    common = {"warmup": 0, "runs": 1, "threads": [1], "sustained_s": 0.0, "benchmark_model": ""}
    job = Job(exported=tmp_path, files=[record], pictures=pictures, frames=FRAMES, **common)  # type: ignore[arg-type]
    found = measure_frames(job, record, 1)
    assert [step["step"] for step in found["steps"]] == list(STEPS) == ["decode", "resize", "network", "composite"]
    assert all(0 < step["p50_ms"] <= step["p90_ms"] for step in found["steps"])
    assert found["total"]["p50_ms"] >= max(step["p50_ms"] for step in found["steps"])
    assert (found["frames"], found["height"], found["budget_ms"]) == (FRAMES, 720, 33.0)
    assert open_model(tmp_path / record["file"], "litert").size == SIZE


@pytest.mark.parametrize(("network", "fits", "stops"), [(10.0, True, None), (40.0, False, "network")])
def test_the_verdict_names_the_step_that_stops_it(network: float, fits: bool, stops: str | None) -> None:
    times = {"decode": [3.0] * 10, "resize": [1.0] * 10, "network": [network] * 10, "composite": [2.0] * 10}
    found = frame_row({"file": "x"}, 1, times, STEPS)
    assert (found["fits"], found["stops"], found["total"]["p90_ms"]) == (fits, stops, network + 6)
