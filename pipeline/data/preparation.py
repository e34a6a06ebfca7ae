"""From raw data to a checked manifest: every file is decoded and all that is wrong is told at once."""

import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.adapters.glas import list_glas
from pipeline.data.adapters.listing import Listing, move_to_train, split_by_patient
from pipeline.data.adapters.slides import ListedSlide, list_slides, render_slides
from pipeline.data.adapters.splits import list_splits
from pipeline.data.adapters.synthetic import render_synthetic
from pipeline.data.adapters.table import list_table
from pipeline.data.images import MIN_SIDE, Remark, decode_image, decode_mask, looks_inverted, tell
from pipeline.data.manifest import (
    Manifest,
    ManifestRow,
    Split,
    manifest_file,
    refuse_way_out,
    write_classes,
    write_manifest,
)
from pipeline.data.review import Review, record_review
from pipeline.data.reviewed import review_listings, review_slides, review_tiles
from pipeline.data.slide_preparation import prepare_slides
from pipeline.data.slides import count_tiles_again
from pipeline.data.text_rows import MAX_FAULTS_SHOWN, raise_faults
from pipeline.params.errors import PixelCAMError, shown
from pipeline.params.slides import TissueParams
from pipeline.params.types import (
    GENERATED,
    AnyDomain,
    FileDomain,
    GlasDomain,
    SlidesDomain,
    SplitsDomain,
    SyntheticDomain,
    SyntheticSlidesDomain,
    TableDomain,
    TilesDomain,
)
from pipeline.params.vocabulary import SharedPatients
from pipeline.runtime.console import progress, say
from pipeline.runtime.files import replacing_folder, sha256_of

Remarks = tuple[tuple[Remark, str], ...]
Size = tuple[int, int]  # width and height in pixels


@dataclass(frozen=True, kw_only=True)
class CheckedFiles:
    """One image's row, None where something is wrong; what that is; and what is worth telling, with the file."""

    row: ManifestRow | None
    faults: tuple[str, ...]
    remarks: Remarks


def check_files(listing: Listing, *, domain: AnyDomain, root: Path) -> CheckedFiles:
    """Decode an image and its masks and hold them together."""
    faults = []
    remarks: Remarks = ()
    if listing.label not in domain.classes:
        faults.append(
            f"{listing.image}: expected a label out of {', '.join(domain.classes)}, got {shown(listing.label)}; mend "
            "it, or classes in the params"
        )
    size = None
    try:
        size, remarks = _check_image(listing, root=root)
    except PixelCAMError as error:
        faults.append(str(error))
    for name in (listing.mask, listing.ignore_mask):
        if name:
            try:
                remarks += _check_mask(name, listing=listing, size=size, domain=domain, root=root)
            except PixelCAMError as error:
                faults.append(str(error))
    if size is not None and listing.size is not None and listing.size != size:
        faults.append(
            f"{listing.image}: expected {_text(listing.size)} pixels as listed, got {_text(size)}; restore the image, "
            "or mend the list of sizes"
        )
    row = None if faults or size is None else _row(listing, size=size, domain=domain, root=root)
    return CheckedFiles(row=row, faults=tuple(faults), remarks=remarks)


def _check_image(listing: Listing, *, root: Path) -> tuple[Size, Remarks]:
    refuse_way_out(listing.image, root=root)
    decoded = decode_image(root / listing.image)
    height, width, _ = decoded.pixels.shape
    if min(width, height) < MIN_SIDE:
        raise PixelCAMError(
            f"{listing.image}: expected at least {MIN_SIDE}x{MIN_SIDE} pixels, got {width}x{height}; restore the image "
            "or remove it from the dataset"
        )
    return (width, height), tuple((remark, listing.image) for remark in decoded.remarks)


