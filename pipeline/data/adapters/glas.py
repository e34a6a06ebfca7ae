"""The `glas` adapter: GlaS (Sirinukunwattana et al. 2017) read from the folder just as it is published."""

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pipeline.data.adapters.listing import Listing
from pipeline.data.adapters.splits import SplitEntry, class_name, read_split_files
from pipeline.data.text_rows import raise_faults, read_text
from pipeline.params.errors import PixelCAMError, named, shown
from pipeline.params.types import GlasDomain

PUBLISHED_FOLDER = "Warwick_QU_Dataset_(Released_2016_07_08)"
GRADES_FILE = "Grade.csv"
MASK_SUFFIX = "_anno"
LOSSLESS = (".bmp", ".png", ".tif", ".tiff", ".webp")
NAME, PATIENT, GRADE = "name", "patient ID", "grade (GlaS)"


def list_glas(domain: GlasDomain) -> list[Listing]:
    """List the images of Grade.csv with grade, patient and mask; `domain.splits` (relative to the root) gives splits.

    Images lie beside Grade.csv or in its subfolder `images`, as any lossless format. Split files are matched by image
    name without folder and extension, and their class index must agree with the grade.

    Raises:
        PixelCAMError: Grade.csv is missing or malformed, images or masks are missing, or split files disagree with it.
    """
    folder = _data_folder(domain.root)
    listings = _list_images(folder, root=domain.root)
    if domain.splits is None:
        return list(listings.values())
    return _with_splits(listings, folder=domain.root / domain.splits, classes=domain.classes)


def _data_folder(root: Path) -> Path:
    for folder in (root, root / PUBLISHED_FOLDER):
        if (folder / GRADES_FILE).is_file():
            return folder
    raise PixelCAMError(
        f"{root / GRADES_FILE}: does not exist, nor does {PUBLISHED_FOLDER}/{GRADES_FILE} below it; "
        "let root be the folder with train_1.bmp, train_1_anno.bmp, ..., Grade.csv, or the one above it"
    )


def _list_images(folder: Path, *, root: Path) -> dict[str, Listing]:
    """Return one listing per row of Grade.csv, by image name."""
    images = folder / "images" if (folder / "images").is_dir() else folder
    files = _files_by_stem(images)
    listings: dict[str, Listing] = {}
    faults = []
    for name, patient, grade in _read_grades(folder / GRADES_FILE):
        image, mask = files.get(name, []), files.get(name + MASK_SUFFIX, [])
        for stem, found in ((name, image), (name + MASK_SUFFIX, mask)):
            if len(found) != 1:
                got = "none" if not found else " and ".join(path.name for path in found)
                faults.append(f"{stem}: expected one file {stem}.bmp (or {', '.join(LOSSLESS[1:])}), got {got}")
        if name in listings:
            faults.append(f"{named(name)}: has two rows in {GRADES_FILE}; keep one")
        if len(image) == len(mask) == 1:
            listings[name] = Listing(
                image=image[0].relative_to(root).as_posix(),
                mask=mask[0].relative_to(root).as_posix(),
                ignore_mask="",
                label=grade,
                patient=patient,
                split=None,
                mask_selectable=False,
                size=None,
            )
    raise_faults(faults, source=images)
    return listings


def _files_by_stem(folder: Path) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in LOSSLESS and not path.name.startswith("."):
            files.setdefault(path.stem, []).append(path)
    return files


def _read_grades(path: Path) -> list[tuple[str, str, str]]:
    """Return (name, patient, grade) per row; as published, rows end with a bare carriage return and spaces pad."""
    reader = csv.reader(read_text(path).split("\n"))
    try:
        return _grades(reader, path=path)
    except csv.Error as error:
        raise PixelCAMError(
            f"{path}: line {reader.line_num}: is not valid CSV ({error}); restore the file as published"
        ) from error


def _grades(reader: Iterator[list[str]], *, path: Path) -> list[tuple[str, str, str]]:
    header = [column.strip() for column in next(reader, [])]
    if not {NAME, PATIENT, GRADE} <= set(header):
        raise PixelCAMError(
            f"{path}: expected the columns {NAME}, {PATIENT}, {GRADE}, got {named(', '.join(header))}; restore the "
            "file as published"
        )
    columns = [header.index(column) for column in (NAME, PATIENT, GRADE)]
    rows: list[tuple[str, str, str]] = []
    faults = []
    for number, fields in enumerate(reader, start=2):
        if not any(field.strip() for field in fields):
            continue
        if len(fields) <= max(columns) or not fields[columns[0]].strip():
            faults.append(f"line {number}: expected {len(header)} fields, got {shown(','.join(fields))}")
            continue
        name, patient, grade = (fields[column].strip() for column in columns)
        rows.append((name, patient, grade))
    raise_faults(faults, source=path)
    return rows


def _with_splits(listings: dict[str, Listing], *, folder: Path, classes: tuple[str, ...]) -> list[Listing]:
    """Return the images that the split files name, with their splits."""
    result = []
    faults = []
    for entry in read_split_files(folder):
        try:
            result.append(_with_split(listings.get(Path(entry.image).stem), entry=entry, classes=classes))
        except PixelCAMError as error:
            faults.append(str(error))
    raise_faults(faults, source=folder)
    return result


def _with_split(listing: Listing | None, *, entry: SplitEntry, classes: tuple[str, ...]) -> Listing:
    if listing is None:
        raise PixelCAMError(f"{named(entry.image)}: has no row in {GRADES_FILE}; mend the name in the split files")
    label = class_name(entry.class_idx, image=entry.image, classes=classes)
    if label != listing.label:
        raise PixelCAMError(
            f"{named(entry.image)}: is class {entry.class_idx} ({label}) here and {shown(listing.label)} in "
            f"{GRADES_FILE}; list classes in the order of the split files"
        )
    return replace(listing, split=entry.split, mask_selectable=entry.mask_selectable, size=entry.size)
