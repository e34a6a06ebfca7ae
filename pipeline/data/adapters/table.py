"""The `table` adapter: a CSV that names images and labels, the shortest way to bring one's own data."""

import csv
import io
from pathlib import Path

from pipeline.data.adapters.listing import Listing, raise_faults, read_text
from pipeline.data.manifest import Split, is_writable, relative_path
from pipeline.params.errors import PixelCAMError, named, shown
from pipeline.params.types import TableDomain
from pipeline.runtime.console import say

REQUIRED = ("image", "label")
OPTIONAL = ("mask", "patient", "split")


def list_table(domain: TableDomain) -> list[Listing]:
    """List the rows of `domain.table` (relative to the root, or absolute) in their order.

    Columns: image and label; optional mask, patient and split (train, val or test); others are ignored, and told. Paths
    are relative to the root.

    Raises:
        PixelCAMError: the table cannot be read, lacks a column, or rows hold no label, an unknown split, a bad path or
            control characters.
    """
    path = domain.root / domain.table
    listings = []
    faults = []
    for number, values in read_rows(path, required=REQUIRED, optional=OPTIONAL):
        try:
            listings.append(_listing(values))
        except PixelCAMError as error:
            faults.append(f"line {number}: {error}")
    raise_faults(faults, source=path)
    return listings


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


def _listing(values: dict[str, str]) -> Listing:
    if not values["label"]:
        raise PixelCAMError(f"{shown(values['image'])}: has no label; fill it in or remove the row")
    for column in ("label", "patient"):
        if not is_writable(values.get(column, "")):
            raise PixelCAMError(
                f"{shown(values['image'])}: {column} holds control characters, {shown(values[column])}; type it again"
            )
    split = split_named(values["split"], image=values["image"]) if "split" in values else None
    mask = values.get("mask", "")
    return Listing(
        image=relative_path(values["image"]),
        mask=relative_path(mask) if mask else "",
        ignore_mask="",
        label=values["label"],
        patient=values.get("patient", ""),
        split=split,
        mask_selectable=split == Split.VAL,
        size=None,
    )


def split_named(text: str, *, image: str) -> Split:
    """Return the split that a table names; raise a `PixelCAMError` if there is none of that name."""
    if text not in {split.value for split in Split}:
        raise PixelCAMError(f"{shown(image)}: split must be train, val or test, got {shown(text)}")
    return Split(text)
