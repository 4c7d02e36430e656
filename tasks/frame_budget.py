"""What a video frame costs: decode -> resize -> network -> composite at 720p, step by step, against 33 ms.

The network is one step of four, and an app has to do all of them between two frames of a camera. Here they are done on
this machine's processor by the quickest calls there were among the libraries at hand (docs/decisions/0011-targets.md);
tasks/browser/frames.js does the same in a browser. The network's picture is enlarged again and seen through a soft
oval, as an effect on a face is.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.clip import FRAMES_PER_SECOND, HEIGHT, WIDTH, make_clip
from tasks.target import Job, Json

BUDGET_MS = 33.0  # 30 frames a second
STEPS = {
    "decode": "PyAV (ffmpeg) H.264, one thread",
    "resize": "swscale, area",
    "network": "LiteRT",
    "composite": "swscale bilinear to YUV 4:2:0, through a soft oval by ffmpeg's maskedmerge",
}


def measure_frames(job: Job, file: Json, threads: int) -> dict[str, Any]:
    """The budget of a LiteRT file on this machine: p50 and p90 of every step and of whole frames."""
    from models.runtimes import open_model

    model = open_model(job.exported / file["file"], file["runtime"], threads)
    times = time_steps(model, make_clip(job.pictures, job.frames))
    return frame_row(file, threads, times, STEPS)


def time_steps(model: Any, packets: Sequence[bytes]) -> dict[str, list[float]]:
    """Milliseconds of each step of each frame."""
    import av

    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    over = Compositor()
    times: dict[str, list[float]] = {step: [] for step in STEPS}
    for packet in packets:
        marks = [perf_counter()]
        (frame,) = decoder.decode(av.Packet(packet))
        marks.append(perf_counter())
        model.load(resized(frame, model.size))
        marks.append(perf_counter())
        model.invoke()
        marks.append(perf_counter())
        over(frame, model.read())
        marks.append(perf_counter())
        for step, started, ended in zip(STEPS, marks, marks[1:], strict=False):
            times[step].append(1000 * (ended - started))
    return times


def resized(frame: Any, size: int) -> npt.NDArray[np.float32]:
    """A decoded frame as the network takes it, (1,S,S,3) in [0,1]."""
    small = frame.reformat(size, size, "rgb24", interpolation="AREA").to_ndarray()
    scaled: npt.NDArray[np.float32] = small.astype(np.float32)[None]
    scaled *= np.float32(1 / 255)
    return scaled


class Compositor:
    """Puts the network's picture over frames where the soft oval is: one filter graph for a whole clip."""

    def __init__(self) -> None:
        import av

        self._mask = av.VideoFrame.from_ndarray(soft_oval(), format="yuv420p")
        self._graph = av.filter.Graph()
        self._graph.threads = 1
        time_base, layout = Fraction(1, FRAMES_PER_SECOND), av.VideoFormat("yuv420p")
        self._ends = [
            self._graph.add_buffer(width=WIDTH, height=HEIGHT, format=layout, time_base=time_base) for _ in range(3)
        ]
        merge, self._out = self._graph.add("maskedmerge"), self._graph.add("buffersink")
        for place, end in enumerate(self._ends):
            end.link_to(merge, 0, place)
        merge.link_to(self._out)
        self._graph.configure()
        self._number = 0

    def __call__(self, frame: Any, output: npt.NDArray[np.float32]) -> Any:
        """A decoded 720p frame in YUV 4:2:0 with the picture (1,S,S,3) in [0,1] over it, as the same."""
        import av

        small = np.rint(np.clip(output[0], 0, 1) * np.float32(255)).astype(np.uint8)
        large = av.VideoFrame.from_ndarray(small, format="rgb24").reformat(
            WIDTH, HEIGHT, "yuv420p", interpolation="BILINEAR"
        )
        for end, part in zip(self._ends, (frame, large, self._mask), strict=True):
            part.pts, part.time_base = self._number, Fraction(1, FRAMES_PER_SECOND)
            end.push(part)
        self._number += 1
        return self._out.pull()


def soft_oval() -> npt.NDArray[np.uint8]:
    """The mask, in YUV 4:2:0's layout of stacked planes: brightness, and the two colours at half the size."""
    luma = oval(HEIGHT, WIDTH)
    # Each colour plane has half the rows of half the length, stacked as rows of the full length.
    colour = oval(HEIGHT // 2, WIDTH // 2).reshape(HEIGHT // 4, WIDTH)
    return np.concatenate([luma, colour, colour])


def oval(height: int, width: int) -> npt.NDArray[np.uint8]:
    """(height,width): 255 within 0.6 of the half axes, 0 beyond 0.9, even between."""
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None]
    share = np.clip((0.9 - np.hypot(x, y)) / 0.3, 0, 1)
    return np.rint(255 * share).astype(np.uint8)


def frame_row(
    file: Json, threads: int, times: Mapping[str, Sequence[float]], with_: Mapping[str, str]
) -> dict[str, Any]:
    """A budget as it goes into benchmark.json; `with_` says by what each step was done.

    It fits where nine whole frames of ten do; where it does not, `stops` is the step that takes most.
    """
    steps = [{"step": step, "with": with_[step], **middle(taken)} for step, taken in times.items()]
    total = middle([sum(parts) for parts in zip(*times.values(), strict=True)])
    fits = total["p90_ms"] <= BUDGET_MS
    return {
        "file": file["file"],
        "threads": threads,
        "frames": len(next(iter(times.values()))),
        "width": WIDTH,
        "height": HEIGHT,
        "steps": steps,
        "total": total,
        "budget_ms": BUDGET_MS,
        "fits": fits,
        "stops": None if fits else max(times, key=lambda step: middle(times[step])["p90_ms"]),
    }


def middle(times: Sequence[float]) -> dict[str, float]:
    """p50 and p90."""
    p50, p90 = (round(float(value), 3) for value in np.percentile(times, [50, 90]))
    return {"p50_ms": p50, "p90_ms": p90}
