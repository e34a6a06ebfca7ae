"""Packages of npm that pages are made with, found where `npm ci` puts them."""

from pathlib import Path

from pipeline.params.errors import PixelCAMError


def node_package(name: str) -> Path:
    """Return the folder of an npm package below the working folder.

    Raises:
        PixelCAMError: it is not installed.
    """
    folder = Path("node_modules") / name
    if not folder.is_dir():
        raise PixelCAMError(f"{folder}: is not installed; run 'npm ci' in the project's folder")
    return folder
