"""Slices of the test inputs that hang on the inputs alone: the frozen panel, and clusters."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image
from scenes import scene

from tasks.clusters import LEAST
from tasks.files import sha256_bytes
from tasks.input_slices import SHOWN_SIDE, TYPICAL, cluster_strips, input_slices
from tasks.panel_inputs import PanelInput
from tasks.records import Verdict
from tasks.slices import named

SIZE, COUNT, CROPS = 32, 30, 2


def pictures(count: int = COUNT, first: int = 0) -> np.ndarray:
    """Dark plain ones, then bright noise: two kinds that nobody mistakes."""
    random = np.random.default_rng(first)
    dark = [scene(first + seed, SIZE, SIZE) // 4 for seed in range(count // 2)]
    noise = [random.integers(90, 256, (SIZE, SIZE, 3), np.uint8) for _ in range(count // 2)]
    return np.stack(dark + noise).astype(np.uint8)


TAUGHT = pictures(48, 1000)


def verdicts(count: int) -> list[Verdict]:
    """Two crops of each input."""
    return [
        Verdict(
            pair=sha256_bytes(f"pair {row}".encode()),
            split="test",
            rule="",
            reason="",
            index=row,
            input=sha256_bytes(f"input {row // CROPS}".encode()),
            seed=0,
        )
        for row in range(count)
    ]


def panel(rows: Sequence[int]) -> list[PanelInput]:
    about = verdicts(COUNT)
    return [
        PanelInput(origin=f"{row}.jpg", file="0" * 64, digest=about[row].input, hashes=("0" * 16, "0" * 16))
        for row in rows
    ]


def test_the_panel_is_a_slice_where_any_of_it_is_measured() -> None:
    inputs = pictures()
    found = input_slices(inputs, verdicts(COUNT), panel([0, 6]), TAUGHT)
    assert np.flatnonzero(found.masks["panel"]).tolist() == [0, 1, 6, 7]
    assert "panel" not in input_slices(inputs, verdicts(COUNT), [], TAUGHT).masks
    elsewhere = [PanelInput(origin="x", file="0" * 64, digest="f" * 64, hashes=("0" * 16, "0" * 16))]
    assert "panel" not in input_slices(inputs, verdicts(COUNT), elsewhere, TAUGHT).masks


def test_clusters_are_all_rows_and_show_what_is_typical_of_different_inputs() -> None:
    inputs, about = pictures(), verdicts(COUNT)
    found = input_slices(inputs, about, [], TAUGHT)
    assert list(found.masks) == list(found.typical) == ["cluster 1", "cluster 2"]
    assert (sum(mask.astype(int) for mask in found.masks.values()) == 1).all()
    for name, rows in found.typical.items():
        assert found.masks[name][rows].all() and 1 <= len(rows) <= TYPICAL
        assert len({about[row].input for row in rows}) == len(rows)
    columns = {"error": np.full(COUNT, 0.01), "change": np.arange(COUNT) / 100}
    slices = named(columns, found.masks)
    assert sum(one.samples for one in slices) == COUNT
    assert sum(one.change for one in slices) == np.round(columns["change"].sum(), 9)
    again = input_slices(inputs, about, [], TAUGHT)
    assert all((again.masks[name] == mask).all() for name, mask in found.masks.items())


def test_few_pictures_are_no_clusters() -> None:
    found = input_slices(pictures(), verdicts(COUNT), [], TAUGHT[: LEAST - 1])
    assert not found.masks and not found.typical and cluster_strips(pictures(), found) == {}


def test_what_is_typical_is_shown_side_by_side() -> None:
    inputs = pictures()
    found = input_slices(inputs, verdicts(COUNT), [], TAUGHT)
    for name, data in cluster_strips(inputs, found).items():
        strip = np.asarray(Image.open(io.BytesIO(data)))
        assert strip.shape == (SHOWN_SIDE, SHOWN_SIDE * len(found.typical[name]), 3)
        first = Image.fromarray(inputs[found.typical[name][0]]).resize((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.BOX)
        np.testing.assert_array_equal(strip[:, :SHOWN_SIDE], np.asarray(first))
