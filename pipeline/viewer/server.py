"""The local page on a port of this machine, which no other machine reaches."""

import socket
from collections.abc import Callable
from contextlib import closing

import uvicorn
from starlette.types import ASGIApp

from pipeline.params.errors import PixelCAMError
from pipeline.runtime.files import explain_system_error
from pipeline.viewer.app import create_app
from pipeline.viewer.security import HOST, TOKEN, new_token
from pipeline.viewer.site import Site


def serve(site: Site, *, port: int, announce: Callable[[str], None]) -> None:
    """Serve the page over a run until somebody ends it with Ctrl-C.

    Args:
        site: the run.
        port: 0 takes a free one.
        announce: is given the address, token and all, once everything is ready.

    Raises:
        PixelCAMError: the port cannot be had, or the run cannot be read.
    """
    with closing(listen(port)) as listening:
        taken, token = listening.getsockname()[1], new_token()
        app = create_app(site, port=taken, token=token)
        announce(f"http://{HOST}:{taken}/?{TOKEN}={token}")
        make_server(app).run(sockets=[listening])


def make_server(app: ASGIApp) -> uvicorn.Server:
    """Return what answers requests by a program; it writes no address down, since the first holds the token."""
    config = uvicorn.Config(app, access_log=False, lifespan="off", log_level="warning", server_header=False, ws="none")
    return uvicorn.Server(config)


def listen(port: int) -> socket.socket:
    """Return a socket that listens on a port of this machine, for this machine alone.

    Raises:
        PixelCAMError: the port cannot be had.
    """
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        raise PixelCAMError(
            f"port {port} cannot be used ({explain_system_error(error)}); leave --port out to take a free one"
        ) from error
