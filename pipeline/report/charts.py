"""Line charts as SVG for inlining: precision and recall, both tasks over the epochs, losses, and calibration.

Drawn with Matplotlib's objects alone (no pyplot, no global figure), without dates or random ids: equal data give equal
text. No name from outside is drawn, because Matplotlib reads dollar signs as formulas; names stand around a chart.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Final

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.metrics.classification import CalibrationBins, calibration_bins
from pipeline.report.parts import MODELS, DomainReport
from pipeline.report.wording import percent

INK: Final = "#0a0b01"  # stand-ins that become CSS
GRID: Final = "#0a0b02"
CSS_OF_COLOUR: Final = {INK: "currentColor", GRID: "var(--grid)"}
FONT_SIZE: Final = 10  # points; on the page all text grows and shrinks with the chart
FOR_A_FILE_ONLY: Final = (
    r"<metadata>.*?</metadata>\s*",
    r"<defs>\s*<style.*?</style>\s*</defs>\s*",  # would apply to the whole page
    r' id="[A-Za-z][A-Za-z0-9.]*_\d+"',  # figure_1, axes_1, ...: alike in every chart
    r' (?:width|height)="[\d.]+pt"',
    r' xmlns(?::xlink)?="[^"]*"| version="1.1"',
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Line:
    """One line of a chart.

    Attributes:
        x: float (N,).
        y: float (N,).
        css_colour: any CSS colour, such as `var(--teacher)`.
        dashed: tells lines apart without colour, as `dots` does.
        dots: float (N,), the area of a dot on each point, in square points; None draws the line alone.
    """

    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    css_colour: str
    dashed: bool
    dots: npt.NDArray[np.float64] | None = None


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What an axis says. `limits` of None fits the data; `whole` asks for whole numbers, as of epochs."""

    title: str
    limits: tuple[float, float] | None
    whole: bool = False


def draw_lines(lines: Sequence[Line], *, x: Axis, y: Axis, inches: tuple[float, float], name: str) -> str:
    """Draw lines as an `<svg>` element that fills the width it is given.

    Args:
        lines: drawn in this order, the last on top.
        x: the horizontal axis.
        y: the vertical axis.
        inches: width and height; text keeps its size, so a larger chart has smaller text once it fills its place.
        name: unique within a page; the ids inside the SVG depend on it and on the data alone.
    """
    settings = mpl.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": name,
            "font.size": FONT_SIZE,
            "axes.edgecolor": GRID,
            "axes.labelcolor": INK,
            "text.color": INK,
            "xtick.color": INK,
            "ytick.color": INK,
        }
    )
    with settings:
        figure = Figure(figsize=inches, layout="constrained")
        figure.patch.set_visible(False)
        axes = figure.add_subplot()
        for index, line in enumerate(lines):
            _draw_line(axes, line, colour=_stand_in(index))
        _set_axes(axes, x=x, y=y)
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    colours = CSS_OF_COLOUR | {_stand_in(index): line.css_colour for index, line in enumerate(lines)}
    return _for_inlining(text.getvalue(), css_of_colour=colours)


def _draw_line(axes: Axes, line: Line, *, colour: str) -> None:
    """Draw a line, thinner where it has dots, and as a dot where it has one point only."""
    alone = len(line.x) == 1 and line.dots is None
    axes.plot(
        line.x,
        line.y,
        color=colour,
        linestyle=(0, (4, 2)) if line.dashed else "solid",
        linewidth=1.8 if line.dots is None else 1.2,
        marker="o" if alone else "none",
        markersize=4,
    )
    if line.dots is not None:
        axes.scatter(line.x, line.y, s=line.dots, color=colour, linewidths=0, zorder=3)


def _set_axes(axes: Axes, *, x: Axis, y: Axis) -> None:
    axes.patch.set_visible(False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=5)
    axes.set_xlabel(x.title)
    axes.set_ylabel(y.title)
    if x.limits is not None:
        axes.set_xlim(x.limits)
    if y.limits is not None:
        axes.set_ylim(y.limits)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=x.whole))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=y.whole))


def _stand_in(index: int) -> str:
    return f"#0b{index:02x}0b"


def _for_inlining(svg: str, *, css_of_colour: Mapping[str, str]) -> str:
    """Strip what only a file of its own needs, and hand colours, font and size over to the page."""
    svg = svg[svg.index("<svg") :]
    for pattern in FOR_A_FILE_ONLY:
        svg = re.sub(pattern, "", svg, flags=re.DOTALL)
    svg = re.sub(r'font-family: [^;"]*', "font-family: inherit", svg)
    svg = svg.replace("xlink:href", "href")
    svg = svg.replace("<svg", '<svg aria-hidden="true" focusable="false"', 1)
    for stand_in, css in css_of_colour.items():
        svg = svg.replace(stand_in, css)
    return svg.strip()


