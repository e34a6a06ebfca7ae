"""Whole slides on the page: scores of both models, FROC curves, and every slide with what each model marks on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

import numpy as np
from PIL import Image

from pipeline.metrics.froc import RATES
from pipeline.report.charts import WIDE_CHART, Axis, Chart, Legend, Line, draw_lines
from pipeline.report.overlays import Picture, fit
from pipeline.report.parts import MODELS
from pipeline.report.pictures import data_uri, webp
from pipeline.report.slide_parts import FalseRegion, SlideCard, SlidesReport
from pipeline.report.wording import ScoreRow, percent, score_row
from pipeline.slides.overview import ANNOTATION_COLOUR, REGION_COLOUR, TISSUE_COLOUR

SCORES: Final = {
    "auroc": "AUROC over slides",
    "froc": "FROC score",
    "dice": "Dice, all pixels together",
    "mean_dice": "Dice, mean over slides",
}
RATE_NAMES: Final = {0.25: "1/4", 0.5: "1/2"}
FORMS: Final = ((800, 75), (720, 65), (640, 60), (512, 55), (384, 50), (256, 45), (192, 35))  # longer side, quality
CROP_FORMS: Final = ((128, 70), (96, 50))
MOST_BYTES: Final = 90_000  # of one picture
CROP_BYTES: Final = 5_000
BYTES_FOR_SLIDES: Final = 1_500_000  # of all together, beside those of the other images; base64 adds a third
CROPS: Final = 4  # false regions that are shown of a slide; of the others their number


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A picture on the page: data URI, width and height in pixels, and words for it."""

    uri: str
    width: int
    height: int
    alt: str


@dataclass(frozen=True, kw_only=True)
class SlideView:
    """A model's map of a slide: what is said beneath it, and the largest of its false regions with words for each."""

    title: str
    detail: str
    picture: Shown
    crops: tuple[tuple[Shown | None, str], ...]
    more: int


@dataclass(frozen=True, kw_only=True)
class SlideCase:
    """A slide on the page, by itself and with each model's view; `truth` says in words what is on it."""

    name: str
    label: str
    truth: str
    picture: Shown
    views: tuple[SlideView, ...]


@dataclass(frozen=True, kw_only=True)
class SlideSection:
    """A domain's slides on the page; no chart where no curve is defined."""

    name: str
    counts: Mapping[str, Any]
    rows: tuple[ScoreRow, ...]
    rates: tuple[ScoreRow, ...]
    chart: Chart | None
    cases: tuple[SlideCase, ...]


