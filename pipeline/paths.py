"""Paths that data names: below a root, written with /, and never a way out of it."""

import os
import re
from pathlib import Path, PurePosixPath, PureWindowsPath

from pipeline.errors import PixelCAMError, shown

# A bare carriage return would end a table's row for some readers, half a surrogate pair is no UTF-8.
_UNWRITABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


def is_writable(text: str) -> bool:
    """Return whether a text can stand in a manifest: it holds no control character and no undecodable byte."""
    return _UNWRITABLE.search(text) is None


def relative_path(text: str) -> str:
    """Return a dataset's path in normal form, refusing one that leaves the root.

    Raises:
        PixelCAMError: the path is empty, absolute, climbs with `..`, is written with backslashes or holds control
            characters.
    """
    path = PurePosixPath(text)
    if not path.parts:
        raise PixelCAMError(f"{shown(text)}: expected a file below the root, got no name; name the file")
    if not is_writable(text):
        raise PixelCAMError(f"{shown(text)}: expected a plain name, got control characters; rename the file")
    if path.is_absolute() or PureWindowsPath(text).drive:
        raise PixelCAMError(f"{shown(text)}: is absolute; write paths relative to the domain's root")
    if "\\" in text:
        raise PixelCAMError(f"{shown(text)}: is written with backslashes; use / between folders")
    if ".." in path.parts:
        raise PixelCAMError(f"{shown(text)}: leaves the root with '..'; choose a root that holds every file")
    return str(path)


def refuse_way_out(name: str, *, root: Path) -> None:
    """Refuse a file that a link, its own or that of a folder above it, takes out of the root.

    Raises:
        PixelCAMError: says where the link leads.
    """
    target = Path(os.path.realpath(root / name))
    if not target.is_relative_to(os.path.realpath(root)):
        raise PixelCAMError(
            f"{root / name}: expected a file below the root, got a link that leads to {target}; copy the file to its "
            "place, or choose a root that holds both"
        )
