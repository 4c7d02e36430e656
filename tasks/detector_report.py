"""What the report tells of the detector: rows for its table, and a chart of scores as a themed SVG. Reads nothing."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tasks.charts import COLOURS, INK, themed_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Json = Mapping[str, Any]

USUAL = "test"
# Of each set its name, and what was done to the test inputs.
WORDS = {
    USUAL: ("Test inputs", "As they are: what scores above 1 here is a false alarm."),
    "night": ("Night", "Three and a half stops less light, a little out of focus, noisy."),
    "noise": ("Noise", "Noise of a sensor in a dark room."),
    "static": ("Pure noise", "Every value drawn at random."),
    "covered": ("Covered lens", "Nearly black, with the noise that is left."),
    "grey": ("Grey", "Without colour."),
    "outlines": ("Ink drawing", "The strongest edges, black on white."),
    "flat_colours": ("Flat colours", "Small things gone, four levels a channel."),
    "close": ("Very close", "A tenth of the side, enlarged until it is blurred."),
    "far": ("Far away", "A quarter of the side, with its mirror images around it."),
    "inverted": ("Negative", "Every value turned round."),
    "upside_down": ("Upside down", "Turned by half a turn, which is hardly a shift to a student."),
    "line_art": ("Line art and print", "A silhouette, print and handwriting, not made of the test inputs."),
}
DASH = "\N{EN DASH}"
CHART = (500, 505)  # pixels
LOW = 0.1  # the least score that the chart shows


def detector_rows(detector: Json) -> list[dict[str, Any]]:
    """Each shifted set with its name, its meaning and its figures as text, the worst told first."""
    rows = sorted(detector["sets"], key=lambda one: (one["auroc"], one["name"]))
    return [
        {
            "name": WORDS[one["name"]][0],
            "meaning": WORDS[one["name"]][1],
            "cells": {
                "auroc": f"{one['auroc']:.3f}",
                "interval": DASH.join(f"{end:.2f}" for end in one["auroc_interval"] or ()) or DASH,
                "fpr_at_95": f"{one['fpr_at_95']:.2f}",
                "fades": f"{one['fades']:.0%}",
                "passes": f"{one['passes']:.0%}",
                **{way: f"{value:.3f}" for way, value in one["baselines"].items()},
            },
        }
        for one in rows
    ]


def scores_svg(detector: Json) -> str:
    """Scores of the test inputs and of each shifted set, a line of dots each, over the two thresholds."""
    return themed_svg(lambda: draw_scores(detector))


def draw_scores(detector: Json) -> "Figure":
    """The chart of `scores_svg`."""
    from matplotlib.figure import Figure

    sets = [USUAL, *(one["name"] for one in sorted(detector["sets"], key=lambda one: -one["auroc"]))]
    figure = Figure(figsize=(CHART[0] / 96, CHART[1] / 96), layout="constrained")
    axes = figure.add_subplot()
    for place, name in enumerate(reversed(sets)):
        scores = [max(LOW, score) for score in detector["scores"][name]]
        colour = COLOURS[0] if name == USUAL else COLOURS[1]
        axes.plot(scores, [place] * len(scores), "|", color=colour, alpha=0.5, markersize=9, markeredgewidth=1.2)
    for score, words in ((1.0, "fades"), (detector["passes_at"], "gone")):
        axes.axvline(score, color=INK, linewidth=1.0, linestyle="--")
        axes.annotate(words, (score, len(sets) - 0.45), ha="center", fontsize=7.5, annotation_clip=False)
    axes.set_yticks(range(len(sets)), [WORDS[name][0] for name in reversed(sets)])
    axes.set(xlabel="score", ylim=(-0.6, len(sets) - 0.5))
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    return figure
