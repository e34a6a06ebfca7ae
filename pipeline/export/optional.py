"""Packages that only those need who export: they are no part of the base installation."""

import importlib
from typing import Any

from pipeline.params.errors import PixelCAMError


def optional_module(name: str, *, extra: str = "export") -> Any:  # noqa: ANN401 - any module
    """Import a module that an extra brings; raise a `PixelCAMError` that says what to install where it is missing."""
    package = name.split(".", maxsplit=1)[0]
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise PixelCAMError(
            f"{package} is needed and cannot be imported ({error}); run: pip install 'pixelcam[{extra}]', "
            f"or in a checkout: pip install -e '.[{extra}]' -c constraints.txt"
        ) from error
