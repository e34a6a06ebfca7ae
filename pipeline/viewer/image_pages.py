"""The pages over images: the overview, the grid of a collection, and one image with its layers."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isnan
from typing import Any, Final
from urllib.parse import urlencode

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from pipeline.data.review import Verdict
from pipeline.metrics.scores import ModelName
from pipeline.report.overlays import colour_map, label_colours
from pipeline.viewer.browser import Browser, Shown
from pipeline.viewer.collections import DISAGREEMENT, FOREGROUND_SHARE, RIGHT, WRONG, Collection
from pipeline.viewer.image_data import LAYERS, data_routes
from pipeline.viewer.listing import NOT_SET_ASIDE, PER_PAGE, SET_ASIDE, Query, orders_of, select
from pipeline.viewer.live_labels import SLIDERS
from pipeline.viewer.pictures import pixels_sha256
from pipeline.viewer.review_pages import review_routes
from pipeline.viewer.site import Site, Tab

MODELS: Final = {ModelName.TEACHER: "Teacher", ModelName.PIXELCAM: "PixelCAM"}
SLIDER_TITLES: Final = {
    "foreground_threshold": "Foreground: CAM at least",
    "foreground_fraction": "Foreground: highest share",
    "background_fraction": "Background: lowest share",
}
VERDICT_FILTERS: Final = {
    NOT_SET_ASIDE: "not set aside",
    SET_ASIDE: "set aside",
    Verdict.LEAVE_OUT.value: "left out",
    Verdict.CORRECTED.value: "corrected",
}
JUDGED_FILTERS: Final = {RIGHT: "right by PixelCAM", WRONG: "wrong by PixelCAM"}
OVERVIEW_IMAGES: Final = 6  # of each collection


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """An image in a grid."""

    image: str
    domain: str
    address: str
    thumbnail: str
    label: str
    predicted: str  # empty where it is right, or not known
    facts: tuple[tuple[str, str], ...]  # what a value is of, for its colour, and the value
    verdict: str
    corrected: str


@dataclass(frozen=True, kw_only=True)
class _ModelRow:
    """What a model got for an image."""

    key: str
    title: str
    predicted: str
    is_right: bool
    confidence: str
    dice: str


def image_room(site: Site) -> list[BaseRoute]:
    """Return the pages over the images of a run, and add their tabs."""
    browser = Browser(site)
    site.tabs.extend(Tab(f"/images/{found.key}", found.title) for found in browser.collections.values())
    site.tabs.append(Tab("/review", "Set aside", lambda: len(browser.review.rows())))

    def overview(request: Request) -> Response:
        shown = [(found, list(_overview_cells(browser, found))) for found in browser.collections.values()]
        return site.page("overview.html.j2", request, collections=shown, review=site.files.review)

    def grid(request: Request) -> Response:
        collection = browser.collection(request.path_params["key"])
        return site.page("grid.html.j2", request, **_grid(browser, collection, Query.read(request.query_params)))

    def one(request: Request) -> Response:
        return site.page("image.html.j2", request, **_one(browser, browser.shown(request), request))

    return [
        Route("/", overview),
        Route("/images/{key}", grid),
        Route("/image", one),
        *data_routes(browser),
        *review_routes(site, browser),
    ]


def _overview_cells(browser: Browser, collection: Collection) -> Iterator[_Cell]:
    step = max(1, len(collection) // OVERVIEW_IMAGES)
    for place in range(0, len(collection), step)[:OVERVIEW_IMAGES]:
        yield _cell(browser, Shown(collection, place), Query())


def _grid(browser: Browser, collection: Collection, query: Query) -> dict[str, Any]:
    """Return what the grid's template is given."""
    order = select(collection, query, browser.review.verdicts(collection.domain.name))
    pages = max(1, -(-len(order) // PER_PAGE))
    query = query.of_page(min(query.page, pages))
    start = (query.page - 1) * PER_PAGE
    return {
        "collection": collection,
        "query": query,
        "found": len(order),
        "pages": pages,
        "first": start + 1,
        "previous": query.of_page(query.page - 1).parameters() if query.page > 1 else None,
        "next": query.of_page(query.page + 1).parameters() if query.page < pages else None,
        "cells": [_cell(browser, Shown(collection, int(place)), query) for place in order[start : start + PER_PAGE]],
        "orders": orders_of(collection),
        "labels": {name: name for name in collection.domain.classes},
        "verdicts": VERDICT_FILTERS,
        "judgements": {} if collection.judged is None else JUDGED_FILTERS,
    }


def _cell(browser: Browser, shown: Shown, query: Query) -> _Cell:
    collection, row = shown.collection, shown.row
    reviewed = browser.review.rows().get((collection.domain.name, row.image))
    said = collection.predicted.get(ModelName.PIXELCAM, ())
    predicted = said[shown.place] if said else ""
    return _Cell(
        image=row.image,
        domain=collection.domain.name,
        address=_address(shown, query),
        thumbnail=_api("thumbnail", shown),
        label=row.label,
        predicted="" if predicted == row.label else predicted,
        facts=tuple(_facts(shown)),
        verdict="" if reviewed is None else reviewed.verdict,
        corrected="" if reviewed is None else reviewed.label,
    )


def _facts(shown: Shown) -> Iterator[tuple[str, str]]:
    """Yield what a cell says in numbers: the Dice of both models, or the share of foreground labels."""
    numbers = shown.collection.numbers
    for model in reversed(MODELS):
        if f"{model}_dice" in numbers:
            yield model, _number(numbers[f"{model}_dice"][shown.place])
    if FOREGROUND_SHARE in numbers:
        yield "", f"{numbers[FOREGROUND_SHARE][shown.place]:.0%} foreground"


def _one(browser: Browser, shown: Shown, request: Request) -> dict[str, Any]:
    """Return what the template of one image is given."""
    collection, row = shown.collection, shown.row
    query = Query.read(request.query_params)
    domain = collection.domain
    order = select(collection, query, browser.review.verdicts(domain.name), always=shown.place)
    number = int((order == shown.place).argmax())
    rule = browser.rule(collection)
    reviewed = browser.review.rows().get((domain.name, row.image))
    return {
        "collection": collection,
        "row": row,
        "number": number + 1,
        "of": len(order),
        "back": f"/images/{collection.key}{query.of_page(number // PER_PAGE + 1).parameters()}",
        "previous": _address(Shown(collection, int(order[number - 1])), query) if number else None,
        "next": _address(Shown(collection, int(order[number + 1])), query) if number + 1 < len(order) else None,
        "layers": [(layer, _api(f"layer/{layer.key}", shown)) for layer in LAYERS],
        "labels_address": _api("labels", shown),
        "rule_text": browser.describe_rule(collection),
        "sliders": {name: (SLIDER_TITLES[name], getattr(rule, name)) for name in SLIDERS[rule.foreground_rule]},
        "colours": {
            name: "rgb({}, {}, {})".format(*colour)
            for name, (_, colour) in label_colours(browser.pixel_classes(collection)).items()
        },
        "ramp": _ramp(),
        "in_store": collection.store is not None,
        "is_background": row.class_idx == domain.background_class_idx,
        "models": list(_model_rows(shown)),
        "disagreement": _number(collection.numbers[DISAGREEMENT][shown.place])
        if DISAGREEMENT in collection.numbers
        else "",
        "other_classes": [name for name in domain.classes if name != row.label],
        "reviewed": reviewed,
    }


def _model_rows(shown: Shown) -> Iterator[_ModelRow]:
    numbers, label = shown.collection.numbers, shown.row.label
    for model, title in MODELS.items():
        if model in shown.collection.predicted and (said := shown.collection.predicted[model][shown.place]):
            values = [
                _number(numbers[name][shown.place]) if (name := f"{model}_{column}") in numbers else "–"
                for column in ("confidence", "dice")
            ]
            yield _ModelRow(
                key=model, title=title, predicted=said, is_right=said == label, confidence=values[0], dice=values[1]
            )


def _number(value: float) -> str:
    return "–" if isnan(value) else f"{value:.3f}"


def _ramp() -> list[tuple[str, str]]:
    """Return the colours of maps from low to high, as places and colours of a gradient."""
    steps = np.linspace(0, 1, 11, dtype=np.float32)
    colours = colour_map(steps[np.newaxis], size=(1, 11))[0]
    return [(f"{step:.0%}", "rgb({}, {}, {})".format(*colour)) for step, colour in zip(steps, colours, strict=True)]


def _address(shown: Shown, query: Query) -> str:
    return f"/image{query.of_page(1).parameters(**shown.names)}"


def _api(what: str, shown: Shown) -> str:
    """Return the address of a picture or of data; it changes with the image, so that a browser keeps no other's."""
    return f"/api/{what}?{urlencode(shown.names | {'v': pixels_sha256(shown.row)[:12]})}"
