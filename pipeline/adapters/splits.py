"""The `splits` adapter: any dataset with the field's split files, which is how CAMELYON16-512 is distributed too."""

from pathlib import Path

from pipeline.adapters.listing import Listing, existing_path, raise_faults
from pipeline.adapters.split_files import SplitEntry, read_split_files
from pipeline.domain_params import SplitsDomain
from pipeline.errors import PixelCAMError, named


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
