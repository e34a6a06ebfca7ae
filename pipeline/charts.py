"""Line charts as SVG for inlining: their colours are CSS variables of the page, so that they follow light and dark.

Drawn with Matplotlib's objects alone (no pyplot, no global figure), without dates or random ids: equal data give equal
text. No name from outside is drawn, because Matplotlib reads dollar signs as formulas; names stand around a chart.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Final

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

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
