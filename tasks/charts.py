"""Pictures a report is made of: training curves and the sample sheet; the same data gives the same bytes.

Curves are drawn twice: as SVG for the report (transparent, following the reader's light or dark mode) and as
one PNG for MLflow. No pyplot, so no global state and no display.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

Pictures = npt.NDArray[np.uint8]
Line = Mapping[str, Any]
Plot = Callable[["Axes", Sequence[Line]], None]

DARK = "#2b2d33"
INK = "#123456"  # stands for the text colour; replaced in the SVG, where the reader's mode decides
COLOURS = ("#2f7fc1", "#d9772b", "#2f9e6e", "#9a63cf", "#cf4f6c", "#8a8f3a", "#4aa3a8", "#b0703a")
STYLE: dict[str, Any] = {
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.18,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "svg.hashsalt": "understudy",  # otherwise ids are drawn at random
}
INKED = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color")
THEME = "<style>svg{color:#2b2d33}@media(prefers-color-scheme:dark){svg{color:#d7d9de}}</style>"
SIZE = (4.3, 3.0)  # inches a chart: its text stays legible on a phone
SPANS = 4  # times the least latency, from which on a logarithm shows both ends
GAP = 12  # pixels between the sample sheet's pictures


def style(ink: str) -> Any:
    """Matplotlib settings with all text and lines of the axes in `ink`."""
    return STYLE | dict.fromkeys(INKED, ink)


def smooth(values: Sequence[float], span: int = 9) -> npt.NDArray[np.float64]:
    """Centred moving average of at most `span` values, shorter at both ends; as long as `values`."""
    span = min(span, len(values)) | 1
    kernel = np.ones(span)
    counts = np.convolve(np.ones(len(values)), kernel, mode="same")
    return np.asarray(np.convolve(np.asarray(values, dtype=np.float64), kernel, mode="same") / counts)[: len(values)]


def number_logarithms(axis: "Axis") -> None:
    """Plain numbers at 1, 2 and 5 of each power of ten on a logarithmic axis."""
    from matplotlib.ticker import LogLocator

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter("")


def plot_losses(axes: "Axes", curve: Sequence[Line]) -> None:
    """Training loss and its unweighted parts on a log scale, with the validation L1 as dots."""
    from matplotlib import rcParams

    train = [line for line in curve if "loss" in line]
    steps = [line["step"] for line in train]
    series = {"total (weighted)": [line["loss"] for line in train]}
    for name in train[0]["losses"] if train else ():
        series[name] = [line["losses"][name] for line in train]
    for index, (name, values) in enumerate(series.items()):
        colour = COLOURS[(index - 1) % len(COLOURS)] if index else rcParams["text.color"]
        axes.plot(steps, values, color=colour, alpha=0.22, linewidth=0.7)
        axes.plot(steps, smooth(values), color=colour, label=name)
    validation = [line for line in curve if "val_l1" in line]
    if validation:
        dots = ([line["step"] for line in validation], [line["val_l1"] for line in validation])
        axes.plot(*dots, "o", color=COLOURS[4], markersize=3.5, label="L1, validation")
    axes.set_yscale("log")
    number_logarithms(axes.yaxis)
    axes.set(title="Losses", xlabel="step")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)


def plot_validation(axes: "Axes", curve: Sequence[Line]) -> None:
    """Explained effect on the validation pairs."""
    lines = [line for line in curve if "val_explained_effect" in line]
    steps, values = [line["step"] for line in lines], [line["val_explained_effect"] for line in lines]
    axes.plot(steps, values, "o-", color=COLOURS[0], markersize=3.5)
    axes.set(title="Explained effect, validation", xlabel="step", xlim=(0, None))
    if lines:
        axes.set_ylim(min(0.0, *values), 1.0)
        place = (steps[-1], values[-1])
        axes.annotate(f"{values[-1]:.3f}", place, xytext=(0, 7), textcoords="offset points", ha="right")


PLOTS: dict[str, Plot] = {"losses": plot_losses, "validation": plot_validation}


def draw(plots: Sequence[Plot], curve: Sequence[Line]) -> "Figure":
    """The plots side by side in one figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(SIZE[0] * len(plots), SIZE[1]), layout="constrained")
    for column, plot in enumerate(plots):
        plot(figure.add_subplot(1, len(plots), column + 1), curve)
    return figure


def curve_svg(name: str, curve: Sequence[Line]) -> str:
    """One of PLOTS as a themed SVG document."""
    return themed_svg(lambda: draw([PLOTS[name]], curve))


