"""Figures of one recipe that was trained with several seeds, as the tables of comparisons tell them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from tasks.files import read_jsonl


def over_seeds(values: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Of each figure the mean, and as FIGURE_sd the deviation, None of a single seed."""
    found: dict[str, Any] = {}
    for key, of_seeds in values.items():
        found[key] = round(mean(of_seeds), 6)
        found[f"{key}_sd"] = round(stdev(of_seeds), 6) if len(of_seeds) > 1 else None
    return found


def plus_minus(value: float, spread: float | None, digits: int) -> str:
    """A mean and its deviation as people read them; the mean alone where there is none."""
    return f"{value:.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}")


def mean_curve(files: Sequence[Path], key: str, batch_size: int) -> tuple[list[int], list[float]]:
    """Samples seen and the mean of a figure of the curves in some files, one a seed; lines without it are left out."""
    of_seeds = [[line for line in read_jsonl(file) if key in line] for file in files]
    values = [mean(line[key] for line in same) for same in zip(*of_seeds, strict=True)]
    return [line["step"] * batch_size for line in of_seeds[0]], values
