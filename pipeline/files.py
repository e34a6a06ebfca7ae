"""Outputs appear whole or not at all: they are written beside their final name and renamed at the end."""

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pandas as pd
from safetensors import SafetensorError

from pipeline.errors import PixelCAMError
from pipeline.processes import is_first
from pipeline.shortages import explain_system_error, system_error

TEMPORARY: Final = re.compile(r"^\.(.+)\.partial$")  # the name of what is not whole yet


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Be the only process that writes to `path`, within the block; the system frees it when a process dies.

    Raises:
        PixelCAMError: another process writes to it.
    """
    lock = path.with_name(f".{path.name}.lock.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PixelCAMError(
                f"{path}: another process is writing it; wait until that has ended (fuser {lock} names it)"
            ) from error
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, remove it on any error.

    Raises:
        PixelCAMError: another process writes to the same path, or the system does not let this one.
    """
    temporary = path.with_name(f".{path.name}.partial")
    with _explaining_refusals(path), only_writer(path):
        try:
            yield temporary
            _flush(temporary)
            temporary.replace(path)
            _flush(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; it takes the place of `path` on success and goes on any error.

    Raises:
        PixelCAMError: another process writes to the same path, or the system does not let this one.
    """
    temporary, former = path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.former.partial")
    with _explaining_refusals(path), only_writer(path):
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
        for leftover in (temporary, former):
            shutil.rmtree(leftover, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            yield temporary
            for written in (*temporary.rglob("*"), temporary):
                _flush(written)
            # Renamed, then removed: a removal cut short would leave half of the old folder under its final name.
            if path.exists():
                path.replace(former)
            temporary.replace(path)
            _flush(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.rmtree(former, ignore_errors=True)


@contextmanager
def _explaining_refusals(path: Path) -> Iterator[None]:
    """Say what to do where the system does not let `path` be written, as when a disk is full."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        refused = system_error(error)
        if refused is None or not _is_about(refused, path):
            raise
        final = Path(*(TEMPORARY.sub(r"\1", part) for part in path.parts))
        raise PixelCAMError(f"{final}: cannot be written: {explain_system_error(refused)}") from error


def _is_about(refused: OSError, path: Path) -> bool:
    """Tell whether a refusal is about `path`, what is written beside it, or a folder that it is in."""
    if refused.filename is None:  # as when there is no room for a block more
        return refused.errno != errno.ENOMEM
    named = Path(os.fsdecode(refused.filename)).absolute()
    ours = {path.absolute(), *path.absolute().parents}
    return named in ours or any(place.name.startswith(f".{path.name}.") for place in (named, *named.parents))


def _flush(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, whole or not at all; of several processes the first does."""
    if not is_first():
        return
    with replacing_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write values as JSON in their order, whole or not at all."""
    write_text(path, json.dumps(values, indent=2, allow_nan=False) + "\n")


def write_csv(path: Path, table: pd.DataFrame | Iterable[pd.DataFrame]) -> None:
    """Write a table as CSV with a header and no index, whole or not at all; of several processes the first does.

    It may come in pieces, one after the other, of which none is kept.
    """
    if not is_first():
        return
    pieces = [table] if isinstance(table, pd.DataFrame) else table
    with replacing_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        for number, piece in enumerate(pieces):
            piece.to_csv(file, header=number == 0, index=False, lineterminator="\n")
