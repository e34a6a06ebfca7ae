"""A prepared domain in one folder: what its classes mean, and one table of its images with label, mask and split."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path, PurePosixPath, PureWindowsPath
from sys import intern
from typing import Any, Final

import pandas as pd
from pyarrow.parquet import ParquetFile

from pipeline.data.review import refuse_other_review
from pipeline.params.config import Params
from pipeline.params.errors import PixelCAMError, named, shown
from pipeline.params.types import GENERATED, AnyDomain
from pipeline.runtime.files import replacing_file, write_json

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


class Split(StrEnum):
    """What an image is for: training, selection, or the score."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


@dataclass(frozen=True, kw_only=True, slots=True)  # slots: there may be millions
class ManifestRow:
    """One image of a domain. Empty text stands for what is not known.

    `image`, `mask` and `ignore_mask` are POSIX paths relative to the domain's root, so that a manifest is the same on
    every machine; `image` doubles as the image's id. `width` and `height` are in pixels; checksums are SHA-256 of the
    files. `label` is the class name, `class_idx` its index. `mask_selectable` says whether the mask may be used to
    choose a threshold or a model (the field's splits allow a few).

    A tile of a slide has no file: `slide` is the slide's, `x` and `y` its upper left corner in pixels of level 0,
    `downsample` how many of these make one of its own, and `slide_sha256` the slide's fingerprint. Its `mask` is the
    file of its slide's lesions, from the folder of the prepared domain.
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
    slide: str = ""
    x: int = 0
    y: int = 0
    downsample: float = 0.0
    slide_sha256: str = ""


@dataclass(frozen=True)
class Manifest:
    """The images of one domain, the folder their paths start from, and the folder of what preparation wrote of them."""

    rows: tuple[ManifestRow, ...]
    root: Path
    folder: Path | None = field(default=None, compare=False)

    def of_split(self, split: Split) -> "Manifest":
        """Return the manifest of one split, in the same order."""
        return replace(self, rows=tuple(row for row in self.rows if row.split == split))

    def __len__(self) -> int:
        return len(self.rows)


ALL_COLUMNS = tuple(field.name for field in fields(ManifestRow))
COLUMNS = ALL_COLUMNS[: ALL_COLUMNS.index("slide")]  # where no image is a tile
MAX_DIGITS = 9  # of a class index or a side in pixels
PIECE: Final = 50_000  # rows of Parquet that are read at once
MOST_IN_CSV: Final = 100_000  # rows; more are written as Parquet, a tenth of the bytes and of the time


def manifest_file(rows: Sequence[ManifestRow]) -> str:
    """Return the name of a file for rows, by its ending Parquet where there are many."""
    return MANIFEST if len(rows) <= MOST_IN_CSV else MANIFEST_PARQUET


def write_manifest(rows: Sequence[ManifestRow], path: Path) -> None:
    """Write rows as CSV (UTF-8, comma, header), or Parquet if `path` ends so, whole or not at all.

    Raises:
        PixelCAMError: a text holds control characters or undecodable bytes.
    """
    for row in rows:
        for column in COLUMNS:
            value = getattr(row, column)
            if isinstance(value, str) and not is_writable(value):
                raise PixelCAMError(f"{shown(row.image)}: {column} holds control characters, {shown(value)}; rename it")
    columns = ALL_COLUMNS if any(row.slide for row in rows) else COLUMNS
    table = pd.DataFrame({column: [getattr(row, column) for row in rows] for column in columns})
    with replacing_file(path) as temporary:
        if path.suffix == PARQUET:
            table.to_parquet(temporary, index=False, compression="zstd")
        else:
            table.to_csv(temporary, index=False, lineterminator="\n")


def read_manifest(path: Path, *, root: Path | None) -> Manifest:
    """Read a manifest written by `write_manifest`.

    Args:
        path: the CSV or Parquet file.
        root: the folder image paths start from; None takes the manifest's own folder (generated domains).

    Raises:
        PixelCAMError: the file is missing, has other columns, or holds a value of the wrong kind or a path that
            leaves the root.
    """
    rows: list[ManifestRow] = []
    try:
        for table in _tables(path):
            columns = tuple(table.columns)
            if columns not in (COLUMNS, ALL_COLUMNS):
                raise ValueError(f"expected the columns {', '.join(COLUMNS)}, got {named(', '.join(columns))}")
            values = table.itertuples(index=False, name=None)
            rows.extend(_row(dict(zip(columns, row, strict=True))) for row in values)
    except (ValueError, PixelCAMError) as error:
        raise PixelCAMError(f"{path}: {error}; run the prepare stage again") from error
    return Manifest(tuple(rows), path.parent if root is None else root, path.parent)


def _tables(path: Path) -> Iterator[pd.DataFrame]:
    """Yield a manifest as text, in one piece, or of Parquet piece by piece, since that may be large."""
    try:
        if path.suffix == PARQUET:
            for batch in ParquetFile(path).iter_batches(PIECE):
                yield batch.to_pandas().astype(str)
        else:
            yield pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise PixelCAMError(f"cannot be read as a manifest ({error})") from error


def _row(values: dict[str, str]) -> ManifestRow:
    if values["mask_selectable"] not in ("True", "False"):
        raise ValueError(f"mask_selectable must be True or False, got {shown(values['mask_selectable'])}")
    relative_path(values["image"])
    for column in ("mask", "ignore_mask"):
        if values[column]:
            relative_path(values[column])
    return ManifestRow(
        image=values["image"],
        mask=intern(values["mask"]),
        ignore_mask=values["ignore_mask"],
        label=intern(values["label"]),
        class_idx=_number(values, "class_idx", least=0),
        split=Split(values["split"]),
        patient=intern(values["patient"]),
        width=_number(values, "width", least=1),
        height=_number(values, "height", least=1),
        image_sha256=values["image_sha256"],
        mask_sha256=intern(values["mask_sha256"]),
        mask_selectable=values["mask_selectable"] == "True",
        **(_tile_place(values) if values.get("slide") else {}),
    )


def _tile_place(values: dict[str, str]) -> dict[str, Any]:
    """Return where a tile lies on its slide."""
    return {
        "slide": intern(relative_path(values["slide"])),
        "x": _number(values, "x", least=0),
        "y": _number(values, "y", least=0),
        "downsample": float(values["downsample"]),
        "slide_sha256": intern(values["slide_sha256"]),
    }


def _number(values: dict[str, str], column: str, *, least: int) -> int:
    text = values[column]
    if not text.isdecimal() or len(text) > MAX_DIGITS or int(text) < least:
        raise ValueError(f"{column} must be a whole number from {least} on, got {shown(text)}")
    return int(text)


PARQUET: Final = ".parquet"
MANIFEST: Final = "manifest.csv"
MANIFEST_PARQUET: Final = f"manifest{PARQUET}"
CLASSES: Final = "classes.json"


@dataclass(frozen=True)
class PreparedDomain:
    """A domain by name.

    Attributes:
        name: as in params.yaml.
        classes: class names in the order of `class_idx`.
        background_class_idx: the class whose images hold no region of interest, None where every class has one.
        manifest: the images that were prepared.
    """

    name: str
    classes: tuple[str, ...]
    background_class_idx: int | None
    manifest: Manifest


def write_classes(folder: Path, domain: AnyDomain) -> None:
    """Write what the classes of a domain mean, so that later stages depend on it and not on where its files lie."""
    write_json(folder / CLASSES, {"classes": list(domain.classes), "background_class_idx": domain.background_class_idx})


def read_domain(name: str, params: Params, folder: Path, *, as_reviewed: bool = True) -> PreparedDomain:
    """Read a prepared domain; image paths start from the domain's root, or from the folder if it was generated.

    Args:
        name: of the domain.
        params: all parameters.
        folder: of the prepared domain.
        as_reviewed: whether its images must be those that its review, as it is now, leaves.

    Raises:
        PixelCAMError: a file of the folder is missing or damaged, or the review has changed since.
    """
    domain = params.domain(name)
    root = None if isinstance(domain, GENERATED) else domain.root
    path = folder / CLASSES
    try:
        classes, background_class_idx = _read_classes(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PixelCAMError(f"{path}: cannot be read ({error}); run 'dvc repro -f prepare@{name}'") from error
    if as_reviewed:
        refuse_other_review(name, params, folder)
    table = folder / MANIFEST_PARQUET
    manifest = read_manifest(table if table.exists() else folder / MANIFEST, root=root)
    for row in manifest.rows:
        if row.class_idx >= len(classes):
            raise PixelCAMError(
                f"{folder / MANIFEST}: {row.image} has class index {row.class_idx}, but {CLASSES} lists {len(classes)} "
                f"classes; run 'dvc repro -f prepare@{name}'"
            )
    return PreparedDomain(name, classes, background_class_idx, manifest)


def _read_classes(path: Path) -> tuple[tuple[str, ...], int | None]:
    """Return class names and the index of the background class; raise what Python raises where they are not there."""
    meaning = json.loads(path.read_text(encoding="utf-8"))
    classes, background_class_idx = meaning["classes"], meaning["background_class_idx"]
    if not isinstance(classes, list) or not all(isinstance(label, str) for label in classes):
        raise ValueError("classes must be a list of names")
    if background_class_idx is not None and background_class_idx not in range(len(classes)):
        raise ValueError(f"background_class_idx must be null or an index of classes, got {background_class_idx!r}")
    return tuple(classes), background_class_idx
