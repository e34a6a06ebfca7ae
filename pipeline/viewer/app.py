"""The local page as one program: its rooms, the files that pages need, and the guard before all of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from pipeline.viewer.image_pages import image_room
from pipeline.viewer.security import Guard
from pipeline.viewer.site import ERRORS, Site, not_found
from pipeline.viewer.slide_pages import slide_room

STATIC: Final = Path(__file__).parent / "static"
ROOMS: Final[tuple[Callable[[Site], list[BaseRoute]], ...]] = (image_room, slide_room)  # each adds its tab to the site


def create_app(site: Site, *, port: int, token: str) -> ASGIApp:
    """Return the page over a run, an ASGI application that refuses whoever does not bring the token.

    Args:
        site: the run.
        port: that it will listen on; requests must name it.
        token: the secret in the printed address.

    Raises:
        PixelCAMError: a table of the run is damaged.
    """
    routes = [route for room in ROOMS for route in room(site)]
    app = Starlette(
        routes=[*routes, Route("/static/{name}", _static)],
        exception_handlers=dict.fromkeys(ERRORS, site.error),
    )
    return Guard(app, port=port, token=token)


def _static(request: Request) -> Response:
    """Return a file that pages need, by its name among those that are there."""
    known = {path.name: path for path in STATIC.iterdir()}
    name = request.path_params["name"]
    if name not in known:
        raise not_found("such file")
    return FileResponse(known[name])
