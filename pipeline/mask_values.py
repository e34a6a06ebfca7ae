"""What the values of a mask mean: one foreground, instance ids, soft edges, or something that nobody can tell."""

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.errors import PixelCAMError
from pipeline.remarks import Remark

BoolArray = npt.NDArray[np.bool_]
# A band of an edge is this many pixels wide at most; what is wider is an area of its own.
MAX_EDGE_WIDTH: Final = 6
SHOWN_VALUES: Final = 5


def foreground_of(values: npt.NDArray[np.integer], *, name: str) -> tuple[BoolArray, Remark | None]:
    """Return where a mask marks the region of interest, bool (H, W), and what is worth telling about it.

    One value beside 0 is foreground, and so is each of several, which are taken for instance ids. But where the largest
    value that the type can hold (255 or 65535) stands beside others, that is white, and the others are gray: gray in
    thin bands is a soft edge, foreground from half of white on; gray over an area could be anything.

    Args:
        values: integers (H, W).
        name: what the error calls the mask.

    Raises:
        PixelCAMError: gray areas, be it a third value such as ignore, or a map of probabilities.
    """
    foreground = values != 0
    present = np.unique(values[foreground])
    if len(present) < 2:
        return foreground, None
    white = 255 if values.dtype == np.uint8 else 65535
    if present[-1] != white:
        return foreground, Remark.SEVERAL_VALUES
    gray = foreground & (values != white)
    if not _has_area(gray):
        return values > white // 2, Remark.SOFT_EDGES
    if _looks_like_ids(values, present=present, gray=gray):
        return foreground, Remark.SEVERAL_VALUES
    some = ", ".join(str(value) for value in present[:SHOWN_VALUES])
    raise PixelCAMError(
        f"{name}: expected one value beside 0 or instance ids, got areas of {len(present)} values ({some}"
        f"{', ...' if len(present) > SHOWN_VALUES else ''}), of which any could be ignored or uncertain; save it with "
        "0 for background and 255 for foreground, and what is to be ignored as a mask of its own"
    )


def looks_inverted(mask: BoolArray) -> bool:
    """Return whether all along the border a mask is foreground, and somewhere within it is not."""
    border = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
    return all(bool(side.all()) for side in border) and not bool(mask.all())


def _has_area(pixels: BoolArray) -> bool:
    """Return whether a square that is wider than an edge fits into the pixels."""
    return bool(ndimage.minimum_filter(pixels, MAX_EDGE_WIDTH + 1, mode="constant", cval=0).any())


def _looks_like_ids(values: npt.NDArray[np.integer], *, present: npt.NDArray[np.integer], gray: BoolArray) -> bool:
    """Return whether values are counted from 1, as ids are, and stand in flat areas, as those of a gradient do not."""
    if len(present) == 2 or present[0] != 1 or present[1] != 2:
        return False
    flat = ndimage.maximum_filter(values, 3) == ndimage.minimum_filter(values, 3)
    return bool(flat[gray].mean() > 0.5)
