"""Text files that people write: read row by row, and all that is wrong with them told at once."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from pipeline.params.errors import PixelCAMError, named
from pipeline.runtime.console import say

MAX_FAULTS_SHOWN = 20


def raise_faults(faults: Sequence[str], *, source: Path) -> None:
    """Raise one error that lists what is wrong with `source`, the first twenty in full; do nothing without faults.

    Raises:
        PixelCAMError: there is at least one fault.
    """
    if not faults:
        return
    lines = [f"  {fault}" for fault in faults[:MAX_FAULTS_SHOWN]]
    if len(faults) > MAX_FAULTS_SHOWN:
        lines.append(f"  ... and {len(faults) - MAX_FAULTS_SHOWN} more")
    raise PixelCAMError("\n".join([f"{source}: {len(faults)} fault(s) to mend; nothing was written", *lines]))


def read_text(path: Path) -> str:
    """Read a dataset's text file as UTF-8, with or without byte-order mark; any line end becomes a newline.

    Raises:
        PixelCAMError: the file is missing, unreadable or in another encoding.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise PixelCAMError(
            f"{path}: cannot be read ({error.strerror}); expected a text file of the dataset"
        ) from error
    except UnicodeDecodeError as error:
        raise PixelCAMError(f"{path}: is not UTF-8 text ({error.reason}); save it as UTF-8") from error


def read_rows(path: Path, *, required: tuple[str, ...], optional: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    """Return (line number, known columns) per row of a CSV file that is not blank.

    Raises:
        PixelCAMError: the file cannot be read, is no CSV, or lacks a required column.
    """
    reader = csv.reader(io.StringIO(read_text(path)), strict=True)
    try:
        header = [column.strip() for column in next(reader, [])]
        _check_header(header, required, optional, path=path)
        rows = [(reader.line_num, fields) for fields in reader if any(field.strip() for field in fields)]
    except csv.Error as error:
        raise PixelCAMError(
            f"{path}: line {reader.line_num}: is not valid CSV ({error}); close every double quote, and save it as CSV"
        ) from error
    raise_faults(
        [
            f"line {number}: expected {len(header)} fields, got {len(fields)}; put values with commas in double quotes"
            for number, fields in rows
            if len(fields) != len(header)
        ],
        source=path,
    )
    known = {column: header.index(column) for column in required + optional if column in header}
    return [(number, {column: fields[i].strip() for column, i in known.items()}) for number, fields in rows]


def _check_header(header: list[str], required: tuple[str, ...], optional: tuple[str, ...], *, path: Path) -> None:
    missing = [column for column in required if column not in header]
    if missing and len(header) == 1 and any(mark in header[0] for mark in ";\t"):
        raise PixelCAMError(f"{path}: is separated by semicolons or tabs; save it as CSV with commas")
    if missing:
        came = named(", ".join(header)) if header else "no header"
        raise PixelCAMError(f"{path}: lacks the column {' and '.join(missing)}, got {came}; name the columns in line 1")
    for column in required + optional:
        if header.count(column) > 1:
            raise PixelCAMError(f"{path}: has the column {column} twice; keep one")
    unknown = [column for column in header if column not in required + optional]
    if unknown:
        known = ", ".join(required + optional)
        say(f"{path}: columns that are not used: {named(', '.join(unknown))} (used are {known})")
