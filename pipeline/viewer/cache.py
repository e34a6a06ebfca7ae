"""What is computed once, as files in a folder that may be removed at any time."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final

from pipeline.params.errors import PixelCAMError
from pipeline.runtime.files import explain_system_error

MARK: Final = ".gitignore"  # so that git passes the folder by, wherever it is


class Cache:
    """Files by what determines their content; may be used in any thread.

    Args:
        folder: is made when it is first written to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, kind: str, key: str, make: Callable[[], bytes]) -> bytes:
        """Return what is kept under a key, made now if it is not yet there.

        Args:
            kind: what is kept, such as thumbnails: a folder.
            key: all that determines the bytes; any text.
            make: makes them.

        Raises:
            PixelCAMError: the folder cannot be written to.
        """
        digest = hashlib.sha256(key.encode()).hexdigest()
        path = self._folder / kind / digest[:2] / digest[2:]
        try:
            return path.read_bytes()
        except FileNotFoundError:
            made = make()
        except OSError as error:
            raise self._refused(error) from error
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not (mark := self._folder / MARK).exists():
                mark.write_text("*\n", encoding="utf-8")
            with NamedTemporaryFile(dir=path.parent, delete=False) as file:
                file.write(made)
            Path(file.name).replace(path)  # whole, or not there
        except OSError as error:
            raise self._refused(error) from error
        return made

    def _refused(self, error: OSError) -> PixelCAMError:
        return PixelCAMError(f"{self._folder}: {explain_system_error(error)}; or name another folder with --cache")
