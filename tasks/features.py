"""What drift is measured on: figures of pictures that say how they look, without being the pictures.

Plain features are named and lie in [0,1] with fixed bins, so that counts from many phones add up; encoder features
are what the student itself sees of a picture. A histogram file holds the counts of the plain ones alone: a picture
cannot be made from it again, and an app may send it where photos may not leave the phone (one photo of a scene,
one frame of a clip, or the counts claim more than was seen).

Command: python -m tasks.features --student NAME --folder PHOTOS --out FILE.json   (writes a histogram file)
"""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.errors import UserError
from tasks.files import write_json
from tasks.params import load_params
from tasks.pictures import Pixels, crop_and_resize
from tasks.stage import guarded

Pictures = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float64]
Features = dict[str, Values]  # by name, one value in [0,1] a picture

SCHEMA = "understudy-histograms/1"
BINS = 50
MAX_COUNTED = 100_000  # pictures a file may speak for
BATCH = 16  # pictures the encoder sees at once
DARK, BLOWN = 0.1, 254  # luma below which a pixel is nearly black; level of any channel at which light is lost
DETAIL_DECADES = (-6.0, -1.0)  # log10 of the Laplacian energy of luma: from a flat wall to pure noise


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """A plain feature: how it is measured, and what its rise and fall are called."""

    measure: Callable[[Values], float]  # (S,S,3) in [0,1] -> about [0,1]
    rises: str
    falls: str


def luma(picture: Values) -> Values:
    """BT.601 luma, (S,S,3) -> (S,S)."""
    return np.asarray(picture @ np.array([0.299, 0.587, 0.114]))


def _detail(picture: Values) -> float:
    y = luma(picture)
    laplacian = y[:-2, 1:-1] + y[2:, 1:-1] + y[1:-1, :-2] + y[1:-1, 2:] - 4 * y[1:-1, 1:-1]
    low, high = DETAIL_DECADES
    return float((np.log10(max(np.square(laplacian).mean(), 10**low)) - low) / (high - low))


FEATURES: dict[str, Feature] = {
    "luma": Feature(measure=lambda x: float(luma(x).mean()), rises="brighter", falls="darker"),
    # A standard deviation of values in [0,1] is at most a half.
    "contrast": Feature(measure=lambda x: 2 * float(luma(x).std()), rises="more contrast", falls="less contrast"),
    "chroma": Feature(
        measure=lambda x: float((x.max(axis=2) - x.min(axis=2)).mean()), rises="more colourful", falls="greyer"
    ),
    # Red and blue differ by less than a half on average in all but made-up pictures.
    "warmth": Feature(
        measure=lambda x: 0.5 + float((x[..., 0] - x[..., 2]).mean()), rises="warmer colours", falls="cooler colours"
    ),
    "detail": Feature(measure=_detail, rises="finer detail or noise", falls="smoother or blurred"),
    "shadows": Feature(measure=lambda x: float((luma(x) < DARK).mean()), rises="more black", falls="less black"),
    "highlights": Feature(
        measure=lambda x: float((x.max(axis=2) >= BLOWN / 255).mean()), rises="more blown out", falls="less blown out"
    ),
}


def centre_square(pixels: Pixels, size: int) -> Pixels:
    """The largest square about the centre of (H,W,3), scaled to (size,size,3)."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    return crop_and_resize(pixels, ((width - side) // 2, (height - side) // 2, side), size)


def plain_features(pictures: Iterable[Pixels]) -> Features:
    """FEATURES of (S,S,3) uint8 pictures, each (N,) in [0,1]."""
    scaled = (picture.astype(np.float64) / 255 for picture in pictures)
    rows = [[feature.measure(picture) for feature in FEATURES.values()] for picture in scaled]
    columns = np.clip(np.array(rows).reshape(-1, len(FEATURES)), 0.0, 1.0).T
    return dict(zip(FEATURES, columns, strict=True))


def encoder_features(folder: Path, pictures: Sequence[Pixels] | Pictures) -> Values:
    """What the student in `folder` sees: its deepest encoder level averaged over the picture, (N,C).

    Raises UserError where the weights are not those of student.json, or give NaN.
    """
    return _of_levels(folder, pictures, lambda levels: [levels[-1].mean(dim=(2, 3))])


def level_features(folder: Path, pictures: Sequence[Pixels] | Pictures) -> Values:
    """What the student in `folder` sees at all levels of its encoder: mean and deviation of each channel, (N,C).

    The deepest level alone says little: in a small student most of its channels rise and fall as one. Raises as
    `encoder_features` does.
    """
    return _of_levels(
        folder,
        pictures,
        lambda levels: [part for one in levels for part in (one.mean(dim=(2, 3)), one.std(dim=(2, 3), unbiased=False))],
    )


def _of_levels(
    folder: Path, pictures: Sequence[Pixels] | Pictures, pool: Callable[[Sequence[Any]], Sequence[Any]]
) -> Values:
    """What `pool` makes of the levels of a student's encoder, each (B,C,h,w), side by side: (N,C)."""
    import torch

    from models.metrics import to_tensor
    from models.students import load_student
    from models.torch_setup import prepare_torch

    prepare_torch(torch.get_num_threads())
    encoder: Any = load_student(folder).encoder
    parts = []
    with torch.inference_mode():
        for start in range(0, len(pictures), BATCH):
            levels = encoder(to_tensor(np.stack(list(pictures[start : start + BATCH]))))
            parts.append(torch.cat(list(pool(levels)), dim=1).double().numpy())
    found: Values = np.concatenate(parts)
    if not np.isfinite(found).all():
        raise UserError(f"{folder}: the student's encoder gives NaN for real pictures: train it again")
    return found


