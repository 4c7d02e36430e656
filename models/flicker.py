"""Flicker of a model in video: what changes from frame to frame that it should not, in levels of 255 (RMS).

- under_motion: the camera pans, turns and zooms by fractions of a pixel, or a tracker's crop box jumps. A perfect
  effect commutes with the motion, so f(W x) is held against W f(x): both sides pass through the same interpolation
  once, and a model that only recolours loses nothing by it. (Warping the output back instead would charge every model
  for a second interpolation, and the sharper one more.) What rounding W x to 8 bits does is taken off in quadrature.
- under_noise: a still camera's sensor noise; standard deviation over the frames.
- between_frames: real video, where the motion is not known but estimated on the input: TV-L1 optical flow (Zach, Pock &
  Bischof 2007) forth and back, and the warping error where the two agree (Lai et al. 2018, "Learning Blind Video
  Temporal Consistency"; the mask is that of Ruder et al. 2016).

Without a reference these reward blur, so they mean something beside the teacher's own figure.
`models/stability.py` has the figure that needs no teacher.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from models.losses import LUMA
from models.stability import MARGIN_SHARE

Pictures = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Model = Callable[[Pictures], Floats]  # (B,S,S,3) uint8 -> (B,S,S,3) in [0,1]

REACH = 5.0  # pixels that the camera pans to either side; its corners move by another 5 at most where S is 256
TURN, ZOOM = 1.0, 0.01  # degrees, and share of the size
BOX_STEPS, BOX_SCALE = (-2, -1, 0, 1, 2), 0.01  # of a tracker's box: pixels, and share of the size
FLOW_SIDE = 128  # pixels at which flow is estimated: a quarter of the time of 256, for a fifth more left unexplained


@dataclass(frozen=True, slots=True)
class Pose:
    """Where a frame looks: its centre (right, down) in pixels off the picture's, its turn in degrees, its zoom."""

    right: float
    down: float
    turn: float = 0.0
    zoom: float = 1.0


@dataclass(frozen=True, slots=True)
class Step:
    """From a frame to the next: where each pixel of the next was, and whether it is to be trusted."""

    grid: torch.Tensor  # (1,S,S,2), as grid_sample takes it
    seen: npt.NDArray[np.bool_]  # (S,S)


def camera_path(frames: int) -> list[Pose]:
    """A hand-held camera: smooth, never at a whole pixel for long, and closed, so that it can be shown as a loop."""
    path = []
    for t in np.arange(frames) / frames * 2 * np.pi:
        right, down = REACH * np.sin(t + 0.3), 0.8 * REACH * np.sin(2 * t + 0.5)
        path.append(Pose(right, down, TURN * float(np.sin(t + 1.0)), 1 + ZOOM * float(np.sin(2 * t + 2.0))))
    return path


def jitter_path(frames: int, seed: int = 0) -> list[Pose]:
    """A crop box that jumps by whole pixels and a little in scale, each frame on its own."""
    random = np.random.default_rng(seed)
    return [
        Pose(*map(float, random.choice(BOX_STEPS, 2)), zoom=1 + float(random.uniform(-BOX_SCALE, BOX_SCALE)))
        for _ in range(frames)
    ]


def moved(picture: Floats, path: Sequence[Pose]) -> Floats:
    """A picture (S,S,3) in [0,1] as each pose sees it: (F,S,S,3) in [0,1]; bicubic, mirrored at the border."""
    side = len(picture)
    # Pixels of a frame, off its centre, in the units of grid_sample.
    down, right = (torch.from_numpy(axis) for axis in np.mgrid[0:side, 0:side] * (2 / (side - 1)) - 1)
    grids = []
    for pose in path:
        cos, sin = (pose.zoom * f(np.deg2rad(pose.turn)) for f in (np.cos, np.sin))
        x = cos * right - sin * down + 2 * pose.right / (side - 1)
        y = sin * right + cos * down + 2 * pose.down / (side - 1)
        grids.append(torch.stack([x, y], dim=-1))
    return sampled(np.repeat(picture[None], len(path), axis=0), torch.stack(grids).float())


def sampled(pictures: Floats, grid: torch.Tensor) -> Floats:
    """(B,S,S,3) in [0,1] at the places (B,S,S,2) of grid_sample -> (B,S,S,3) in [0,1]."""
    values = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2)
    found = functional.grid_sample(values, grid, mode="bicubic", padding_mode="reflection", align_corners=True)
    there: Floats = found.clamp(0, 1).permute(0, 2, 3, 1).numpy()
    return there


