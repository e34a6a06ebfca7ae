"""A domain's images as a person who looked at them left them: without some, and others of another class.

It is done after splits are drawn, so that no other image changes sides.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.data.adapters.listing import Listing
from pipeline.data.adapters.slides import ListedSlide
from pipeline.data.images import decode_mask
from pipeline.data.manifest import ManifestRow, refuse_way_out
from pipeline.data.review import Review, ReviewedImage, Verdict
from pipeline.data.text_rows import raise_faults
from pipeline.params.errors import PixelCAMError, shown
from pipeline.params.types import AnyDomain, TilesDomain
from pipeline.runtime.console import say


def review_listings(
    listings: Sequence[Listing], review: Review | None, *, domain: AnyDomain, root: Path
) -> list[Listing]:
    """Return images without those that are left out, and with the right class of those that are corrected.

    An image that was of the background class and is no longer loses its mask if that is empty: it said what the wrong
    class said, and where the region of interest lies is not known.

    Raises:
        PixelCAMError: an image is not among the domain's, or is corrected to the background class and its mask marks
            pixels; names every line.
    """
    if review is None:
        return list(listings)
    result, faults = [], _strangers(review, {listing.image for listing in listings})
    for listing in listings:
        reviewed = review.images.get(listing.image)
        if reviewed is None:
            result.append(listing)
        elif reviewed.verdict is Verdict.CORRECTED:
            try:
                result.append(_corrected(listing, reviewed, background=domain.background_class, root=root))
            except PixelCAMError as error:
                faults.append(f"line {reviewed.line}: {error}")
    raise_faults(faults, source=review.path)
    _say(review, review.images)
    return result


def _corrected(listing: Listing, reviewed: ReviewedImage, *, background: str | None, root: Path) -> Listing:
    corrected = replace(listing, label=reviewed.label)
    if not listing.mask or listing.label == reviewed.label or background not in (listing.label, reviewed.label):
        return corrected
    try:
        refuse_way_out(listing.mask, root=root)
        marked = int(decode_mask(root / listing.mask).foreground.sum())
    except PixelCAMError:
        return corrected  # whatever is wrong with the mask, those who check all files say it
    if reviewed.label == background and marked:
        raise PixelCAMError(
            f"{shown(listing.image)} cannot be of the background class '{background}': its mask {listing.mask} marks "
            f"{marked} pixels; mend the mask, or leave the image out"
        )
    return corrected if marked or reviewed.label == background else replace(corrected, mask="")


def review_slides(listed: Sequence[ListedSlide], review: Review | None) -> list[ListedSlide]:
    """Return slides without those that are left out, and with the right class of those that are corrected.

    Lines that name no slide are left for `review_tiles`.
    """
    if review is None:
        return list(listed)
    of_slides = [(slide, review.images.get(slide.slide)) for slide in listed]
    _say(review, [slide.slide for slide, reviewed in of_slides if reviewed is not None], what="slides")
    return [
        slide if reviewed is None else replace(slide, label=reviewed.label)
        for slide, reviewed in of_slides
        if reviewed is None or reviewed.verdict is Verdict.CORRECTED
    ]


def review_tiles(
    rows: Sequence[ManifestRow], review: Review, *, slides: Sequence[ListedSlide], domain: TilesDomain
) -> list[ManifestRow]:
    """Return tiles without those that are left out, and with the right class of those that are corrected.

    Args:
        rows: of the tiles.
        review: of slides and tiles.
        slides: all that the domain lists.
        domain: what the classes are.

    Raises:
        PixelCAMError: a line names neither a slide nor a tile, or corrects a tile to the background class whose slide
            is annotated there.
    """
    of_slides = {slide.slide for slide in slides}
    result, faults = [], _strangers(review, of_slides | {row.image for row in rows})
    for row in rows:
        reviewed = review.images.get(row.image)
        if reviewed is None:
            result.append(row)
        elif reviewed.verdict is Verdict.CORRECTED and reviewed.label == domain.background_class and row.mask:
            faults.append(
                f"line {reviewed.line}: {shown(row.image)} cannot be of the background class '{reviewed.label}': its "
                "slide is annotated there; mend the annotation, or leave the tile out"
            )
        elif reviewed.verdict is Verdict.CORRECTED:
            result.append(replace(row, label=reviewed.label, class_idx=domain.classes.index(reviewed.label)))
    raise_faults(faults, source=review.path)
    _say(review, [name for name in review.images if name not in of_slides], what="tiles")
    return result


def _strangers(review: Review, known: set[str]) -> list[str]:
    """Return a fault for each line whose image is none of the domain's."""
    return [
        f"line {each.line}: there is no image {shown(each.image)} in this domain; mend its name, or remove the line"
        for each in review.images.values()
        if each.image not in known
    ]


def _say(review: Review, names: Sequence[str] | dict[str, ReviewedImage], *, what: str = "images") -> None:
    """Say how many images were left out and corrected, if any were."""
    verdicts = [review.images[name].verdict for name in names]
    if verdicts:
        left_out = verdicts.count(Verdict.LEAVE_OUT)
        say(f"{review.path}: {what} left out: {left_out}; taken as of another class: {len(verdicts) - left_out}")
