"""Means and deviations over seeds, in rows, cells and curves."""

from pathlib import Path

import pytest

from tasks.files import write_jsonl
from tasks.over_seeds import mean_curve, over_seeds, plus_minus


def test_a_row_has_the_mean_and_the_deviation_of_a_sample() -> None:
    assert over_seeds({"last": [0.1, 0.3]}) == {"last": 0.2, "last_sd": pytest.approx(0.141421)}
    assert over_seeds({"last": [0.25]}) == {"last": 0.25, "last_sd": None}


def test_a_cell_without_a_deviation_is_the_mean_alone() -> None:
    assert plus_minus(42.636, 1.84, 2) == "42.64 ± 1.84"
    assert plus_minus(42.636, None, 1) == "42.6"


def test_a_curve_is_the_mean_at_samples_seen(tmp_path: Path) -> None:
    for seed, values in enumerate(([0.2, 0.4], [0.4, 0.8])):
        lines = [{"step": 10, "loss": 1.0}, *({"step": 20 * (at + 1), "val": one} for at, one in enumerate(values))]
        write_jsonl(tmp_path / f"{seed}.jsonl", lines)
    found = mean_curve([tmp_path / "0.jsonl", tmp_path / "1.jsonl"], "val", 8)
    assert found == ([160, 320], pytest.approx([0.3, 0.6]))
    write_jsonl(tmp_path / "1.jsonl", [{"step": 20, "val": 0.4}])
    with pytest.raises(ValueError, match="shorter"):  # a training that is not whole is never a mean
        mean_curve([tmp_path / "0.jsonl", tmp_path / "1.jsonl"], "val", 8)
