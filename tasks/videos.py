"""Frames of a video, sampled evenly in time (PyAV).

Two passes: the first reads the packets' times only, so that the frames to take are known before a single
one is decoded; the second decodes and keeps one frame at a time in memory.
"""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream

from tasks.pictures import Pixels, Unfit

SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".3gp"})


def choose(times: list[float], frames_per_second: float, max_frames: int) -> list[int]:
    """Indices of the frames to take from `times` (seconds, ascending): `frames_per_second` of them, even in time.

    If that makes more than `max_frames`, `max_frames` of these, spread evenly from first to last.
    """
    chosen: list[int] = []
    due = times[0] if times else 0.0
    for index, time in enumerate(times):
        if time + 1e-6 >= due:
            chosen.append(index)
            # The next sample falls on the clock after this frame; in a gap of the video none is made up.
            due += (int((time + 1e-6 - due) * frames_per_second) + 1) / frames_per_second
    if len(chosen) <= max_frames:
        return chosen
    spread = np.linspace(0, len(chosen) - 1, max_frames).round().astype(int)
    return [chosen[index] for index in spread]


def _open_stream(container: "av.container.InputContainer") -> VideoStream:
    if not container.streams.video:
        raise Unfit("broken", "holds no video")
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    return stream


def _times(path: Path) -> list[float]:
    """Presentation times of all frames in seconds from the first, ascending."""
    with av.open(path) as container:
        stream = _open_stream(container)
        packets = [packet for packet in container.demux(stream) if packet.size and not packet.is_discard]
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        # Some containers (AVI with B-frames) give no presentation times; then the rate has to do.
        stamps = [packet.pts for packet in packets]
        known = sorted(stamp for stamp in stamps if stamp is not None)
        if len(known) < len(stamps) or stream.time_base is None:
            return [index / rate for index in range(len(stamps))]
        return [float((stamp - known[0]) * stream.time_base) for stamp in known]


def sample_frames(path: Path, frames_per_second: float, max_frames: int) -> Iterator[tuple[float, Pixels]]:
    """Yield (seconds from the first frame, upright RGB pixels (H,W,3)) of the chosen frames in order.

    Raises Unfit where the file cannot be opened, and after the frames so far where decoding breaks off.
    """
    try:
        times = _times(path)
        wanted = set(choose(times, frames_per_second, max_frames))
        last = max(wanted, default=-1)
        with av.open(path) as container:
            for index, frame in enumerate(container.decode(_open_stream(container))):
                if index in wanted:
                    # The turn that a phone notes in the file instead of turning the pixels.
                    pixels = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                    yield times[index], np.ascontiguousarray(pixels)
                if index >= last:
                    break
    except (av.error.FFmpegError, ValueError) as error:
        raise Unfit("broken", f"cannot be decoded ({' '.join(str(error).split())})") from None
    if last < 0:
        raise Unfit("broken", "holds no frames")