def count(values: Values) -> npt.NDArray[np.int64]:
    """How many of (N,) values in [0,1] lie in each of BINS equal bins; 1 belongs to the last."""
    return np.histogram(values, bins=BINS, range=(0.0, 1.0))[0].astype(np.int64)


def histograms(features: Mapping[str, Values], size: int) -> dict[str, Any]:
    """Counts of plain features of pictures of `size` pixels as a JSON object."""
    counted = {name: count(values).tolist() for name, values in features.items()}
    n = len(next(iter(features.values())))
    return {"schema": SCHEMA, "size": size, "n": n, "range": [0.0, 1.0], "features": counted}


def check_histograms(value: Any, size: int) -> dict[str, Any]:
    """The value, if it is a histogram file of this version for pictures of `size` pixels; else ValueError says why."""
    keys = {"schema", "size", "n", "range", "features"}
    if not isinstance(value, dict) or value.keys() != keys or value["schema"] != SCHEMA:
        raise ValueError(f"not a histogram file of schema {SCHEMA}")
    if value["size"] != size or value["range"] != [0.0, 1.0]:
        raise ValueError(f"counted on pictures of {value['size']!r:.20} pixels, the student takes {size}")
    if type(value["n"]) is not int or not 0 < value["n"] <= MAX_COUNTED:
        raise ValueError(f"n must be from 1 to {MAX_COUNTED}, is {value['n']!r:.20}")
    features = value["features"]
    if not isinstance(features, dict) or features.keys() != FEATURES.keys():
        raise ValueError(f"must count {', '.join(FEATURES)} and nothing else")
    for name, counts in features.items():
        whole = isinstance(counts, list) and all(type(one) is int and one >= 0 for one in counts)
        if not whole or len(counts) != BINS or sum(counts) != value["n"]:
            raise ValueError(f"{name}: must be {BINS} counts that sum to n")
    return value


def merge_histograms(parts: Sequence[Mapping[str, Any]], size: int) -> dict[str, Any]:
    """Several checked histogram files as one: their counts added; of none, a file of zeros."""
    total = {name: np.zeros(BINS, dtype=np.int64) for name in FEATURES}
    for part in parts:
        for name, counts in part["features"].items():
            total[name] += np.array(counts, dtype=np.int64)
    features = {name: counts.tolist() for name, counts in total.items()}
    return {"schema": SCHEMA, "size": size, "n": sum(part["n"] for part in parts), "range": [0.0, 1.0]} | {
        "features": features
    }


def main() -> None:
    """Entry point: the histogram file of a folder, as an app would send it."""
    parser = argparse.ArgumentParser(prog="python -m tasks.features")
    parser.add_argument("--student", required=True, help="a name under `students:` in params.yaml")
    parser.add_argument("--folder", type=Path, required=True, help="photos and videos")
    parser.add_argument("--out", type=Path, required=True, help="the histogram file to write")
    arguments = parser.parse_args()

    def work() -> None:
        from tasks.recent import read_recent

        params = load_params()
        size = params.student(arguments.student).pairs.size
        sample = read_recent(arguments.folder, params.ingest, size, MAX_COUNTED, params.drift.seed)
        write_json(arguments.out, histograms(plain_features(sample.squares), size))
        print(f"features: {len(sample.squares)} pictures counted in {arguments.out}; set aside {sample.set_aside}")

    guarded("features", work, arguments.student)


if __name__ == "__main__":
    main()
