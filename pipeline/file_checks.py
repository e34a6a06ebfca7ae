"""What preparation asks of each image and its masks: every file decoded, everything that is wrong with it listed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.adapters.listing import Listing
from pipeline.domain_params import AnyDomain
from pipeline.errors import PixelCAMError, shown
from pipeline.files import sha256_of
from pipeline.images import decode_image, decode_mask
from pipeline.manifest import ManifestRow
from pipeline.mask_values import looks_inverted
from pipeline.paths import refuse_way_out
from pipeline.remarks import Remark

MIN_SIDE: Final = 4  # pixels; what is smaller shows no tissue, but a pixel that a viewer or a page needed

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
