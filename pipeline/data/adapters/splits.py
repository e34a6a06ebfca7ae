"""The `splits` adapter: any dataset with the field's split files, which is how CAMELYON16-512 is distributed too.

One folder per split, each with class_labels.txt and, where known, image_ids.txt, image_sizes.txt and localization.txt
(Choe et al., CVPR 2020).
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.adapters.listing import Listing, existing_path
from pipeline.data.manifest import MAX_DIGITS, Split
from pipeline.data.text_rows import raise_faults, read_text
from pipeline.params.errors import PixelCAMError, named, shown
from pipeline.params.types import SplitsDomain

# The benchmark's own names stand beside those of its histology branch.
FOLDERS = {
    Split.TRAIN: ("train", "train-weaksup"),
    Split.VAL: ("val", "valcl", "train-fullsup"),
    Split.TEST: ("test",),
}
SELECTION_FOLDER = "valpx"


@dataclass(frozen=True, kw_only=True)
class SplitEntry:
    """One image of the split files, names as written there; `size` is (width, height), empty text means none."""

    image: str
    class_idx: int
    mask: str
    ignore_mask: str
    split: Split
    mask_selectable: bool
    size: tuple[int, int] | None


def read_split_files(folder: Path) -> list[SplitEntry]:
    """Read every split below `folder`, in the order train, val, test and as listed within.

    Images of `valpx` are those of val whose masks may be used for selection; without `valpx` all of val may.

    Raises:
        PixelCAMError: there are no split folders, two for one split, or lines that cannot be understood.
    """
    if not folder.is_dir():
        raise PixelCAMError(f"{folder}: there is no such folder of split files; mend 'splits', or set it to null")
    found = {split: _folder_of(split, folder) for split in Split}
    selection = folder / SELECTION_FOLDER
    if found[Split.VAL] is None and selection.is_dir():
        found[Split.VAL] = selection
    if not any(found.values()):
        names = ", ".join(name for names in FOLDERS.values() for name in names)
        raise PixelCAMError(f"{folder}: holds no split folder; expected some of {names}, {SELECTION_FOLDER}")
    selectable = set(_fields(selection / "class_labels.txt", count=2)) if selection.is_dir() else None
    entries: list[SplitEntry] = []
    for split, split_folder in found.items():
        if split_folder is not None:
            entries += _read_split(split_folder, split=split, selectable=selectable)
    missing = sorted((selectable or set()) - {entry.image for entry in entries if entry.split == Split.VAL})
    raise_faults(
        [f"{named(name)}: is in {SELECTION_FOLDER} but not in val; add it there" for name in missing], source=selection
    )
    return entries


def _folder_of(split: Split, folder: Path) -> Path | None:
    present = [folder / name for name in FOLDERS[split] if (folder / name).is_dir()]
    if len(present) > 1:
        names = " and ".join(path.name for path in present)
        raise PixelCAMError(f"{folder}: {names} both mean the {split} split; keep one")
    return present[0] if present else None


def _read_split(folder: Path, *, split: Split, selectable: set[str] | None) -> list[SplitEntry]:
    labels = {name: fields[0] for name, fields in _fields(folder / "class_labels.txt", count=2).items()}
    sizes = _fields(folder / "image_sizes.txt", count=3, optional=True)
    masks = _fields(folder / "localization.txt", count=3, optional=True)
    ids = _fields(folder / "image_ids.txt", count=1, optional=True)
    faults = [
        f"class_labels.txt: {named(name)}: expected a class index, got {shown(label)}"
        for name, label in labels.items()
        if not _is_number(label)
    ]
    faults += [
        f"image_sizes.txt: {named(name)}: expected width and height in pixels, got {shown(','.join(size))}"
        for name, size in sizes.items()
        if not all(_is_number(part) for part in size)
    ]
    for file_name, names in (("image_sizes.txt", sizes), ("localization.txt", masks), ("image_ids.txt", ids)):
        faults += _missing_lines(names, present=labels, of=file_name, lacking="class_labels.txt")
    if ids:
        faults += _missing_lines(labels, present=ids, of="class_labels.txt", lacking="image_ids.txt")
    raise_faults(faults, source=folder)
    entries = []
    for name, label in labels.items():
        mask, ignore_mask = masks.get(name, ("", ""))
        size = sizes.get(name)
        entries.append(
            SplitEntry(
                image=name,
                class_idx=int(label),
                mask=mask,
                ignore_mask=ignore_mask,
                split=split,
                mask_selectable=split == Split.VAL and (selectable is None or name in selectable),
                size=None if size is None else (int(size[0]), int(size[1])),
            )
        )
    return entries


def _fields(path: Path, *, count: int, optional: bool = False) -> dict[str, tuple[str, ...]]:
    """Map the first field of every line to the others; each line holds `count` fields, each image one line."""
    if optional and not path.exists():
        return {}
    lines: dict[str, tuple[str, ...]] = {}
    faults = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        name, *others = (part.strip() for part in line.split(","))
        if len(others) != count - 1 or not name:
            faults.append(
                f"line {number}: expected {count} fields ({_EXPECTED[path.name]}), got {shown(line)}; separate them by "
                "commas, and rename files whose names hold one"
            )
        elif name in lines:
            faults.append(f"line {number}: {named(name)} is listed twice; {_REPEATED[path.name]}")
        else:
            lines[name] = tuple(others)
    raise_faults(faults, source=path)
    return lines


def _missing_lines(names: Collection[str], *, present: Collection[str], of: str, lacking: str) -> list[str]:
    return [f"{of}: {named(name)}: has no line in {lacking}; add it" for name in names if name not in present]


def _is_number(text: str) -> bool:
    return text.isdecimal() and len(text) <= MAX_DIGITS


_EXPECTED = {
    "class_labels.txt": "image,class index",
    "image_ids.txt": "image",
    "image_sizes.txt": "image,width,height",
    "localization.txt": "image,mask,ignore mask or nothing; boxes are not supported",
}
_REPEATED = {
    "class_labels.txt": "keep one line",
    "image_ids.txt": "keep one line",
    "image_sizes.txt": "keep one line",
    "localization.txt": "merge its masks into one file",
}


def list_splits(domain: SplitsDomain) -> list[Listing]:
    """List the images of the split files in `domain.splits` (relative to the root, or absolute).

    Patients are not part of the format and stay unknown. An image without a line in localization.txt has no mask: in
    the background class that means nothing to find, elsewhere that the mask is unknown.

    Raises:
        PixelCAMError: the files cannot be understood, name a class index out of range, or a path outside the root.
    """
    folder = domain.root / domain.splits
    listings = []
    faults = []
    for entry in read_split_files(folder):
        try:
            listings.append(_listing(entry, root=domain.root, classes=domain.classes))
        except PixelCAMError as error:
            faults.append(str(error))
    raise_faults(faults, source=folder)
    return listings


def class_name(class_idx: int, *, image: str, classes: tuple[str, ...]) -> str:
    """Return the name of a class index that split files give.

    Raises:
        PixelCAMError: there are fewer classes.
    """
    if class_idx >= len(classes):
        raise PixelCAMError(
            f"{named(image)}: has class index {class_idx}, but classes lists {len(classes)} ({', '.join(classes)}), "
            "counted from 0; mend the split files, or classes in the params"
        )
    return classes[class_idx]


def _listing(entry: SplitEntry, *, root: Path, classes: tuple[str, ...]) -> Listing:
    return Listing(
        image=existing_path(entry.image, root=root),
        mask=existing_path(entry.mask, root=root) if entry.mask else "",
        ignore_mask=existing_path(entry.ignore_mask, root=root) if entry.ignore_mask else "",
        label=class_name(entry.class_idx, image=entry.image, classes=classes),
        patient="",
        split=entry.split,
        mask_selectable=entry.mask_selectable,
        size=entry.size,
    )