WIDE_CHART: Final = (4.2, 2.9)  # inches
SQUARE_CHART: Final = (4.2, 3.9)
SMALL_CHART: Final = (3.4, 2.4)
UNIT: Final = (0.0, 1.02)
DOT: Final = 10.0  # square points
LARGEST_DOT: Final = 220.0  # of all images in one bin
MUTED: Final = "var(--muted)"

TASKS: Final = {"val_pxap": "localization, PxAP", "val_accuracy": "classification, accuracy"}
HISTORY_CHARTS: Final = {
    "image_loss": "Image loss, training",
    "pixel_loss": "Pixel loss, training",
    "train_accuracy": "Accuracy, training",
    "val_loss": "Image loss, validation",
}


@dataclass(frozen=True, kw_only=True)
class Legend:
    """A line's entry in a legend."""

    name: str
    colour: str
    dashed: bool
    dotted: bool = False


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart with its title, what it says in words, and its legend in the order of the lines."""

    title: str
    description: str
    legend: tuple[Legend, ...]
    svg: str


def precision_recall_charts(domains: list[DomainReport], curves: pd.DataFrame) -> list[Chart]:
    """Draw the curves of every domain that has any."""
    return [_precision_recall(domain, curves) for domain in domains if domain.name in set(curves["domain"])]


def _precision_recall(domain: DomainReport, curves: pd.DataFrame) -> Chart:
    """Draw a domain's two curves over the line that a map without knowledge reaches."""
    lines, legend, said = [], [], []
    for model, title in MODELS.items():
        rows = curves[(curves["domain"] == domain.name) & (curves["model"] == model)]
        pxap = percent(domain.scores[model]["pxap"])
        lines.append(_line(rows["recall"], rows["precision"], model=model))
        legend.append(_legend(f"{title} {pxap}", model=model))
        said.append(f"{title}'s area is {pxap}")
    share = domain.scores["pixelcam"]["foreground_share"]
    if share is not None:
        ends = np.array([0.0, 1.0])
        lines.insert(0, Line(x=ends, y=ends * 0 + share, css_colour=MUTED, dashed=True))
        legend.append(Legend(name=f"a map without knowledge {percent(share)}", colour=MUTED, dashed=True))
    return Chart(
        title=domain.name,
        description=f"Precision-recall curves on {domain.name}: {', '.join(said)} per cent.",
        legend=tuple(legend),
        svg=draw_lines(
            lines,
            x=Axis(title="recall", limits=UNIT),
            y=Axis(title="precision", limits=UNIT),
            inches=WIDE_CHART,
            name=f"precision_recall_{domain.name}",
        ),
    )


def convergence_chart(histories: Mapping[str, pd.DataFrame]) -> Chart | None:
    """Draw both tasks of both models over the same epochs, as they were validated; None where nothing was."""
    lines, legend, said = [], [], []
    for model, column, known in _known(histories, TASKS):
        dotted = column == "val_accuracy"
        dots = np.full(len(known), DOT) if dotted else None
        name = f"{MODELS[model]}, {TASKS[column]}"
        lines.append(_line(known["epoch"], known[column], model=model, dots=dots))
        legend.append(_legend(name, model=model, dotted=dotted))
        said.append(f"{name} from {percent(known[column].iloc[0])} to {percent(known[column].iloc[-1])}")
    if not lines:
        return None
    return Chart(
        title="Both tasks on validation images",
        description=f"Both tasks on validation images over the epochs, in per cent: {'; '.join(said)}.",
        legend=tuple(legend),
        svg=draw_lines(
            lines,
            x=Axis(title="epoch", limits=None, whole=True),
            y=Axis(title="PxAP, accuracy", limits=UNIT),
            inches=WIDE_CHART,
            name="convergence",
        ),
    )


def training_charts(histories: Mapping[str, pd.DataFrame]) -> list[Chart]:
    """Draw a chart per loss or rate that any history holds."""
    return [chart for column, title in HISTORY_CHARTS.items() if (chart := _training_chart(histories, column, title))]


def _training_chart(histories: Mapping[str, pd.DataFrame], column: str, title: str) -> Chart | None:
    lines, legend, said = [], [], []
    for model, _, known in _known(histories, (column,)):
        lines.append(_line(known["epoch"], known[column], model=model))
        legend.append(_legend(MODELS[model], model=model))
        said.append(f"{MODELS[model]} from {known[column].iloc[0]:.3g} to {known[column].iloc[-1]:.3g}")
    if not lines:
        return None
    return Chart(
        title=title,
        description=f"{title} over the epochs: {', '.join(said)}.",
        legend=tuple(legend),
        svg=draw_lines(
            lines,
            x=Axis(title="epoch", limits=None, whole=True),
            y=Axis(title="", limits=UNIT if column.endswith("accuracy") else None),
            inches=SMALL_CHART,
            name=f"training_{column}",
        ),
    )


