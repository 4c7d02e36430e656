"""Have the inputs the app sees left those the student was taught on? Compares recent ones with the training split.

Reads a folder of recent photos and videos (or of histogram files, tasks/features.py), data/inputs and, for what the
student itself sees, data/students/NAME/student. Writes data/.work/NAME/drift.json (DriftResult): a fact about a
day, not an output of the pipeline. What the figures mean and how often they err: docs/decisions/0006-drift.md.

Command: python -m tasks.drift --student NAME [--folder FOLDER]
"""

import argparse
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from tasks import two_sample
from tasks.features import BINS, FEATURES, Features, count, encoder_features, plain_features
from tasks.files import write_json
from tasks.params import Params, load_params
from tasks.recent import Sample, need_folder, pictures_in, read_histograms, read_recent, read_training
from tasks.records import Record
from tasks.stage import STUDENTS, guarded, locked, work_folder
from tasks.stage_params import Drift

Values = npt.NDArray[np.float64]
Kind = Literal["pictures", "histograms"]

MIN_TRAINING = 5  # independent training pictures: fewer are no distribution
COUNT_DRAWS = 20_000  # p-values of several features are corrected, so each must be able to be small
COMPONENTS = 8  # of the encoder's features: about as many as plain ones; all of them hid what moved (decision 6)
DIGITS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftResult(Record):
    """What a comparison found; `judged` is false, and `drifted` too, where there was too little to compare."""

    student: str
    kind: Kind
    seen_by: str  # "encoder": the student's, beside the plain features; "plain": these alone
    n_recent: int  # independent ones
    n_training: int
    distance: float | None  # 0 is alike, 1 is no overlap: two_sample.told_apart, or the largest KS of histograms
    p_value: float | None
    judged: bool
    drifted: bool  # p_value <= max_p_value and distance >= min_distance
    told: str  # in words
    digest: str  # of the recent set: the same set gives the same digest
    set_aside: dict[str, int]  # recent files that could not be used, by kind of reason
    features: dict[str, dict[str, float]]  # of each plain feature: both medians, KS distance, corrected p-value


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The outcome of the tests, before it is judged."""

    distance: float
    p_value: float
    features: dict[str, dict[str, float]]


def drift(params: Params, name: str, folder: Path) -> DriftResult:
    """Compare what lies in `folder` with the training split; UserError for a missing folder or damaged inputs.

    Pictures count before histogram files where both are there.
    """
    rules, size = params.drift, params.student(name).pairs.size
    training = read_training(size, rules.max_inputs, rules.seed)
    if pictures_in(need_folder(folder)):
        recent = read_recent(folder, params.ingest, size, rules.max_inputs, rules.seed)
        n, digest, set_aside = len(recent.squares), recent.digest, recent.set_aside
        kind: Kind = "pictures"
    else:
        counts, digest, set_aside = read_histograms(folder, size)
        n, kind = counts["n"], "histograms"
    encoder = STUDENTS / name / "student"
    by_encoder = kind == "pictures" and (encoder / "student.json").is_file()
    found: Figures | None = None
    lacking = _lacking(n, len(training.squares), set_aside, rules)
    if not lacking and kind == "pictures":
        found = compare_pictures(recent, training, encoder if by_encoder else None, rules)
    elif not lacking:
        found = compare_histograms(counts, plain_features(training.squares), rules)
    judged, drifted, told = judge(found, rules) if found else (False, False, f"not judged: {lacking}")
    return DriftResult(
        student=name,
        kind=kind,
        seen_by="encoder" if by_encoder else "plain",
        n_recent=n,
        n_training=len(training.squares),
        distance=_finite(found.distance) if found else None,
        p_value=_finite(found.p_value) if found else None,
        judged=judged,
        drifted=drifted,
        told=told,
        digest=digest,
        set_aside=set_aside,
        features=found.features if found else {},
    )


def _lacking(n: int, training: int, set_aside: Mapping[str, int], rules: Drift) -> str:
    """What keeps the comparison from being made, or ""."""
    if n < rules.min_inputs:
        unusable = ", ".join(f"{count} {kind}" for kind, count in set_aside.items())
        told = f"{n} independent recent inputs, drift.min_inputs is {rules.min_inputs}"
        return told + (f"; set aside: {unusable}" if unusable else "")
    if training < MIN_TRAINING:
        return f"{training} independent training inputs, {MIN_TRAINING} are needed: give ingest more photos"
    return ""


def _finite(value: float) -> float | None:
    return round(value, DIGITS) if math.isfinite(value) else None


def compare_pictures(recent: Sample, training: Sample, encoder: Path | None, rules: Drift) -> Figures:
    """`compare_features` of both samples' squares, with those of the student in `encoder`, if there is one."""
    squares = [*recent.squares, *training.squares]
    encoded = encoder_features(encoder, squares) if encoder else None
    return compare_features(plain_features(squares), encoded, len(recent.squares), rules)


def compare_features(plain: Features, encoded: Values | None, n: int, rules: Drift) -> Figures:
    """The first `n` pictures against the others, by plain (N,) and encoder (N,C) features.

    One MMD of both, whose kernels are added, and the KS distance of each plain feature, for the words.
    """
    kernel = two_sample.rbf_kernel(np.stack(list(plain.values()), axis=1))
    if encoded is not None:
        kernel = kernel + two_sample.rbf_kernel(two_sample.principal_components(encoded, COMPONENTS))
    return Figures(
        distance=two_sample.told_apart(kernel, n),
        p_value=two_sample.permutation_p_value(kernel, n, rules.permutations, rules.seed),
        features=_each_feature(plain, n),
    )


