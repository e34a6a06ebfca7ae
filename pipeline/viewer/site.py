"""What all pages share: the run that they show, the frame they stand in, and how an error looks on them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from pipeline.params.config import Params
from pipeline.params.errors import PixelCAMError

TEMPLATES: Final = Path(__file__).parent / "templates"
API: Final = "/api/"  # below it answers are data or pictures, and errors JSON


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """Where a run lies, as the command was told.

    Attributes:
        prepared: the folder of prepared domains.
        models: the folder of models.
        metrics: the folder of what was scored.
        store: the pseudo-labels.
        review: the table of images that a person sets aside; need not be there.
        cache: a folder for what is computed once, such as thumbnails; may be removed at any time.
        slide_maps: what `pixelcam slide` wrote, a folder for each slide; need not be there.
        slide_files: the folder of the slides that were mapped; None where nobody says it.
    """

    prepared: Path
    models: Path
    metrics: Path
    store: Path
    review: Path
    cache: Path
    slide_maps: Path | None = None
    slide_files: Path | None = None


def _make_environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@dataclass(frozen=True)
class Tab:
    """An entry of the navigation: its address, what it is called, and a count beside it, if any."""

    address: str
    title: str
    count: Callable[[], int | None] = lambda: None


@dataclass(frozen=True, eq=False)
class Site:
    """A run and the frame of its pages; each room of the page (images, slides, review) adds its tab.

    Attributes:
        params: of the run.
        files: where it lies.
        tabs: the navigation, in order.
    """

    params: Params
    files: RunFiles
    tabs: list[Tab] = field(default_factory=list)
    _environment: Environment = field(default_factory=_make_environment)

    def page(self, template: str, request: Request, *, status: int = 200, **values: Any) -> HTMLResponse:  # noqa: ANN401
        """Return a page from a template, whose values are escaped there."""
        text = self._environment.get_template(template).render(tabs=self.tabs, path=request.url.path, **values)
        return HTMLResponse(text, status_code=status)

    def error(self, request: Request, error: Exception) -> Response:
        """Return an error as a page, or as JSON where data or a picture was asked for."""
        status, sentence = 422, str(error)
        if isinstance(error, HTTPException):
            status, sentence = error.status_code, error.detail
        if request.url.path.startswith(API):
            return JSONResponse({"error": sentence}, status_code=status)
        return self.page("error.html.j2", request, status=status, sentence=sentence)


def not_found(what: str) -> HTTPException:
    """Return the error for something that this run does not have."""
    return HTTPException(404, detail=f"there is no {what} here")


ERRORS: Final = (PixelCAMError, HTTPException)  # that `Site.error` answers
