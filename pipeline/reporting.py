"""One self-contained page that says whether PixelCAM beats its teacher, and shows what each model looks at.

The page opens offline, in light and dark, on a phone and in print, without any script. Everything from outside (file
names, class names, params) is escaped by the template.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib import colormaps
from PIL import Image

from pipeline.charts import Axis, Line, draw_lines
from pipeline.labels import PIXEL_LABELS
from pipeline.overlays import (
    BACKGROUND_COLOUR,
    FOREGROUND_COLOUR,
    HEAT_COLOURS,
    Picture,
    fit,
    heat_overlay,
    label_overlay,
    mask_contour,
)
from pipeline.verdicts import ScoreRow, describe_verdict, percent, score_rows

TEMPLATES: Final = Path(__file__).parent / "templates"
PICTURE_SIDE: Final = 256
WEBP_QUALITY: Final = 82
WIDE_CHART: Final = (5.0, 3.1)  # inches
SMALL_CHART: Final = (3.4, 2.4)
MODELS: Final = {"teacher": "Teacher", "pixelcam": "PixelCAM"}  # as in evaluation.json, and as on the page

HISTORY_CHARTS: Final = {
    "image_loss": "Image loss, training",
    "pixel_loss": "Pixel loss, training",
    "train_accuracy": "Accuracy, training",
    "val_loss": "Image loss, validation",
    "val_accuracy": "Accuracy, validation",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelView:
    """What one model says about one image.

    Attributes:
        map: float32 (h, w) in [0, 1], any size.
        predicted_class: the class's name.
        dice: fraction; None without mask or without region of interest.
        false_positive_share: share of the background predicted as foreground; None without mask.
    """

    map: npt.NDArray[np.float32]
    predicted_class: str
    dice: float | None
    false_positive_share: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class GalleryImage:
    """A test image with both models' views; `reason` says why it is shown ("best of 48").

    `image` is uint8 (H, W, 3); `mask` is bool (h, w) of any size, or None where the truth is unknown.
    """

    name: str
    label: str
    reason: str
    image: Picture
    mask: npt.NDArray[np.bool_] | None
    teacher: ModelView
    pixelcam: ModelView


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingImage:
    """A training image of the source with what PixelCAM was given: never the mask, which is here for comparison.

    `cam` is float32 (h, w) in [0, 1], `pseudo_labels` uint8 (h, w) of 0, 1 and 255; sizes may differ.
    """

    name: str
    label: str
    image: Picture
    mask: npt.NDArray[np.bool_] | None
    cam: npt.NDArray[np.float32]
    pseudo_labels: npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class LabelQuality:
    """The pseudo-labels of one class of training images, as fractions.

    The three shares add up to 1. A precision is the share of labels that the masks confirm, a recall the share of the
    masks that is labelled so; None without masks.
    """

    class_name: str
    foreground_share: float
    background_share: float
    ignore_share: float
    foreground_precision: float | None
    background_precision: float | None
    foreground_recall: float | None
    background_recall: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class DomainReport:
    """A domain's part: `scores` is its entry in evaluation.json, {"teacher": {...}, "pixelcam": {...}}."""

    name: str
    in_domain: bool
    scores: Mapping[str, Mapping[str, Any]]
    gallery: Sequence[GalleryImage]


@dataclass(frozen=True, kw_only=True, eq=False)
class ReportContent:
    """Everything the page says.

    Attributes:
        domains: in the order of the page, the source first.
        histories: by model ("teacher", "pixelcam"), a table with the columns epoch, step, and any of image_loss,
            pixel_loss, train_accuracy, val_loss, val_accuracy.
        curves: columns domain, model, threshold, precision, recall.
        label_rule: how maps were turned into pixel labels, in words.
        redrawn: whether each step draws pixels anew, rather than from the same few of each image.
        label_quality: one row per class.
        learned_from: training images of the source.
        provenance: sections of names and values, such as {"params": {...}, "versions": {...}}.
    """

    domains: Sequence[DomainReport]
    histories: Mapping[str, pd.DataFrame]
    curves: pd.DataFrame
    label_rule: str
    redrawn: bool
    label_quality: Sequence[LabelQuality]
    learned_from: Sequence[TrainingImage]
    provenance: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, kw_only=True)
class _Shown:
    """A picture on the page: its data URI, size, alternative text, title and detail."""

    uri: str
    width: int
    height: int
    alt: str
    title: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class _Case:
    """An image's row of pictures."""

    name: str
    reason: str
    pictures: tuple[_Shown, ...]