def _each_feature(plain: Features, n: int) -> dict[str, dict[str, float]]:
    from scipy.stats import ks_2samp

    tests = [ks_2samp(values[:n], values[n:], method="asymp") for values in plain.values()]
    medians = {name: (float(np.median(values[:n])), float(np.median(values[n:]))) for name, values in plain.items()}
    return _rows(medians, [float(test.statistic) for test in tests], [float(test.pvalue) for test in tests])


def _rows(
    medians: Mapping[str, tuple[float, float]], ks: list[float], p_values: list[float]
) -> dict[str, dict[str, float]]:
    columns = zip(medians.items(), ks, two_sample.holm(p_values), strict=True)
    return {
        name: {
            "recent_median": round(recent, DIGITS),
            "training_median": round(training, DIGITS),
            "ks": round(statistic, DIGITS),
            "p_value": round(p_value, DIGITS),
        }
        for (name, (recent, training)), statistic, p_value in columns
    }


def compare_histograms(recent: Mapping[str, Any], plain: Features, rules: Drift) -> Figures:
    """KS of each plain feature on its bins; the largest distance, and the smallest corrected p-value."""
    pairs = {name: (np.array(recent["features"][name]), count(plain[name])) for name in FEATURES}
    ks = [float(two_sample.ks_of_counts(new, old)) for new, old in pairs.values()]
    p_values = [two_sample.counts_p_value(new, old, COUNT_DRAWS, rules.seed) for new, old in pairs.values()]
    medians = {name: (_median(new), _median(old)) for name, (new, old) in pairs.items()}
    return Figures(distance=max(ks), p_value=min(two_sample.holm(p_values)), features=_rows(medians, ks, p_values))


def _median(counts: npt.NDArray[np.int64]) -> float:
    """The middle of the bin in which the median lies."""
    middle = int(np.searchsorted(np.cumsum(counts), counts.sum() / 2))
    return (middle + 0.5) / BINS


def judge(found: Figures, rules: Drift) -> tuple[bool, bool, str]:
    """Whether it could be judged, whether it is drift, and why, in words; NaN is neither drift nor its absence."""
    if not (math.isfinite(found.distance) and math.isfinite(found.p_value)):
        return False, False, "not judged: the comparison gave NaN; look at the inputs and the student"
    figures = f"distance {found.distance:.2f}, p {found.p_value:.3g}"
    if found.p_value > rules.max_p_value:
        return True, False, f"no drift ({figures})"
    moved = "; ".join(what_moved(found.features, rules.max_p_value)) or "content or texture, none of the plain figures"
    if found.distance < rules.min_distance:
        return True, False, f"a small change ({figures}, drift.min_distance is {rules.min_distance:g}): {moved}"
    return True, True, f"drift ({figures}): {moved}"


def by_distance(features: Mapping[str, Mapping[str, float]]) -> list[tuple[str, Mapping[str, float]]]:
    """The features and their figures, the farthest first."""
    return sorted(features.items(), key=lambda item: -item[1]["ks"])


def what_moved(features: Mapping[str, Mapping[str, float]], max_p_value: float) -> list[str]:
    """The features that moved, in words, the farthest first."""
    return [_words(name, figures) for name, figures in by_distance(features) if figures["p_value"] <= max_p_value]


def _words(name: str, figures: Mapping[str, float]) -> str:
    new, old = figures["recent_median"], figures["training_median"]
    if new == old:
        return f"{name} spread otherwise around {old:.2f}"
    word = FEATURES[name].rises if new > old else FEATURES[name].falls
    return f"{word} ({name}: median {old:.2f} -> {new:.2f})"


def table(result: DriftResult) -> Table:
    """The plain features, a row each, the farthest first."""
    shown = Table(title=f"{result.n_recent} recent inputs of {result.student} against {result.n_training} of training")
    for column in ("feature", "training", "recent", "KS", "p"):
        shown.add_column(column, justify="left" if column == "feature" else "right")
    for name, row in by_distance(result.features):
        figures = (row["training_median"], row["recent_median"], row["ks"], row["p_value"])
        shown.add_row(name, *(f"{figure:.3f}" for figure in figures))
    return shown


def measure_drift(params: Params, name: str, folder: Path) -> DriftResult:
    """`drift`, written to data/.work/NAME/drift.json."""
    work = work_folder(name)
    with locked(work / "drift.lock"):
        result = drift(params, name, folder)
        write_json(work / "drift.json", result.to_json())
    return result


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m tasks.drift")
    parser.add_argument("--student", required=True, help="a name under `students:` in params.yaml")
    parser.add_argument("--folder", type=Path, help="recent photos or histogram files; drift.folder if left out")
    arguments = parser.parse_args()

    def work() -> None:
        params = load_params()
        result = measure_drift(params, arguments.student, arguments.folder or Path(params.drift.folder))
        if result.features:
            Console().print(table(result))
        print(f"{result.student}: {result.told}")

    guarded("drift", work, arguments.student)


if __name__ == "__main__":
    main()