def _check_mask(name: str, *, listing: Listing, size: Size | None, domain: AnyDomain, root: Path) -> Remarks:
    refuse_way_out(name, root=root)
    decoded = decode_mask(root / name)
    mask = decoded.foreground
    mask_size = (mask.shape[1], mask.shape[0])
    if size is not None and mask_size != size:
        raise PixelCAMError(
            f"{name}: expected {_text(size)} pixels like {listing.image}, got {_text(mask_size)}; export the "
            "mask at the image's size"
        )
    remarks = decoded.remarks
    if name == listing.mask:
        _check_foreground(mask, name=name, listing=listing, domain=domain)
        remarks += (Remark.INVERTED,) if looks_inverted(mask) else ()
    return tuple((remark, name) for remark in remarks)


def _check_foreground(mask: NDArray[np.bool_], *, name: str, listing: Listing, domain: AnyDomain) -> None:
    """Hold a mask against what its class says of regions of interest."""
    if listing.label == domain.background_class and mask.any():
        raise PixelCAMError(
            f"{name}: marks {int(mask.sum())} pixels, but {listing.image} is of the background class "
            f"'{listing.label}'; mend the label or set background_class to null"
        )
    if listing.label != domain.background_class and not mask.any():
        raise PixelCAMError(
            f"{name}: is empty, but {listing.image} is of class {shown(listing.label)}, which has a region of "
            "interest; mend mask or label, list no mask where none is known, or name the class as background_class"
        )


def _row(listing: Listing, *, size: Size, domain: AnyDomain, root: Path) -> ManifestRow | None:
    if listing.split is None:
        return None
    return ManifestRow(
        image=listing.image,
        mask=listing.mask,
        ignore_mask=listing.ignore_mask,
        label=listing.label,
        class_idx=domain.classes.index(listing.label),
        split=listing.split,
        patient=listing.patient,
        width=size[0],
        height=size[1],
        image_sha256=sha256_of(root / listing.image),
        mask_sha256=sha256_of(root / listing.mask) if listing.mask else "",
        mask_selectable=listing.mask_selectable,
    )


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


# Starting a process costs as much as rendering some images.
_IMAGES_PER_PROCESS = 24


def prepare_domain(
    domain: AnyDomain,
    *,
    output: Path,
    review: Review | None = None,
    tissue: TissueParams | None = None,
    scheduler: str | None = None,
) -> Manifest:
    """Check a domain's files, or render them, and write its manifest.

    Beside `output/manifest.csv` stand what the classes mean, for a synthetic domain the images, and for a domain of
    slides their table and their lesions. `review` says which images are left out or corrected; what it said is recorded
    beside the rest. `tissue` and `scheduler` are of slides, see `prepare_slides`.

    `output` appears whole, or stays as it was. Rows are sorted by split and image. Relative roots start from the
    working directory. Returns the manifest just written.

    Raises:
        PixelCAMError: names every file that is missing, broken, out of the root, of another size than its mask, listed
            twice, or in the wrong class or split, every patient on both sides of a split, and every line of a review
            that fits no image.
    """
    _check_places(domain, output=output)
    with replacing_folder(output) as folder:
        if isinstance(domain, TilesDomain):
            rows = _prepare_tiles(domain, folder=folder, review=review, tissue=tissue, scheduler=scheduler)
        else:
            root, listings = _list_images(domain, folder=folder)
            reviewed = review_listings(listings, review, domain=domain, root=root)
            rows = check_listings(reviewed, domain=domain, root=root)
        write_manifest(rows, folder / manifest_file(rows))
        write_classes(folder, domain)
        record_review(review, folder)
    return Manifest(tuple(rows), output if isinstance(domain, GENERATED) else domain.root, output)


def _list_images(
    domain: SyntheticDomain | GlasDomain | SplitsDomain | TableDomain, *, folder: Path
) -> tuple[Path, list[Listing]]:
    """Return a domain's images, rendered into `folder` where they are generated, and the root of their paths."""
    if isinstance(domain, SyntheticDomain):
        return folder, render_synthetic(domain, folder=folder, workers=_processes(domain))
    return domain.root, list_files(domain)


