"""The report's charts: precision and recall, both tasks over the epochs, losses, and reliability."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from pipeline.charts import Axis, Line, draw_lines
from pipeline.reliability import reliability
from pipeline.report_parts import MODELS, DomainReport
from pipeline.verdicts import percent

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


def reliability_charts(domains: list[DomainReport], confidences: pd.DataFrame) -> list[Chart]:
    """Draw how often each model is right where it is how sure, with dots as large as the share of the images."""
    return [_reliability_chart(domain, confidences) for domain in domains if domain.name in set(confidences["domain"])]


def _reliability_chart(domain: DomainReport, confidences: pd.DataFrame) -> Chart:
    ends = np.array([0.0, 1.0])
    lines = [Line(x=ends, y=ends, css_colour=MUTED, dashed=True)]
    legend, said = [], []
    for model, title in MODELS.items():
        rows = confidences[(confidences["domain"] == domain.name) & (confidences["model"] == model)]
        bins = reliability(
            confidence=rows["confidence"].to_numpy(dtype=np.float64), correct=rows["correct"].to_numpy(dtype=np.bool_)
        )
        colour, dashed = f"var(--{model})", model == "teacher"
        dots = np.maximum(DOT, LARGEST_DOT * bins.share)
        lines.append(Line(x=bins.confidence, y=bins.accuracy, css_colour=colour, dashed=dashed, dots=dots))
        legend.append(_legend(f"{title}, error {percent(bins.error)}", model=model, dotted=True))
        said.append(f"{title}'s expected calibration error is {percent(bins.error)}")
    legend.append(Legend(name="as sure as it is right", colour=MUTED, dashed=True))
    return Chart(
        title=domain.name,
        description=f"Reliability diagram on {domain.name}: {', '.join(said)} per cent.",
        legend=tuple(legend),
        svg=draw_lines(
            lines,
            x=Axis(title="confidence", limits=(0.0, 1.04)),
            y=Axis(title="accuracy", limits=(-0.04, 1.04)),
            inches=SQUARE_CHART,
            name=f"reliability_{domain.name}",
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
