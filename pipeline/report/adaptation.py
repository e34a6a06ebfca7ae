"""Adapted models on the page: what adapting did, scores before and after, its course, and maps of the same images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from pipeline.adaptation.watching import COLLAPSED
from pipeline.evaluation.adapted import AdaptationEpoch
from pipeline.report.adaptation_parts import AdaptedDomain, AdaptedModel, Scores
from pipeline.report.adaptation_wording import (
    describe_alarms,
    describe_deed,
    describe_kept,
    describe_source,
    describe_summary,
    title_of,
)
from pipeline.report.charts import DOT, MUTED, SMALL_CHART, UNIT, Axis, Chart, Legend, Line, draw_lines
from pipeline.report.parts import MODELS, GalleryImage
from pipeline.report.pictures import Case, view_layer
from pipeline.report.wording import interval_words, p_value_words, percent, signed, tenths_over

SCORES: Final = {"pxap": "PxAP", "dice": "Dice", "accuracy": "Accuracy", "balanced_accuracy": "Balanced accuracy"}
KEPT_DOT: Final = 6 * DOT


@dataclass(frozen=True, kw_only=True)
class ChangeRow:
    """A row of a table, in per cent: before and after, the change with interval and p value, and what labels give.

    What is not known is empty, or a dash where it is a score.
    """

    title: str
    before: str
    after: str
    change: str
    interval: str = ""
    p_value: str = ""
    bound: str = ""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """One model's scores before and after, with sentences around them; `shares` are those of predicted classes."""

    title: str
    alarms: tuple[tuple[str, str], ...]
    scores: tuple[ChangeRow, ...]
    shares: tuple[ChangeRow, ...]
    source: tuple[ChangeRow, ...]
    kept: str
    forgotten: str
    has_bound: bool


@dataclass(frozen=True, kw_only=True)
class AdaptedCase:
    """An image of the gallery, whose number there is `number`, with PixelCAM's maps before and after as its layers."""

    number: str
    case: Case


@dataclass(frozen=True, kw_only=True)
class AdaptedSection:
    """A domain that models were adapted to, on the page."""

    name: str
    source: str
    title: str
    transductive: bool
    deed: str
    summary: tuple[str, ...]
    cards: tuple[ModelCard, ...]
    charts: tuple[Chart, ...]
    cases: tuple[AdaptedCase, ...]


Gallery = Sequence[tuple[str, GalleryImage, Case]]  # number on the page, image, and how it is shown there


def adapted_sections(domains: Sequence[AdaptedDomain], galleries: Mapping[str, Gallery]) -> tuple[AdaptedSection, ...]:
    """Return what the template shows of every domain that models were adapted to, in their order.

    Args:
        domains: with scores.
        galleries: by domain, its images as they stand in the gallery, whose pictures are used once more.
    """
    return tuple(
        AdaptedSection(
            name=domain.name,
            source=domain.source,
            title=title_of(domain),
            transductive=domain.transductive,
            deed=describe_deed(domain),
            summary=tuple(describe_summary(domain)),
            cards=tuple(_card(MODELS[name], domain.source, model) for name, model in domain.models.items()),
            charts=_course_charts(domain),
            cases=tuple(
                AdaptedCase(number=number, case=found)
                for number, image, case in galleries[domain.name]
                if (found := before_and_after(image, case)) is not None
            ),
        )
        for domain in domains
    )


def _card(title: str, source: str, model: AdaptedModel) -> ModelCard:
    shares = model.source_only["predicted_classes"]
    return ModelCard(
        title=title,
        alarms=tuple(describe_alarms(model)),
        scores=tuple(_score(name, score, model) for score, name in SCORES.items()),
        shares=tuple(_share(name, model) for name in shares),
        source=tuple(
            _row(name, model.source_before[score], model.source_after[score]) for score, name in SCORES.items()
        ),
        kept=describe_kept(model),
        forgotten=describe_source(source, model),
        has_bound=model.supervised is not None,
    )


def _row(title: str, before: float | None, after: float | None) -> ChangeRow:
    return ChangeRow(
        title=title, before=percent(before), after=percent(after), change=signed(tenths_over(after, before))
    )


