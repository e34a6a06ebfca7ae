"""The `table` adapter: a CSV that names images and labels, the shortest way to bring one's own data."""

from pipeline.data.adapters.listing import Listing
from pipeline.data.manifest import Split, is_writable, relative_path
from pipeline.data.text_rows import raise_faults, read_rows
from pipeline.params.errors import PixelCAMError, shown
from pipeline.params.types import TableDomain

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
