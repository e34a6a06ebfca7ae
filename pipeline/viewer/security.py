"""Who may ask the local page for anything: this machine's browser, with the token that the terminal printed.

Any page that the same browser shows could send requests to 127.0.0.1, and by a name of its own that it lets point there
(DNS rebinding) read the answers. So the name that was asked for must be this machine's, every request must bring the
token, at first in the address and then in a cookie that no other site's request carries, and what changes something
must come from the page itself. Pages may load nothing but what is served here, and run no script that stands in them.
"""

import secrets
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOST: Final = "127.0.0.1"
NAMES: Final = (HOST, "localhost")  # that a browser may call this machine by
TOKEN: Final = "token"  # the name of a parameter
READING: Final = ("GET", "HEAD")
WRITING: Final = ("POST",)
HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self' data: blob:; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
# Not a redirection: a browser that followed a link of another site to here would send the cookie to none.
WELCOME: Final = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="0; url=/">'
    '<link rel="icon" href="data:,"><title>PixelCAM</title><p><a href="/">Continue</a></p></html>'
)


def new_token() -> str:
    """Return a secret of 256 random bits, as text that an address can hold."""
    return secrets.token_urlsafe(32)


class Guard:
    """Let requests through to a program, or refuse them with 403 and a sentence; an ASGI application.

    Args:
        app: what is guarded.
        port: that the program listens on.
        token: what every request must bring.
    """

    def __init__(self, app: ASGIApp, *, port: int, token: str) -> None:
        self._app = app
        self._hosts = {f"{name}:{port}" for name in NAMES}
        self._cookie = f"pixelcam_{port}"  # a browser keeps one jar for all ports of a machine
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        answer = self._answer(Request(scope)) or self._app

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await answer(scope, receive, send_with_headers)

    def _answer(self, request: Request) -> Response | None:
        """Return a refusal, or the page that keeps the token; None for what may pass."""
        host = request.headers.getlist("host")
        if len(host) != 1 or host[0] not in self._hosts:
            return refusal("this page answers to 127.0.0.1 and localhost alone; open the address that was printed")
        if request.method not in (*READING, *WRITING):
            return PlainTextResponse("error: this page knows GET and POST", status_code=405)
        if request.method in WRITING and request.headers.get("origin") != f"http://{host[0]}":
            return refusal("a change must come from this page itself")
        if self._is_token(request.query_params.get(TOKEN)):
            return self._welcome()
        if not self._is_token(request.cookies.get(self._cookie)):
            return refusal("the token is missing or another; open the address that 'pixelcam view' printed")
        return None

    def _is_token(self, given: str | None) -> bool:
        return given is not None and secrets.compare_digest(given.encode("utf-8", "replace"), self._token)

    def _welcome(self) -> Response:
        response = HTMLResponse(WELCOME)
        response.set_cookie(self._cookie, self._token.decode(), httponly=True, samesite="strict", path="/")
        return response


def refusal(reason: str) -> Response:
    """Return 403 and why."""
    return PlainTextResponse(f"refused: {reason}", status_code=403)
