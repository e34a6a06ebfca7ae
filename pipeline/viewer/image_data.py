"""What the pages over images ask for beside themselves: thumbnails, the layers of an image, and labels cut anew."""

from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from pipeline.metrics.scores import ModelName
from pipeline.params.errors import PixelCAMError
from pipeline.viewer.browser import Browser, Shown
from pipeline.viewer.pictures import JPEG, PNG, image_layer, labels_layer, map_layer, mask_layer, thumbnail
from pipeline.viewer.site import not_found

KEEP: Final = {"Cache-Control": "private, max-age=86400"}  # by this browser; the address names the pixels


@dataclass(frozen=True)
class Layer:
    """A layer of an image's page: what addresses and the page's script call it, and what a person does.

    It is on at first of images with labels in the store, or of those that were scored; its opacity is in per cent.
    """

    key: str
    title: str
    opacity: int
    on_labelled: bool = False
    on_scored: bool = False


LAYERS: Final = (  # from the lowest to the highest
    Layer("image", "Image", 100, on_labelled=True, on_scored=True),
    Layer("cam", "Teacher's CAM", 60),
    Layer("labels", "Pseudo-labels", 60, on_labelled=True),
    Layer("pixelcam", "PixelCAM's map", 60, on_scored=True),
    Layer("mask", "Mask's outline", 100, on_labelled=True, on_scored=True),
)


def data_routes(browser: Browser) -> list[BaseRoute]:
    """Return what answers with pictures and data; which image is meant, an address says by `in` and `image`."""

    def get_thumbnail(request: Request) -> Response:
        shown = browser.shown(request)
        picture = thumbnail(shown.collection.domain.manifest, shown.row, browser.cache)
        return Response(picture, media_type=JPEG, headers=KEEP)

    def get_layer(request: Request) -> Response:
        draw = _DRAWN.get(request.path_params["layer"])
        if draw is None:
            raise not_found("such layer")
        return draw(browser, browser.shown(request))

    def get_labels(request: Request) -> Response:
        found = browser.labels(browser.shown(request), request.query_params)
        picture = b64encode(labels_layer(found.labels)).decode("ascii")
        return JSONResponse({"picture": f"data:{PNG};base64,{picture}", "quality": found.quality})

    return [
        Route("/api/thumbnail", get_thumbnail),
        Route("/api/layer/{layer}", get_layer),
        Route("/api/labels", get_labels),
    ]


def _image(browser: Browser, shown: Shown) -> Response:
    del browser
    picture, media_type = image_layer(shown.collection.domain.manifest, shown.row)
    return Response(picture, media_type=media_type, headers=KEEP)


def _cam(browser: Browser, shown: Shown) -> Response:
    return Response(map_layer(browser.cam(shown).astype("float32"), shown.row), media_type=PNG)


def _pixelcam(browser: Browser, shown: Shown) -> Response:
    return Response(map_layer(browser.map_of(shown, ModelName.PIXELCAM), shown.row), media_type=PNG)


def _mask(browser: Browser, shown: Shown) -> Response:
    del browser
    picture = mask_layer(shown.collection.domain, shown.row)
    if picture is None:
        raise PixelCAMError("this image has no mask")
    return Response(picture, media_type=PNG, headers=KEEP)


_DRAWN: Final[dict[str, Callable[[Browser, Shown], Response]]] = {
    "image": _image,
    "cam": _cam,
    "pixelcam": _pixelcam,
    "mask": _mask,
}