def _score(title: str, score: str, model: AdaptedModel) -> ChangeRow:
    return replace(
        _row(title, model.source_only[score], model.adapted[score]),
        interval=interval_words(model.over_source_only[score]),
        p_value=p_value_words(model.over_source_only[score]),
        bound="" if model.supervised is None else percent(model.supervised[score]),
    )


def _share(name: str, model: AdaptedModel) -> ChangeRow:
    def share(scores: Scores) -> float:
        shares: Mapping[str, float] = scores["predicted_classes"]
        return shares.get(name, 0.0)

    bound = "" if model.supervised is None else percent(share(model.supervised))
    return replace(_row(name, share(model.source_only), share(model.adapted)), bound=bound)


def _course_charts(domain: AdaptedDomain) -> tuple[Chart, ...]:
    """Draw what watched over the run: the mutual information, and the share of the largest class."""
    most = max(each.mutual_information for model in domain.models.values() for each in model.course)
    information = _course_chart(
        domain,
        lambda epoch: epoch.mutual_information,
        title="Mutual information of image and class",
        axis=Axis(title="nats", limits=(0.0, max(1.1 * most, 0.1))),
        said=lambda epoch: f"{epoch.mutual_information:.2f}",
        name="information",
    )
    share = _course_chart(
        domain,
        lambda epoch: epoch.largest_share,
        title="Images predicted as one class",
        axis=Axis(title="share of the largest class", limits=UNIT),
        said=lambda epoch: f"{percent(epoch.largest_share)} % {epoch.largest_class}",
        name="largest_share",
        guard=COLLAPSED,
    )
    return information, share


def _course_chart(
    domain: AdaptedDomain,
    value: Callable[[AdaptationEpoch], float],
    *,
    title: str,
    axis: Axis,
    said: Callable[[AdaptationEpoch], str],
    name: str,
    guard: float | None = None,
) -> Chart:
    """Draw a number of both models over the epochs, with a dot on the state that was kept."""
    lines, legend, words = [], [], []
    last = max(model.course[-1].epoch for model in domain.models.values())
    if guard is not None:
        lines.append(_level(guard, last=last))
        legend.append(Legend(name=f"the guard, {percent(guard)} %", colour=MUTED, dashed=True))
    for key, model in domain.models.items():
        epochs = np.array([each.epoch for each in model.course], dtype=np.float64)
        values = np.array([value(each) for each in model.course], dtype=np.float64)
        dots = np.where(epochs == model.chosen_epoch, KEPT_DOT, 0.0)
        colour, dashed = f"var(--{key})", key == "teacher"
        lines.append(Line(x=epochs, y=values, css_colour=colour, dashed=dashed, dots=dots))
        legend.append(Legend(name=f"{MODELS[key]} {said(model.chosen)}", colour=colour, dashed=dashed, dotted=True))
        words.append(f"{MODELS[key]} from {said(model.course[0])} to {said(model.chosen)} in the state that was kept")
    return Chart(
        title=title,
        description=f"{title} over the epochs of adapting to {domain.name}: {'; '.join(words)}.",
        legend=tuple(legend),
        svg=draw_lines(
            lines,
            x=Axis(title="epoch", limits=None, whole=True),
            y=axis,
            inches=SMALL_CHART,
            name=f"adapted_{domain.name}_{name}",
        ),
    )


def _level(height: float, *, last: int) -> Line:
    ends = np.array([0.0, last])
    return Line(x=ends, y=ends * 0 + height, css_colour=MUTED, dashed=True)


def before_and_after(image: GalleryImage, case: Case) -> Case | None:
    """Return a case of the gallery with PixelCAM's maps before and after instead; None where there is none after."""
    if image.adapted is None:
        return None
    verdicts = ["right" if view.predicted_class == image.label else "wrong" for view in (image.pixelcam, image.adapted)]
    layers = [
        view_layer(view, image, title=title, alt=f"PixelCAM's map of {image.name} {when}")
        for view, title, when in (
            (image.pixelcam, "PixelCAM before", "before it was adapted"),
            (image.adapted, "PixelCAM adapted", "after it was adapted"),
        )
    ]
    before, after = verdicts
    changed = f"{before} before and after" if before == after else f"{before} before, {after} after"
    return replace(case, reason=f"{case.reason}; class {changed}", layers=tuple(layers), facts={})