def inner(values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """(...,S,S,3) without the margin, into which things move that the picture does not have."""
    margin = values.shape[-2] // MARGIN_SHARE
    return values[..., margin:-margin, margin:-margin, :]


def under_motion(model: Model, pictures: Pictures, paths: Mapping[str, Sequence[Pose]]) -> dict[str, float]:
    """Of each path the RMS of f(W x) - W f(x) over its frames and the (N,S,S,3) pictures."""
    squares: dict[str, list[float]] = {name: [] for name in paths}
    for picture in np.asarray(pictures):
        exact, rest = picture.astype(np.float32) / np.float32(255), model(picture[None])[0]
        for name, path in paths.items():
            for seen, wanted in zip(moved(exact, path), moved(rest, path), strict=True):
                frame = np.rint(seen * 255).astype(np.uint8)
                rounding = inner(frame / np.float32(255) - seen)
                error = inner(model(frame[None])[0] - wanted)
                squares[name].append(mean_square(error) - mean_square(rounding))
    return {name: levels(found) for name, found in squares.items()}


def under_noise(model: Model, pictures: Pictures, frames: int, sigma: float) -> float:
    """Standard deviation over `frames` (2 or more) noisy frames of each still, RMS over pixels and pictures.

    The noise is Gaussian, `sigma` levels strong, clipped and rounded as a sensor's; the same for every model. That of
    the identity is the input's own, and the ratio to it how much a model amplifies noise.
    """
    random = np.random.default_rng(0)
    squares = []
    for picture in np.asarray(pictures):
        noisy = np.clip(np.rint(picture + random.normal(0.0, sigma, (frames, *picture.shape))), 0, 255).astype(np.uint8)
        made = np.concatenate([model(frame[None]) for frame in noisy])
        squares.append(float(made.var(axis=0, ddof=1, dtype=np.float64).mean()))
    return levels(squares)


def steps_of(frames: Pictures) -> list[Step]:
    """The motion between consecutive frames (T,S,S,3), estimated: T-1 steps."""
    from skimage.registration import optical_flow_tvl1

    side = frames.shape[1]
    grey = torch.from_numpy((frames / np.float32(255)) @ np.asarray(LUMA, np.float32))[:, None]
    small = functional.interpolate(grey, (FLOW_SIDE, FLOW_SIDE), mode="bilinear", antialias=True)[:, 0].numpy()
    steps = []
    for before, after in pairwise(small):
        back, forth = (_full(optical_flow_tvl1(*pair), side) for pair in ((after, before), (before, after)))
        steps.append(_step(back, forth))
    return steps


def _full(flow: npt.NDArray[np.float32], side: int) -> torch.Tensor:
    """A flow (down, right) of FLOW_SIDE as (1,2,S,S), (right, down) in pixels of S."""
    values = torch.from_numpy(np.ascontiguousarray(flow[::-1], np.float32))[None] * (side / FLOW_SIDE)
    return functional.interpolate(values, (side, side), mode="bilinear", align_corners=False)


def _step(back: torch.Tensor, forth: torch.Tensor) -> Step:
    """The step whose later frame's pixels lie at p + back(p) in the earlier one, if forth leads back to p."""
    side = back.shape[-1]
    at = torch.from_numpy(np.mgrid[0:side, 0:side][::-1].astype(np.float32)) + back[0]
    grid = (at.permute(1, 2, 0) * (2 / (side - 1)) - 1)[None]
    returned = functional.grid_sample(forth, grid, align_corners=True)
    apart = (back + returned).square().sum(1)[0]
    length = back.square().sum(1)[0] + returned.square().sum(1)[0]
    seen = (apart < 0.01 * length + 0.5) & (grid[0].abs() <= 1).all(-1)
    return Step(grid, seen.numpy())


def between_frames(outputs: Floats, steps: Sequence[Step]) -> float:
    """RMS of what changes from each of the (T,S,S,3) frames to the next beyond the motion, where that is known.

    0 where it is known of no pixel.
    """
    square, pixels = 0.0, 0
    for (before, after), step in zip(pairwise(outputs), steps, strict=True):
        error = np.square(after - sampled(before[None], step.grid)[0], dtype=np.float64)
        square, pixels = square + float(error[step.seen].sum()), pixels + 3 * int(step.seen.sum())
    return levels([square / max(pixels, 1)])


def mean_square(values: npt.NDArray[np.floating]) -> float:
    """Mean of the squares."""
    return float(np.square(values, dtype=np.float64).mean())


def levels(squares: Sequence[float]) -> float:
    """Mean squares -> root of their mean in levels of 255; what is less than nothing is nothing."""
    return 255 * float(np.sqrt(max(0.0, float(np.mean(squares)))))
