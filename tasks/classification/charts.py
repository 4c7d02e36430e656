"""Charts of a classifier's report as themed SVGs: how its confidence keeps its word, and how it learnt."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tasks.charts import COLOURS, INK, SIZE, themed_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Json = Mapping[str, Any]

LEAST_AREA, MOST_AREA = 6.0, 80.0  # of a dot, in square points: a dot of few examples is chance, and small
# Of a line of the curve, the keys that are shares, with their names.
CURVES = {"val_accuracy": "accuracy", "val_agreement": "agreement with the teacher"}


def calibration_svg(bins: Mapping[str, Sequence[Json]]) -> str:
    """Accuracy over confidence of each contestant by name, over how many examples have which confidence."""
    return themed_svg(lambda: draw_calibration(bins))


def draw_calibration(bins: Mapping[str, Sequence[Json]]) -> "Figure":
    """The chart of `calibration_svg`; a dot is as large as its bin is full, and an empty bin has none."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(SIZE[0], SIZE[1] * 1.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], "--", color=INK, linewidth=0.8, alpha=0.6)
    for index, (name, told) in enumerate(bins.items()):
        filled = [one for one in told if one["count"]]
        total = sum(one["count"] for one in told)
        places = ([one["confidence"] for one in filled], [one["accuracy"] for one in filled])
        areas = [LEAST_AREA + MOST_AREA * one["count"] / total for one in filled]
        upper.plot(*places, ("-", ":")[index % 2], color=COLOURS[index], alpha=0.35)
        upper.scatter(*places, areas, color=COLOURS[index], marker="os"[index % 2], alpha=0.8, label=name)
        shares = [one["count"] / total for one in told]
        edges = [told[0]["low"], *(one["high"] for one in told)]
        lower.stairs(shares, edges, color=COLOURS[index], fill=index == 0, alpha=0.5 if index == 0 else 1.0)
    upper.set(title="Accuracy by confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
    upper.legend(loc="lower right")
    lower.set(xlabel="confidence", ylabel="examples")
    lower.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    return figure


def validation_svg(curve: Sequence[Json]) -> str:
    """Accuracy and agreement on the validation examples by step."""
    return themed_svg(lambda: draw_validation(curve))


def draw_validation(curve: Sequence[Json]) -> "Figure":
    """The chart of `validation_svg`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.add_subplot()
    for index, (key, name) in enumerate(CURVES.items()):
        lines = [line for line in curve if key in line]
        if lines:
            steps, values = [line["step"] for line in lines], [line[key] for line in lines]
            axes.plot(steps, values, "o-", color=COLOURS[index], markersize=3.5, label=f"{name} {values[-1]:.3f}")
    axes.set(title="Validation examples", xlabel="step", xlim=(0, None))
    if axes.lines:
        axes.legend(loc="lower right")
    return figure
