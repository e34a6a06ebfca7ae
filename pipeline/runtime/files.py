"""Outputs appear whole or not at all; and what a machine runs short of meanwhile, as a sentence with a remedy.

They are written beside their final name and renamed at the end.
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pandas as pd
from safetensors import SafetensorError

from pipeline.params.errors import PixelCAMError
from pipeline.runtime.processes import is_first

SAME_AGAIN: Final = "run the same command again"
# What each stage's memory goes by, as params.yaml calls it.
LOWER: Final[Mapping[str, tuple[str, ...]]] = {
    "train_teacher": ("train_teacher.batch_size", "model.input_size"),
    "extract_pseudo_labels": ("extract_pseudo_labels.batch_size", "cam.scales", "pixelcam_map.scales"),
    "train_pixelcam": ("train_pixelcam.batch_size", "model.input_size"),
    "adapt": ("adaptation.DOMAIN.batch_size", "model.input_size"),
    "bound": ("train_teacher.batch_size", "train_pixelcam.batch_size", "model.input_size"),
    "repeat": ("train_teacher.batch_size", "train_pixelcam.batch_size", "model.input_size"),
    "evaluate_ood": ("evaluate_ood.batch_size", "cam.scales", "pixelcam_map.scales"),
    "report": ("report.images_per_domain", "cam.scales", "pixelcam_map.scales"),
}
_REMEDIES: Final[Mapping[int, str]] = {
    errno.ENOSPC: "free some space there and " + SAME_AGAIN,
    errno.EDQUOT: "remove some of your files there and " + SAME_AGAIN,
    errno.EFBIG: "raise the limit for the size of a file (ulimit -f) and " + SAME_AGAIN,
    errno.EROFS: "mount it to be written to, or name another place",
    errno.EACCES: "change its owner or its permissions (chown, chmod), or name another place",
    errno.EPERM: "change its owner, its permissions or its attributes (chown, chmod, lsattr), or name another place",
    errno.EEXIST: "something of another kind has this name: move it away",
    errno.ENOTDIR: "a file stands where a folder is needed: move it away",
    errno.EISDIR: "a folder stands where a file is needed: move it away",
    errno.EIO: "the disk fails: save what is on it and use another",
    errno.EMFILE: "raise the limit for open files (ulimit -n)",
}
# Of these, the place is the cause and not what the file holds.
_NOT_THE_FILE: Final = {*_REMEDIES, errno.ENOMEM, errno.ENFILE} - {errno.EEXIST, errno.ENOTDIR, errno.EISDIR}
# What libraries say where the system's allocator, or that of a GPU, gave nothing.
_OUT_OF_MEMORY: Final = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED", "bad_alloc")
_ONE_VALUE: Final = "Expected more than 1 value per channel when training"
_ASKED: Final = re.compile(r"(?:tried|unable) to allocate ([\d.]+ ?\w+)", re.IGNORECASE)
_OS_ERROR: Final = re.compile(r"os error (\d+)|os_error_code='(\d+)'")  # of Rust, of tensorstore


def system_error(error: Exception) -> OSError | None:
    """Return what the system refused: the error itself, or what a library said of it; None if it did not."""
    if isinstance(error, OSError):
        return None if error.errno is None or isinstance(error, BrokenPipeError) else error
    said = _OS_ERROR.search(str(error))
    return OSError(number := int(said.group(1) or said.group(2)), os.strerror(number)) if said else None


def is_shortage(error: Exception) -> bool:
    """Tell whether something failed for want of memory, room or rights, so that what was read may well be whole."""
    refused = system_error(error)
    return _is_out_of_memory(error) or (refused is not None and refused.errno in _NOT_THE_FILE)


def explain_system_error(error: OSError) -> str:
    """Return what the system refused, and the remedy."""
    number = error.errno or 0
    return f"{os.strerror(number)}; {_REMEDIES.get(number, 'mend that and ' + SAME_AGAIN)}"


def explain_shortage(error: Exception, program: str) -> str | None:
    """Return a sentence for an error that the machine is the cause of, not the code; None for any other.

    Args:
        error: what a program ended with.
        program: a stage, or a command.
    """
    text = first_line(error)
    refused = system_error(error)
    if _is_out_of_memory(error) or (refused is not None and refused.errno == errno.ENOMEM):
        asked = _ASKED.search(str(error))
        need = f" for {asked.group(1)} more" if asked else ""
        return f"{program}: there is not enough memory{need}; {_less_memory(program)}"
    if _ONE_VALUE in text:
        return (
            f"{program}: batch normalization needs more than one value of each channel in a batch, got one image with "
            f"one feature cell; raise {program}.batch_size or model.input_size, or set {program}.frozen to batch_norm"
        )
    if isinstance(error, BrokenExecutor) or text.startswith("DataLoader worker"):
        return (
            f"{program}: a worker process died ({text}); if the system ended it for want of memory (dmesg says so), "
            f"{_less_memory(program)}, and {SAME_AGAIN}"
        )
    if refused is None:
        return None
    return f"{refused.filename or program}: {explain_system_error(refused)}"


def first_line(error: Exception) -> str:
    """Return the first line of an error's message without what follows a first full stop, or its kind."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].split(". ")[0].rstrip(".")


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _OUT_OF_MEMORY)


def _less_memory(program: str) -> str:
    if program not in LOWER:
        return "end other programs, or use a machine with more"
    *others, last = LOWER[program]
    return f"lower {', '.join(others)} or {last} in the params, or use a machine with more"


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
        except PixelCAMError as error:  # what it names is gone when it is read
            raise PixelCAMError(str(error).replace(str(temporary), str(path))) from error
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