def calibration_charts(domains: list[DomainReport], confidences: pd.DataFrame) -> list[Chart]:
    """Draw how often each model is right where it is how sure, with dots as large as the share of the images."""
    return [_calibration_chart(domain, confidences) for domain in domains if domain.name in set(confidences["domain"])]


def _calibration_chart(domain: DomainReport, confidences: pd.DataFrame) -> Chart:
    of_domain = confidences[confidences["domain"] == domain.name]
    rows = {model: of_domain[of_domain["model"] == model] for model in MODELS}
    return _reliability_chart(
        domain,
        {
            model: calibration_bins(
                confidence=of_model["confidence"].to_numpy(dtype=np.float64),
                correct=of_model["correct"].to_numpy(dtype=np.bool_),
            )
            for model, of_model in rows.items()
        },
        axes=("confidence", "accuracy"),
        diagonal="as sure as it is right",
        of="",
        name=f"reliability_{domain.name}",
    )


def pixel_calibration_charts(domains: list[DomainReport]) -> list[Chart]:
    """Draw how many pixels are foreground where each map says how much; a dot's size is the share of pixels."""
    return [_pixel_calibration_chart(domain) for domain in domains if _has_reliability(domain)]


def _has_reliability(domain: DomainReport) -> bool:
    return all(domain.scores[model].get("reliability") for model in MODELS)


def _pixel_calibration_chart(domain: DomainReport) -> Chart:
    bins = {model: [*domain.scores[model]["reliability"].values()] for model in MODELS}
    return _reliability_chart(
        domain,
        {
            model: CalibrationBins(
                **{
                    name: np.array([each[key] for each in of_model], dtype=np.float64)
                    for name, key in (("confidence", "map"), ("accuracy", "foreground"), ("share", "share"))
                }
            )
            for model, of_model in bins.items()
        },
        axes=("value of the map", "share of foreground"),
        diagonal="the map says what is there",
        of=" of the pixels",
        name=f"pixel_reliability_{domain.name}",
    )


def _reliability_chart(
    domain: DomainReport,
    bins: Mapping[str, CalibrationBins],
    *,
    axes: tuple[str, str],
    diagonal: str,
    of: str,
    name: str,
) -> Chart:
    """Draw the bins of each model over the diagonal."""
    ends = np.array([0.0, 1.0])
    lines = [Line(x=ends, y=ends, css_colour=MUTED, dashed=True)]
    legend, said = [], []
    for model, title in MODELS.items():
        found = bins[model]
        colour, dashed = f"var(--{model})", model == "teacher"
        dots = np.maximum(DOT, LARGEST_DOT * found.share)
        lines.append(Line(x=found.confidence, y=found.accuracy, css_colour=colour, dashed=dashed, dots=dots))
        legend.append(_legend(f"{title}, error {percent(found.error)}", model=model, dotted=True))
        said.append(f"{title}'s expected calibration error is {percent(found.error)}")
    legend.append(Legend(name=diagonal, colour=MUTED, dashed=True))
    return Chart(
        title=domain.name,
        description=f"Reliability diagram{of} on {domain.name}: {', '.join(said)} per cent.",
        legend=tuple(legend),
        svg=draw_lines(
            lines,
            x=Axis(title=axes[0], limits=(0.0, 1.04)),
            y=Axis(title=axes[1], limits=(-0.04, 1.04)),
            inches=SQUARE_CHART,
            name=name,
        ),
    )


def _known(
    histories: Mapping[str, pd.DataFrame], columns: "tuple[str, ...] | Mapping[str, str]"
) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield model, column and the epochs with a value, for each model and column that has any."""
    for model in MODELS:
        history = histories.get(model)
        for column in columns:
            if history is not None and column in history and history[column].notna().any():
                yield model, column, history[history[column].notna()]


def _line(x: pd.Series, y: pd.Series, *, model: str, dots: "np.ndarray | None" = None) -> Line:
    return Line(
        x=x.to_numpy(dtype=np.float64),
        y=y.to_numpy(dtype=np.float64),
        css_colour=f"var(--{model})",
        dashed=model == "teacher",
        dots=dots,
    )


def _legend(name: str, *, model: str, dotted: bool = False) -> Legend:
    return Legend(name=name, colour=f"var(--{model})", dashed=model == "teacher", dotted=dotted)