def _prepare_tiles(
    domain: SlidesDomain | SyntheticSlidesDomain,
    *,
    folder: Path,
    review: Review | None,
    tissue: TissueParams | None,
    scheduler: str | None,
) -> list[ManifestRow]:
    """Return the rows of a domain of slides, checked as those of images are."""
    if tissue is None:
        raise PixelCAMError("slides: a domain of whole slides needs slides.tissue of the params; give tissue")
    if isinstance(domain, SyntheticSlidesDomain):
        root, listed = folder, render_slides(domain, folder=folder, scheduler=scheduler)
    else:
        root, listed = domain.root, list_slides(domain)
    kept = review_slides(listed, review)
    if isinstance(domain, FileDomain):
        allowed = domain.shared_patients == SharedPatients.ALLOW
        raise_faults(_shared_patients(kept, allowed=allowed), source=root)
    rows = prepare_slides(kept, domain, root=root, folder=folder, tissue=tissue, scheduler=scheduler)
    if review is not None:
        rows = review_tiles(rows, review, slides=listed, domain=domain)
        count_tiles_again(folder, rows)
    raise_faults(_missing_images(rows, domain=domain), source=root)
    return rows


def list_files(domain: GlasDomain | SplitsDomain | TableDomain) -> list[Listing]:
    """List a file domain's images, each with a split: the dataset's own, else one by patient.

    A share of the test images is moved to train, see `move_to_train`.

    Raises:
        PixelCAMError: the dataset's tables cannot be read or contradict themselves, or the test images are of one
            patient, of whom `adapt_fraction` wants a share.
    """
    match domain:
        case GlasDomain():
            listings = list_glas(domain)
        case SplitsDomain():
            listings = list_splits(domain)
        case TableDomain():
            listings = list_table(domain)
    listings = _without_repeats(listings, source=domain.root)
    if any(listing.split is None for listing in listings):
        listings = split_by_patient(
            listings, val_fraction=domain.val_fraction, test_fraction=domain.test_fraction, seed=domain.seed
        )
    try:
        return move_to_train(listings, adapt_fraction=domain.adapt_fraction, seed=domain.seed)
    except PixelCAMError as error:
        raise PixelCAMError(f"{domain.root}: {error}") from error


def check_listings(listings: Sequence[Listing], *, domain: AnyDomain, root: Path) -> list[ManifestRow]:
    """Decode every file and hold the domain together; return the manifest's rows, sorted by split and image.

    Raises:
        PixelCAMError: lists everything that is wrong.
    """
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        # A file that Pillow doubts is either refused here, by name, or fine.
        warnings.filterwarnings("ignore", module="PIL")
        checks = pool.map(lambda listing: check_files(listing, domain=domain, root=root), listings)
        checked = list(progress(checks, label="checking files", total=len(listings)))
    rows = [result.row for result in checked if result.row is not None]
    faults = [fault for result in checked for fault in result.faults]
    faults += _duplicates(rows)
    if isinstance(domain, FileDomain):
        faults += _shared_patients(listings, allowed=domain.shared_patients == SharedPatients.ALLOW)
    faults += _missing_images(listings, domain=domain)
    raise_faults(faults, source=root)
    tell((remark for result in checked for remark in result.remarks), source=root)
    order = list(Split)
    return sorted(rows, key=lambda row: (order.index(row.split), row.image))


def summary(manifest: Manifest) -> str:
    """Return one line that says how many images, and how many masks for selection, a manifest holds per split."""
    parts = []
    for split in Split:
        rows = manifest.of_split(split).rows
        selectable = sum(row.mask_selectable for row in rows)
        parts.append(f"{split} {len(rows)}" + (f" ({selectable} for selection)" if selectable else ""))
    return f"{len(manifest)} images: {', '.join(parts)}"