@dataclass(frozen=True, kw_only=True)
class _Chart:
    """A chart with its title, what it says in words, and the lines' names in the order of the legend."""

    title: str
    description: str
    legend: tuple[tuple[str, str, bool], ...]  # (name, CSS colour, dashed)
    svg: str


@dataclass(frozen=True, kw_only=True)
class _DomainSection:
    """A domain on the page."""

    name: str
    in_domain: bool
    scores: Mapping[str, Mapping[str, Any]]
    rows: tuple[ScoreRow, ...]
    cases: tuple[_Case, ...]


def render_report(content: ReportContent) -> str:
    """Return the page as HTML; equal content gives equal text."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    return environment.get_template("report.html.j2").render(
        source=next(domain.name for domain in content.domains if domain.in_domain),
        verdict=describe_verdict([(domain.name, domain.in_domain, domain.scores) for domain in content.domains]),
        domains=[_domain_section(domain) for domain in content.domains],
        precision_recall=[
            _precision_recall(domain, content.curves)
            for domain in content.domains
            if domain.name in set(content.curves["domain"])
        ],
        training=_training_charts(content.histories),
        label_rule=content.label_rule,
        redrawn=content.redrawn,
        label_quality=content.label_quality,
        learned_from=[_training_case(image) for image in content.learned_from],
        provenance=content.provenance,
        heat_gradient=_heat_gradient(),
        foreground_colour="rgb({}, {}, {})".format(*FOREGROUND_COLOUR),
        background_colour="rgb({}, {}, {})".format(*BACKGROUND_COLOUR),
        models=MODELS,
    )


def _domain_section(domain: DomainReport) -> _DomainSection:
    return _DomainSection(
        name=domain.name,
        in_domain=domain.in_domain,
        scores=domain.scores,
        rows=score_rows(domain.scores),
        cases=tuple(_test_case(image) for image in domain.gallery),
    )


def _test_case(shown: GalleryImage) -> _Case:
    """Show an image, its truth, and both models' maps with the truth's outline, in this order."""
    image = fit(shown.image, side=PICTURE_SIDE)
    views = {"teacher": shown.teacher, "pixelcam": shown.pixelcam}
    maps = (
        _picture(
            _outlined(heat_overlay(image, heat=view.map), shown.mask),
            alt=f"{MODELS[model]}'s map over {shown.name}, {_judge(view, label=shown.label)}",
            title="Teacher's CAM" if model == "teacher" else "PixelCAM's map",
            detail=_judge(view, label=shown.label),
        )
        for model, view in views.items()
    )
    return _Case(
        name=shown.name,
        reason=shown.reason,
        pictures=(_plain(image, shown.name, shown.label), _truth(image, shown.name, shown.mask), *maps),
    )


def _training_case(shown: TrainingImage) -> _Case:
    """Show an image, its truth, the teacher's CAM and the pseudo-labels made of it, in this order."""
    image = fit(shown.image, side=PICTURE_SIDE)
    cam = _picture(
        _outlined(heat_overlay(image, heat=shown.cam), shown.mask),
        alt=f"The teacher's CAM over {shown.name}",
        title="Teacher's CAM",
        detail=f"for {shown.label}",
    )
    shares = {name: float((shown.pseudo_labels == label).mean()) for name, label in PIXEL_LABELS.items()}
    detail = f"{shares['foreground']:.0%} foreground, {shares['background']:.0%} background"
    labels = _picture(
        _outlined(label_overlay(image, labels=shown.pseudo_labels), shown.mask),
        alt=f"Pseudo-labels over {shown.name}: {detail}",
        title="Pseudo-labels",
        detail=detail,
    )
    return _Case(
        name=shown.name,
        reason="",
        pictures=(_plain(image, shown.name, shown.label), _truth(image, shown.name, shown.mask), cam, labels),
    )


def _plain(image: Picture, name: str, label: str) -> _Shown:
    return _picture(image, alt=f"The image {name}, {label}", title="Image", detail=label)


def _truth(image: Picture, name: str, mask: npt.NDArray[np.bool_] | None) -> _Shown:
    if mask is None:
        detail = "no mask"
    elif mask.any():
        detail = f"{mask.mean():.0%} region of interest"
    else:
        detail = "no region of interest"
    return _picture(_outlined(image, mask), alt=f"The outlined truth of {name}: {detail}", title="Truth", detail=detail)


