"""Setting images aside: the page over all that are, and what writes and takes back a row of their table."""

import json
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from pipeline.data.review import COLUMNS, Verdict
from pipeline.params.errors import PixelCAMError, shown
from pipeline.viewer.browser import Browser
from pipeline.viewer.collections import Collection
from pipeline.viewer.review import Reviewed
from pipeline.viewer.site import Site, not_found

LONGEST_BODY: Final = 16_384  # bytes


def review_routes(site: Site, browser: Browser) -> list[BaseRoute]:
    """Return the page of what is set aside, and what changes it."""

    def page(request: Request) -> Response:
        found = [(row, _address(browser, row)) for row in browser.review.rows().values()]
        domains = [name for name in dict.fromkeys(row.domain for row, _ in found) if not _is_read(site, name)]
        return site.page("review.html.j2", request, rows=found, unread=domains, file=site.files.review)

    async def change(request: Request) -> Response:
        values = await _read(request)
        return await run_in_threadpool(lambda: JSONResponse(_change(browser, values)))

    return [Route("/review", page), Route("/api/review", change, methods=["POST"])]


def _is_read(site: Site, domain: str) -> bool:
    """Return whether the params name the table as what a domain was reviewed by."""
    known = site.params.domains.get(domain)
    named = None if known is None else known.review
    return named is not None and named.absolute() == site.files.review.absolute()


def _change(browser: Browser, values: dict[str, str]) -> dict[str, Any]:
    """Write a row, or with an empty verdict remove it, and return what the page shows then."""
    domain, image = values["domain"], values["image"]
    if values["verdict"]:
        if values["verdict"] not in list(Verdict):
            raise PixelCAMError(f"verdict: expected {' or '.join(Verdict)}, got {shown(values['verdict'])}")
        collection = _collection_of(browser, domain, image)
        if collection is None:
            raise not_found("such image")
        _check_label(collection, image, values["label"])
        browser.review.put(Reviewed(domain, image, Verdict(values["verdict"]), values["label"], values["note"].strip()))
    else:
        browser.review.remove(domain, image)
    return {name: values[name] for name in ("verdict", "label", "note")} | {"count": len(browser.review.rows())}


def _check_label(collection: Collection, image: str, label: str) -> None:
    """Refuse a class that the domain does not have, and the one that the image has already."""
    own = collection.rows[collection.position[image]].label
    others = [name for name in collection.domain.classes if name != own]
    if label and label not in others:
        raise PixelCAMError(f"label: expected another class of the domain ({', '.join(others)}), got {shown(label)}")


def _collection_of(browser: Browser, domain: str, image: str) -> Collection | None:
    """Return the collection that an image is browsed in."""
    for collection in browser.collections.values():
        if collection.domain.name == domain and image in collection.position:
            return collection
    return None


def _address(browser: Browser, row: Reviewed) -> dict[str, str] | None:
    """Return the parameters of the address of an image that is set aside, None where it is not browsed."""
    collection = _collection_of(browser, row.domain, row.image)
    return None if collection is None else {"in": collection.key, "image": row.image}


async def _read(request: Request) -> dict[str, str]:
    """Return the texts of a request's JSON.

    Raises:
        PixelCAMError: it is too long, or something else.
    """
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > LONGEST_BODY:
            raise PixelCAMError(f"expected at most {LONGEST_BODY} bytes; shorten the note")
    try:
        values = json.loads(body)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PixelCAMError(f"expected JSON ({error})") from error
    if not isinstance(values, dict):
        raise PixelCAMError("expected a JSON object")
    texts = {name: values.get(name, "") for name in COLUMNS}
    if not all(isinstance(text, str) for text in texts.values()):
        raise PixelCAMError(f"expected texts for {', '.join(COLUMNS)}")
    return texts
