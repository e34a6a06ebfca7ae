"""The pages over whole slides: which there are, and one of them to zoom into, with maps and outlines as layers."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

import numpy as np
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from pipeline.evaluation.slide_maps import THUMBNAIL
from pipeline.export.node_packages import node_package
from pipeline.metrics.scores import ModelName
from pipeline.params.errors import PixelCAMError
from pipeline.report.overlays import colour_map
from pipeline.viewer.cache import Cache
from pipeline.viewer.image_data import KEEP
from pipeline.viewer.pictures import JPEG, PNG
from pipeline.viewer.site import Site, Tab, not_found
from pipeline.viewer.slide_sets import ShownSlide, SlideMap, SlideSet, read_slide_sets
from pipeline.viewer.slide_shapes import annotated_shapes, found_regions
from pipeline.viewer.slide_tiles import (
    OPAQUE_FROM,
    TILE,
    Grid,
    Part,
    grid_of,
    open_heat,
    opened,
    slide_thumbnail,
    slide_tile,
)

PACKAGE: Final = "openseadragon"
SCRIPT: Final = "build/openseadragon/openseadragon.min.js"
MODELS: Final = {ModelName.PIXELCAM: "PixelCAM", ModelName.TEACHER: "Teacher"}
IN_A_SENTENCE: Final = {ModelName.PIXELCAM: "PixelCAM", ModelName.TEACHER: "the teacher"}
OUTLINES: Final = {ModelName.PIXELCAM: "vermilion", ModelName.TEACHER: "sky blue"}  # as slides.css has them
PER_PAGE: Final = 60
LONGEST_NUMBER: Final = 7  # digits
REGIONS_LISTED: Final = 12  # of each model, the largest


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """A layer over a slide: what a script is to draw and from where, and how it is at first.

    `kind` is `tiles`, a picture in tiles that covers `extent` pixels of the slide, or `shapes`.
    """

    key: str
    title: str
    kind: str
    address: str
    is_on: bool
    opacity: int  # per cent
    colour: str = ""  # of outlines, in words
    grid: Grid | None = None
    extent: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, eq=False)
class _Room:
    """The slides of a run, by key of their set, and the folder of what is made once."""

    site: Site
    sets: Mapping[str, SlideSet]
    cache: Cache

    def slides(self, key: str) -> SlideSet:
        if key not in self.sets:
            raise not_found("such collection of slides")
        return self.sets[key]

    def slide(self, request: Request) -> tuple[SlideSet, ShownSlide]:
        """Return the slide that an address names by `in` and `slide`, looked up among those that there are."""
        shown = self.slides(request.query_params.get("in", ""))
        slide = shown.slides.get(request.query_params.get("slide", ""))
        if slide is None:
            raise not_found("such slide")
        return shown, slide

    def map(self, request: Request) -> SlideMap:
        """Return the map of a slide that an address names by `model`."""
        _, slide = self.slide(request)
        for each in slide.maps:
            if each.model == request.query_params.get("model"):
                return each
        raise not_found("such map")


def slide_room(site: Site) -> list[BaseRoute]:
    """Return the pages over the slides of a run, and add their tabs; none where there are no slides."""
    sets = read_slide_sets(site.params, site.files)
    if not sets:
        return []
    room = _Room(site, {each.key: each for each in sets}, Cache(site.files.cache))
    site.tabs.extend(Tab(f"/slides/{each.key}", each.title) for each in sets)

    def many(request: Request) -> Response:
        return site.page("slides.html.j2", request, **_many(room.slides(request.path_params["key"]), request))

    def one(request: Request) -> Response:
        return site.page("slide.html.j2", request, **_one(*room.slide(request)))

    return [
        Route("/slides/{key}", many),
        Route("/slide", one),
        Route("/static/openseadragon.js", _script),
        *_data_routes(room),
    ]


def _data_routes(room: _Room) -> list[BaseRoute]:
    """Return what answers with pictures and outlines; which slide is meant, an address says by `in` and `slide`."""

    def get_thumbnail(request: Request) -> Response:
        return _picture(slide_thumbnail(room.slide(request)[1], room.cache))

    def get_overview(request: Request) -> Response:
        path = room.map(request).folder / THUMBNAIL
        if not path.is_file():
            raise not_found("such picture")
        return FileResponse(path, media_type=PNG)

    def get_tile(request: Request) -> Response:
        return _picture(slide_tile(room.slide(request)[1], _part(request), room.cache))

    def get_heat(request: Request) -> Response:
        return _picture(open_heat(room.map(request).folder).tile(_part(request)), media_type=PNG)

    def get_regions(request: Request) -> Response:
        return JSONResponse({"shapes": [region.rings for region in found_regions(room.map(request).folder)]})

    def get_annotation(request: Request) -> Response:
        _, slide = room.slide(request)
        if slide.lesions is None:
            raise not_found("annotation")
        return JSONResponse({"shapes": annotated_shapes(slide.lesions)})

    return [
        Route("/api/slide/thumbnail", get_thumbnail),
        Route("/api/slide/overview", get_overview),
        Route("/api/slide/tile", get_tile),
        Route("/api/slide/heat", get_heat),
        Route("/api/slide/regions", get_regions),
        Route("/api/slide/annotation", get_annotation),
    ]


def _script(request: Request) -> Response:
    del request
    return FileResponse(node_package(PACKAGE) / SCRIPT, media_type="text/javascript", headers=KEEP)


def _picture(content: bytes | None, *, media_type: str = JPEG) -> Response:
    if content is None:
        raise not_found("such tile")
    return Response(content, media_type=media_type, headers=KEEP)


def _part(request: Request) -> Part:
    """Return which tile an address asks for; raise a 404 for what are no whole numbers."""
    level, column, row = (_number(request, name) for name in ("level", "x", "y"))
    if level is None or column is None or row is None:
        raise not_found("such tile")
    return level, column, row


def _number(request: Request, name: str) -> int | None:
    text = request.query_params.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= LONGEST_NUMBER else None


def _many(shown: SlideSet, request: Request) -> dict[str, Any]:
    """Return what the template of many slides is given."""
    pages = -(-len(shown.slides) // PER_PAGE)
    page = min(max(1, _number(request, "page") or 1), pages)
    slides = list(shown.slides.values())[(page - 1) * PER_PAGE : page * PER_PAGE]
    return {
        "set": shown,
        "page_number": page,
        "pages": pages,
        "slides": [(slide, _page_of(shown, slide), _api("thumbnail", shown, slide)) for slide in slides],
        "models": IN_A_SENTENCE,
    }


def _one(shown: SlideSet, slide: ShownSlide) -> dict[str, Any]:
    """Return what the template of one slide is given."""
    names = list(shown.slides)
    place = names.index(slide.name)
    previous, following = (
        _page_of(shown, shown.slides[names[other]]) if 0 <= other < len(names) else None
        for other in (place - 1, place + 1)
    )
    lacking = _lack_of(lambda: node_package(PACKAGE))
    without_file = _lack_of(lambda: opened(slide))
    overview = _api("overview", shown, slide, model=slide.maps[0].model) if slide.maps else None
    return {
        "set": shown,
        "slide": slide,
        "number": place + 1,
        "previous": previous,
        "next": following,
        "can_zoom": not lacking,
        "troubles": [trouble for trouble in (lacking, without_file) if trouble],
        "grid": None if without_file else grid_of(slide),
        "tile": TILE,
        "tiles": _api("tile", shown, slide),
        "overview": overview,
        "layers": list(_layers(shown, slide)),
        "found": [(each, MODELS[each.model], found_regions(each.folder)[:REGIONS_LISTED]) for each in slide.maps],
        "ramp": _ramp(),
    }


def _lack_of(find: Callable[[], object]) -> str:
    """Return in words what is lacking; nothing where it is there."""
    try:
        find()
    except PixelCAMError as error:
        return str(error)
    return ""


def _layers(shown: SlideSet, slide: ShownSlide) -> Iterator[_Layer]:
    """Yield what can be laid over a slide, from the lowest to the highest; at first those of one model."""
    for each in slide.maps:
        heat, is_first = open_heat(each.folder), each is slide.maps[0]
        width, height = heat.grid.size
        yield _Layer(
            key=f"heat-{each.model}",
            title=f"Map of {IN_A_SENTENCE[each.model]}",
            kind="tiles",
            address=_api("heat", shown, slide, model=each.model),
            is_on=is_first,
            opacity=60,
            grid=heat.grid,
            extent=(width * heat.stride, height * heat.stride),
        )
    for each in slide.maps:
        yield _Layer(
            key=f"regions-{each.model}",
            title=f"Regions of {IN_A_SENTENCE[each.model]}",
            kind="shapes",
            address=_api("regions", shown, slide, model=each.model),
            is_on=each is slide.maps[0],
            opacity=100,
            colour=OUTLINES[each.model],
        )
    if slide.lesions is not None:
        address = _api("annotation", shown, slide)
        yield _Layer(
            key="annotation",
            title="Annotation",
            kind="shapes",
            address=address,
            is_on=True,
            opacity=100,
            colour="white with a dark edge",
        )


def _ramp() -> list[tuple[str, str, float]]:
    """Return the colours of a map from low to high: place, colour and opacity of the stops of a gradient."""
    steps = np.linspace(0, 1, 11, dtype=np.float32)
    colours = colour_map(steps[np.newaxis], size=(1, 11))[0]
    return [
        (f"{step:.0%}", "rgb({}, {}, {})".format(*colour), min(1.0, float(step) / OPAQUE_FROM))
        for step, colour in zip(steps, colours, strict=True)
    ]


def _page_of(shown: SlideSet, slide: ShownSlide) -> str:
    return f"/slide?{urlencode({'in': shown.key, 'slide': slide.name})}"


def _api(what: str, shown: SlideSet, slide: ShownSlide, **more: str) -> str:
    """Return the address of a picture or of outlines; it changes with the slide, so that a browser keeps no other's."""
    names = {"in": shown.key, "slide": slide.name, "v": slide.sha256[:12]}
    return f"/api/slide/{what}?{urlencode(names | more)}"