def themed_svg(drawn: "Callable[[], Figure]") -> str:
    """A figure as an SVG document whose text and lines have the colour of the reader's mode."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context(style(INK)):
        drawn().savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue().replace(INK, "currentColor")
    end = text.index(">", text.index("<svg")) + 1
    return text[:end] + THEME + text[end:]


def curve_png(curve: Sequence[Line]) -> bytes:
    """All of PLOTS as one PNG on white."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context(style(DARK)):
        figure = draw(list(PLOTS.values()), curve)
        figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


def pareto_png(
    rows: Sequence[Line],
    title: str,
    latency: str = "latency, ms (LiteRT, p50, one thread)",
    quality: tuple[str, str] = ("explained_effect", "explained effect"),
) -> bytes:
    """Quality over latency of every student's files as a PNG on white, their Pareto front joined.

    A row has student, precision, litert_ms, front and, under the first name of `quality`, how good it is; the second is
    what the axis says. The row that has knee is ringed. Students are numbered, as names would lie on each
    other; latency is by its logarithm where it spans much.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    key, shown = quality
    numbers = {name: index + 1 for index, name in enumerate(dict.fromkeys(row["student"] for row in rows))}
    buffer = io.BytesIO()
    with rc_context(style(DARK)):
        figure = Figure(figsize=(8.6, 4.4), layout="constrained")
        axes = figure.add_subplot()
        best = sorted((row["litert_ms"], row[key]) for row in rows if row["front"])
        if best:
            axes.step(*zip(*best, strict=True), where="post", color=COLOURS[2], label="Pareto front", zorder=1)
        for index, precision in enumerate(dict.fromkeys(row["precision"] for row in rows)):
            mine = [row for row in rows if row["precision"] == precision]
            places = ([row["litert_ms"] for row in mine], [row[key] for row in mine])
            axes.plot(*places, "o", color=COLOURS[index], label=precision)
            for row, x, y in zip(mine, *places, strict=True):
                number = str(numbers[row["student"]])
                axes.annotate(number, (x, y), xytext=(4, 4), textcoords="offset points", fontsize=7.5)
        for row in rows:
            if row.get("knee"):
                ring = axes.scatter(row["litert_ms"], row[key], s=150, linewidths=1.6, label="knee")
                ring.set(facecolor="none", edgecolor=COLOURS[1])
        times = [row["litert_ms"] for row in rows]
        if times and max(times) > SPANS * min(times):
            axes.set_xscale("log")
            number_logarithms(axes.xaxis)
        axes.set(title=title, xlabel=latency, ylabel=shown)
        axes.margins(x=0.08, y=0.08)
        axes.legend(loc="lower right")
        names = [f"{number}  {name}" for name, number in numbers.items()]
        unseen = [Line2D([], [], linestyle="none") for _ in names]
        figure.legend(unseen, names, loc="outside right center", fontsize=7.5, handlelength=0, handletextpad=0)
        figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


def curves_png(
    curves: Mapping[str, tuple[Sequence[int], Sequence[float]]],
    title: str,
    quality: str = "explained effect, validation",
) -> bytes:
    """Quality over samples seen, a line for each name, as a PNG on white."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    with rc_context(style(DARK)):
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        axes = figure.add_subplot()
        for index, (name, (samples, effects)) in enumerate(curves.items()):
            line = ("-", "--", ":")[index // len(COLOURS) % 3]
            axes.plot(samples, effects, line, color=COLOURS[index % len(COLOURS)], label=name)
        axes.set(title=title, xlabel="training samples seen", ylabel=quality)
        figure.legend(loc="outside right center", fontsize=7.5)  # beside it, as lines may end anywhere
        figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


def png(picture: Pictures) -> bytes:
    """(H,W,3) uint8 as a PNG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def sample_sheet(rows: Mapping[str, Mapping[str, Pictures]], titles: Mapping[str, str]) -> bytes:
    """A PNG with a row for each band (best, median, worst) and a titled column for each panel."""
    from PIL import Image, ImageDraw, ImageFont

    columns = list(next(iter(rows.values())))
    side = next(iter(rows.values()))[columns[0]].shape[0]
    left, top, step = 84, 36, side + GAP
    sheet = Image.new("RGB", (left + step * len(columns), top + step * len(rows)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=16)
    for x, column in enumerate(columns):
        pen.text((left + x * step + side / 2, top / 2), titles[column], fill=DARK, font=font, anchor="mm")
    for y, (band, pictures) in enumerate(rows.items()):
        pen.text((left / 2 - 4, top + y * step + side / 2), band, fill=DARK, font=font, anchor="mm")
        for x, column in enumerate(columns):
            sheet.paste(Image.fromarray(pictures[column]), (left + x * step, top + y * step))
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