def slide_gallery(domains: Sequence[SlidesReport]) -> tuple[SlideSection, ...]:
    """Return what the template shows of every domain that has slides, in their order.

    Pictures are written as finely as all of them together may take bytes, so that the page stays small.
    """
    pictures = sum(len(domain.cards) + len({card.slide for card in domain.cards}) for domain in domains)
    most_bytes = min(MOST_BYTES, BYTES_FOR_SLIDES // max(1, pictures))
    return tuple(_section(domain, most_bytes) for domain in domains)


def outline_colours() -> dict[str, str]:
    """Return what the lines on a map mean, and their CSS colours."""
    colours = {"tissue": TISSUE_COLOUR, "annotation": ANNOTATION_COLOUR, "region": REGION_COLOUR}
    return {name: "rgb({}, {}, {})".format(*colour) for name, colour in colours.items()}


def _section(domain: SlidesReport, most_bytes: int) -> SlideSection:
    teacher, pixelcam = (domain.scores[model] for model in ("teacher", "pixelcam"))
    rates = []
    for rate in RATES:
        key = f"{rate:g}"
        at = {model: {key: domain.scores[model]["sensitivity_at"][key]} for model in ("teacher", "pixelcam")}
        rates.append(score_row(RATE_NAMES.get(rate, key), key, **at))
    return SlideSection(
        name=domain.name,
        counts=pixelcam,
        rows=tuple(score_row(title, key, teacher=teacher, pixelcam=pixelcam) for key, title in SCORES.items()),
        rates=tuple(rates),
        chart=_froc_chart(domain),
        cases=tuple(_cases(domain.cards, most_bytes)),
    )


def _froc_chart(domain: SlidesReport) -> Chart | None:
    """Draw both curves up to the highest of the rates; where a curve ends before, sensitivity stays what it is."""
    lines, legend, said = [], [], []
    for model, title in MODELS.items():
        scores = domain.scores[model]
        if not scores["sensitivity"]:
            continue
        x, y = (np.array(scores[name], dtype=np.float64) for name in ("false_positives", "sensitivity"))
        inside = x <= RATES[-1]
        x, y = np.append(x[inside], RATES[-1]), np.append(y[inside], np.interp(RATES[-1], x, y))
        colour, dashed = f"var(--{model})", model == "teacher"
        lines.append(Line(x=x, y=y, css_colour=colour, dashed=dashed))
        legend.append(Legend(name=f"{title} {percent(scores['froc'])}", colour=colour, dashed=dashed))
        said.append(f"{title}'s score is {percent(scores['froc'])}")
    if not lines:
        return None
    return Chart(
        title=f"FROC, {domain.name}",
        description=f"FROC curves on the slides of {domain.name}: {', '.join(said)} per cent.",
        legend=tuple(legend),
        svg=draw_lines(
            lines,
            x=Axis(title="false positives per normal slide", limits=(0.0, 1.02 * RATES[-1]), whole=True),
            y=Axis(title="sensitivity, lesions", limits=(0.0, 1.02)),
            inches=WIDE_CHART,
            name=f"froc_{domain.name}",
        ),
    )


def _cases(cards: Sequence[SlideCard], most_bytes: int) -> list[SlideCase]:
    """Set the models' cards of each slide side by side, the slides in the order in which they come."""
    of_slides: dict[str, dict[str, SlideCard]] = {}
    for card in cards:
        of_slides.setdefault(card.slide, {})[card.model] = card
    return [
        _case([by_model[model] for model in MODELS if model in by_model], most_bytes) for by_model in of_slides.values()
    ]


def _case(cards: Sequence[SlideCard], most_bytes: int) -> SlideCase:
    first = cards[0]
    truth = _truth(first)
    return SlideCase(
        name=first.slide,
        label=first.label,
        truth=truth,
        picture=_show(first.thumbnail, f"The slide {first.slide}, {first.label}; {truth}", FORMS, most_bytes),
        views=tuple(_view(card, most_bytes) for card in cards),
    )


def _truth(card: SlideCard) -> str:
    if card.is_normal:
        return "no lesion"
    if card.lesions == 0:
        return "no annotated lesion to be found"
    return f"{card.lesions} lesion{'' if card.lesions == 1 else 's'} to be found"


def _view(card: SlideCard, most_bytes: int) -> SlideView:
    largest = sorted(card.false_positives, key=lambda region: region.area_mm2, reverse=True)
    detail = _judge(card)
    crops = tuple((_crop(region, card), _describe(region)) for region in largest[:CROPS])
    return SlideView(
        title="Teacher's map" if card.model == "teacher" else f"{MODELS[card.model]}'s map",
        detail=detail,
        picture=_show(
            card.overview, f"{MODELS[card.model]}'s map of {card.slide} with regions: {detail}", FORMS, most_bytes
        ),
        crops=crops,
        more=len(largest) - len(crops),
    )


def _judge(card: SlideCard) -> str:
    """Say what a model made of a slide."""
    clauses = [f"score {percent(card.score)}"]
    if card.dice is not None:
        clauses.append(f"Dice {percent(card.dice)}")
    if card.lesions:
        clauses.append(f"finds {card.found} of {card.lesions}")
    if card.is_normal:
        count = len(card.false_positives)
        clauses.append(f"{count or 'no'} false region{'' if count == 1 else 's'}")
    return "; ".join(clauses)


def _describe(region: FalseRegion) -> str:
    return f"{region.area_mm2:.2g} mm², up to {percent(region.maximum)}"


def _crop(region: FalseRegion, card: SlideCard) -> Shown | None:
    if region.picture is None:
        return None
    words = f"A false region of {MODELS[card.model]} on {card.slide}: {_describe(region)}"
    return _show(region.picture, words, CROP_FORMS, CROP_BYTES)


def _show(picture: bytes, alt: str, forms: Sequence[tuple[int, int]], most_bytes: int) -> Shown:
    """Write a picture in the first of its forms that takes no more bytes than it may, or in the last there is."""
    with Image.open(BytesIO(picture)) as opened:
        pixels: Picture = np.asarray(opened.convert("RGB"))
    for side, quality in forms:
        fitted = fit(pixels, side=side)
        content = webp(fitted, quality=quality)
        if len(content) <= most_bytes:
            break
    return Shown(uri=data_uri(content, "webp"), width=fitted.shape[1], height=fitted.shape[0], alt=alt)