def _processes(domain: SyntheticDomain) -> int:
    count = domain.images.train + domain.images.val + domain.images.test
    return max(1, min(os.cpu_count() or 1, count // _IMAGES_PER_PROCESS))


def _check_places(domain: AnyDomain, *, output: Path) -> None:
    """Refuse a root that is missing, and an output that would replace what it is made from."""
    places = [] if domain.review is None else [domain.review]
    if not isinstance(domain, GENERATED):
        if not domain.root.is_dir():
            raise PixelCAMError(
                f"{domain.root}: is no folder; put the data there or change the domain's root in params.yaml"
            )
        places += [domain.root, _lists_of(domain)]
    for place in places:
        if place.resolve().is_relative_to(output.resolve()):
            raise PixelCAMError(f"{output}: holds the raw data in {place} and would be replaced; choose another output")


def _lists_of(domain: GlasDomain | SplitsDomain | TableDomain | SlidesDomain) -> Path:
    lists = domain.table if isinstance(domain, TableDomain | SlidesDomain) else domain.splits
    return domain.root if lists is None else domain.root / lists


def _without_repeats(listings: Sequence[Listing], *, source: Path) -> list[Listing]:
    """Drop rows that say the same of the same image once more, and tell; refuse those that contradict each other."""
    seen: dict[str, Listing] = {}
    repeated = []
    faults = []
    for listing in listings:
        first = seen.setdefault(listing.image, listing)
        if first is listing:
            continue
        if first != listing:
            faults.append(f"{listing.image}: is listed twice, with different values; keep one row")
        repeated.append(listing.image)
    raise_faults(faults, source=source)
    if repeated:
        more = f" and {len(repeated) - MAX_FAULTS_SHOWN} more" if len(repeated) > MAX_FAULTS_SHOWN else ""
        say(f"{source}: listed twice and counted once: {', '.join(repeated[:MAX_FAULTS_SHOWN])}{more}")
    return list(seen.values())


def _duplicates(rows: Sequence[ManifestRow]) -> list[str]:
    same: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        same[row.image_sha256].append(row.image)
    return [f"{' and '.join(images)}: are the same file; keep one" for images in same.values() if len(images) > 1]


def _shared_patients(listings: Sequence[Listing | ListedSlide], *, allowed: bool) -> list[str]:
    """Return the patients that are in several splits as faults, or, where allowed, tell how many they are."""
    splits: dict[str, set[Split]] = defaultdict(set)
    names: dict[str, str] = {}
    for listing in listings:
        if listing.patient and listing.split is not None:
            key = listing.patient.casefold()
            splits[key].add(listing.split)
            names[key] = listing.patient
    shared = {
        names[key]: [split for split in Split if split in found] for key, found in splits.items() if len(found) > 1
    }
    if not allowed:
        return [
            f"patient {shown(patient)}: is in {' and '.join(found)}; keep each patient in one split, or set "
            "shared_patients to allow for published splits that do this"
            for patient, found in shared.items()
        ]
    if shared:
        counts = Counter(" and ".join(found) for found in shared.values())
        told = ", ".join(f"{count} in {sides}" for sides, count in sorted(counts.items()))
        say(f"{len(shared)} patients are on both sides of a split (shared_patients: allow): {told}")
    return []


def _missing_images(listings: Sequence[Listing | ManifestRow], *, domain: AnyDomain) -> list[str]:
    """Return what is lacking: images for the score and, if any are for training, training images of every class.

    Images that were moved from the test split are for adapting, without a label, and may lack a class.
    """
    if not any(listing.split == Split.TEST for listing in listings):
        return ["the test split has no image, and every domain is scored on it; raise test_fraction or mend the splits"]
    training = {listing.label for listing in listings if listing.split == Split.TRAIN}
    if not training or (isinstance(domain, FileDomain) and domain.adapt_fraction > 0):
        return []
    return [
        f"class {shown(label)}: has no training image; mend classes, the splits, or the seed or fractions of the split"
        for label in domain.classes
        if label not in training
    ]
