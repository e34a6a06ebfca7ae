"""The manifest: one table per domain that names every image, its label, mask, split and checksum."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path

import pandas as pd

from pipeline.errors import PixelCAMError, named, shown
from pipeline.files import replacing_file
from pipeline.paths import is_writable, relative_path


class Split(StrEnum):
    """What an image is for: training, selection, or the score."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


@dataclass(frozen=True, kw_only=True)
class ManifestRow:
    """One image of a domain. Empty text stands for what is not known.

    `image`, `mask` and `ignore_mask` are POSIX paths relative to the domain's root, so that a manifest is the same on
    every machine; `image` doubles as the image's id. `width` and `height` are in pixels; checksums are SHA-256 of the
    files. `label` is the class name, `class_idx` its index. `mask_selectable` says whether the mask may be used to
    choose a threshold or a model (the field's splits allow a few).
    """

    image: str
    mask: str
    ignore_mask: str
    label: str
    class_idx: int
    split: Split
    patient: str
    width: int
    height: int
    image_sha256: str
    mask_sha256: str
    mask_selectable: bool


@dataclass(frozen=True)
class Manifest:
    """The images of one domain and the folder their paths start from."""

    rows: tuple[ManifestRow, ...]
    root: Path

    def of_split(self, split: Split) -> "Manifest":
        """Return the manifest of one split, in the same order."""
        return Manifest(tuple(row for row in self.rows if row.split == split), self.root)

    def __len__(self) -> int:
        return len(self.rows)


COLUMNS = tuple(field.name for field in fields(ManifestRow))
MAX_DIGITS = 9  # of a class index or a side in pixels


def write_manifest(rows: Sequence[ManifestRow], path: Path) -> None:
    """Write rows as CSV (UTF-8, comma, header), whole or not at all.

    Raises:
        PixelCAMError: a text holds control characters or undecodable bytes.
    """
    for row in rows:
        for column, value in vars(row).items():
            if isinstance(value, str) and not is_writable(value):
                raise PixelCAMError(f"{shown(row.image)}: {column} holds control characters, {shown(value)}; rename it")
    table = pd.DataFrame([vars(row) for row in rows], columns=list(COLUMNS))
    with replacing_file(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def read_manifest(path: Path, *, root: Path | None) -> Manifest:
    """Read a manifest written by `write_manifest`.

    Args:
        path: the CSV file.
        root: the folder image paths start from; None takes the manifest's own folder (generated domains).

    Raises:
        PixelCAMError: the file is missing, has other columns, or holds a value of the wrong kind or a path that
            leaves the root.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise PixelCAMError(f"{path}: cannot be read as a manifest ({error}); run the prepare stage again") from error
    if tuple(table.columns) != COLUMNS:
        raise PixelCAMError(
            f"{path}: expected the columns {', '.join(COLUMNS)}, got {named(', '.join(table.columns))}; "
            "run the prepare stage again"
        )
    try:
        rows = tuple(
            _row(dict(zip(COLUMNS, values, strict=True))) for values in table.itertuples(index=False, name=None)
        )
    except (ValueError, PixelCAMError) as error:
        raise PixelCAMError(f"{path}: {error}; run the prepare stage again") from error
    return Manifest(rows, path.parent if root is None else root)


def _row(values: dict[str, str]) -> ManifestRow:
    if values["mask_selectable"] not in ("True", "False"):
        raise ValueError(f"mask_selectable must be True or False, got {shown(values['mask_selectable'])}")
    relative_path(values["image"])
    for column in ("mask", "ignore_mask"):
        if values[column]:
            relative_path(values[column])
    return ManifestRow(
        image=values["image"],
        mask=values["mask"],
        ignore_mask=values["ignore_mask"],
        label=values["label"],
        class_idx=_number(values, "class_idx", least=0),
        split=Split(values["split"]),
        patient=values["patient"],
        width=_number(values, "width", least=1),
        height=_number(values, "height", least=1),
        image_sha256=values["image_sha256"],
        mask_sha256=values["mask_sha256"],
        mask_selectable=values["mask_selectable"] == "True",
    )


def _number(values: dict[str, str], column: str, *, least: int) -> int:
    text = values[column]
    if not text.isdecimal() or len(text) > MAX_DIGITS or int(text) < least:
        raise ValueError(f"{column} must be a whole number from {least} on, got {shown(text)}")
    return int(text)
