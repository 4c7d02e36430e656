"""tasks/features.py: plain figures of pictures that are known, histograms that add up, and what the encoder sees."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scenes import scene
from test_evaluate import SIZE, make_student

from models.errors import UserError
from tasks import features
from tasks.files import sha256_bytes, write_json


def flat(*colour: int) -> np.ndarray:
    return np.full((16, 16, 3), colour, dtype=np.uint8)


def figures(picture: np.ndarray) -> dict[str, float]:
    return {name: float(values[0]) for name, values in features.plain_features([picture]).items()}


def test_plain_figures_of_flat_pictures() -> None:
    black, white, red = figures(flat(0, 0, 0)), figures(flat(255, 255, 255)), figures(flat(255, 0, 0))
    assert black == pytest.approx(
        {"luma": 0, "contrast": 0, "chroma": 0, "warmth": 0.5, "detail": 0, "shadows": 1, "highlights": 0}
    )
    assert white["luma"] == pytest.approx(1) and white["highlights"] == 1 and white["shadows"] == 0
    assert red["chroma"] == 1 and red["warmth"] == 1 and red["luma"] == pytest.approx(0.299)
    assert figures(flat(0, 0, 255))["warmth"] == 0


def test_contrast_and_detail_reach_the_top_and_no_further() -> None:
    board = np.where((np.indices((16, 16)).sum(axis=0) % 2)[..., None], 255, 0).astype(np.uint8).repeat(3, axis=2)
    assert figures(board)["contrast"] == pytest.approx(1)
    assert figures(board)["detail"] == 1
    noise = np.random.default_rng(0).normal(0, 12, (64, 80, 3))
    smooth = scene(1)
    assert figures(np.clip(smooth + noise, 0, 255).astype(np.uint8))["detail"] > figures(smooth)["detail"] + 0.2


def test_every_figure_lies_in_the_bins() -> None:
    pictures = [scene(seed) for seed in range(5)] + [flat(0, 0, 0), flat(255, 255, 255)]
    found = features.plain_features(pictures)
    assert list(found) == list(features.FEATURES)
    for values in found.values():
        assert values.shape == (7,) and values.min() >= 0 and values.max() <= 1
        assert features.count(values).sum() == 7


def test_the_square_is_cut_about_the_centre() -> None:
    wide = np.zeros((20, 60, 3), dtype=np.uint8)
    wide[:, 20:40] = 200
    assert (features.centre_square(wide, 10) == 200).all()


def test_histograms_of_parts_add_up_to_those_of_the_whole() -> None:
    pictures = [scene(seed) for seed in range(8)]
    whole = features.histograms(features.plain_features(pictures), 64)
    parts = [features.histograms(features.plain_features(some), 64) for some in (pictures[:3], pictures[3:])]
    sent = [features.check_histograms(json.loads(json.dumps(part)), 64) for part in parts]
    assert features.merge_histograms(sent, 64) == whole
    assert whole["n"] == 8
    assert features.merge_histograms([], 64)["n"] == 0


def test_a_histogram_file_holds_counts_and_nothing_of_the_pictures() -> None:
    made = features.histograms(features.plain_features([scene(1)]), 64)
    assert made.keys() == {"schema", "size", "n", "range", "features"}
    assert all(len(counts) == features.BINS and sum(counts) == 1 for counts in made["features"].values())


def spoilt(**changes: Any) -> dict[str, Any]:
    return features.histograms(features.plain_features([scene(1), scene(2)]), 64) | changes


ZEROS = {name: [0] * features.BINS for name in features.FEATURES}
NEGATIVE = {name: [3, -1] + [0] * (features.BINS - 2) for name in features.FEATURES}
FRACTIONS = {name: [1.5, 0.5] + [0] * (features.BINS - 2) for name in features.FEATURES}


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ([], "schema"),
        ({"schema": features.SCHEMA}, "schema"),
        (spoilt(schema="understudy-histograms/0"), "schema"),
        (spoilt(pixels="AAAA"), "schema"),
        (spoilt(size=128), "128 pixels"),
        (spoilt(n=10**9), "n must be"),
        (spoilt(n=True), "n must be"),
        (spoilt(n=3), "sum to n"),
        (spoilt(features=ZEROS), "sum to n"),
        (spoilt(features=NEGATIVE), "counts"),
        (spoilt(features=FRACTIONS), "counts"),
        (spoilt(features={"luma": [2] + [0] * (features.BINS - 1)}), "must count"),
        (spoilt(features=[1]), "must count"),
    ],
)
def test_other_files_are_refused_with_the_reason(value: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        features.check_histograms(value, 64)


def test_encoder_features_are_a_row_a_picture_whatever_the_batch(tmp_path: Path) -> None:
    make_student(tmp_path / "student")
    pictures = [features.centre_square(scene(seed), SIZE) for seed in range(features.BATCH + 2)]
    found = features.encoder_features(tmp_path / "student", pictures)
    assert len(found) == len(pictures) and found.ndim == 2 and found.shape[1] > 8
    alone = features.encoder_features(tmp_path / "student", pictures[-1:])
    assert alone[0] == pytest.approx(found[-1], abs=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-4


def test_an_encoder_that_gives_nan_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import load, save

    folder = tmp_path / "student"
    make_student(folder)
    weights = {name: np.array(value) for name, value in load((folder / "weights.safetensors").read_bytes()).items()}
    weights["encoder.conv_stem.weight"][:] = np.nan
    data = save(weights)
    (folder / "weights.safetensors").write_bytes(data)
    record = json.loads((folder / "student.json").read_text())
    write_json(folder / "student.json", record | {"weights_sha256": sha256_bytes(data)})
    with pytest.raises(UserError, match="gives NaN"):
        features.encoder_features(folder, [features.centre_square(scene(1), SIZE)])