def _outlined(picture: Picture, mask: npt.NDArray[np.bool_] | None) -> Picture:
    return picture if mask is None else mask_contour(picture, mask=mask)


def _judge(view: ModelView, *, label: str) -> str:
    """Say what a model made of an image: its class, right or wrong, and how well its region fits."""
    verdict = f"{view.predicted_class}, {'right' if view.predicted_class == label else 'wrong'}"
    if view.dice is not None:
        return f"{verdict}; Dice {percent(view.dice)}"
    if view.false_positive_share is not None:
        return f"{verdict}; marks {percent(view.false_positive_share)}% in vain"
    return verdict


def _picture(picture: Picture, *, alt: str, title: str, detail: str) -> _Shown:
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, format="WEBP", quality=WEBP_QUALITY, method=6)
    height, width = picture.shape[:2]
    uri = f"data:image/webp;base64,{b64encode(buffer.getvalue()).decode('ascii')}"
    return _Shown(uri=uri, width=width, height=height, alt=alt, title=title, detail=detail)


def _precision_recall(domain: DomainReport, curves: pd.DataFrame) -> _Chart:
    """Draw a domain's two curves over the line that a map without knowledge reaches."""
    lines, legend, said = [], [], []
    for model, title in MODELS.items():
        rows = curves[(curves["domain"] == domain.name) & (curves["model"] == model)]
        colour, dashed = f"var(--{model})", model == "teacher"
        lines.append(_line(rows["recall"], rows["precision"], css_colour=colour, dashed=dashed))
        legend.append((f"{title} {percent(domain.scores[model]['pxap'])}", colour, dashed))
        said.append(f"{title}'s area is {percent(domain.scores[model]['pxap'])}")
    share = domain.scores["pixelcam"]["foreground_share"]
    if share is not None:
        ends = pd.Series([0.0, 1.0])
        lines.insert(0, _line(ends, ends * 0 + share, css_colour="var(--muted)", dashed=True))
        legend.append((f"a map without knowledge {percent(share)}", "var(--muted)", True))
    unit = (0.0, 1.02)
    return _Chart(
        title=domain.name,
        description=f"Precision-recall curves on {domain.name}: {', '.join(said)} per cent.",
        legend=tuple(legend),
        svg=draw_lines(
            lines,
            x=Axis(title="recall", limits=unit),
            y=Axis(title="precision", limits=unit),
            inches=WIDE_CHART,
            name=f"precision_recall_{domain.name}",
        ),
    )


def _training_charts(histories: Mapping[str, pd.DataFrame]) -> list[_Chart]:
    """Draw a chart per quantity that any history holds."""
    return [chart for column, title in HISTORY_CHARTS.items() if (chart := _training_chart(histories, column, title))]


def _training_chart(histories: Mapping[str, pd.DataFrame], column: str, title: str) -> _Chart | None:
    lines, legend, said = [], [], []
    for model, name in MODELS.items():
        history = histories.get(model)
        if history is None or column not in history or history[column].notna().sum() == 0:
            continue
        known = history[history[column].notna()]
        colour, dashed = f"var(--{model})", model == "teacher"
        lines.append(_line(known["epoch"], known[column], css_colour=colour, dashed=dashed))
        legend.append((name, colour, dashed))
        said.append(f"{name} from {known[column].iloc[0]:.3g} to {known[column].iloc[-1]:.3g}")
    if not lines:
        return None
    return _Chart(
        title=title,
        description=f"{title} over the epochs: {', '.join(said)}.",
        legend=tuple(legend),
        svg=draw_lines(
            lines,
            x=Axis(title="epoch", limits=None, whole=True),
            y=Axis(title="", limits=(0.0, 1.02) if column.endswith("accuracy") else None),
            inches=SMALL_CHART,
            name=f"training_{column}",
        ),
    )


def _line(x: pd.Series, y: pd.Series, *, css_colour: str, dashed: bool) -> Line:
    return Line(x=x.to_numpy(dtype=np.float64), y=y.to_numpy(dtype=np.float64), css_colour=css_colour, dashed=dashed)


def _heat_gradient() -> str:
    """Return the map's colours as a CSS gradient, low to high."""
    stops = colormaps[HEAT_COLOURS](np.linspace(0, 1, 11))
    colours = ("#" + "".join(f"{round(channel * 255):02x}" for channel in stop[:3]) for stop in stops)
    return f"linear-gradient(90deg, {', '.join(colours)})"
