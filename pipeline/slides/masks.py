"""Which pixels and which squares of a slide lie in a lesion."""

from collections.abc import Iterator

import numpy as np
import shapely
from numpy.typing import NDArray
from skimage.draw import polygon as inside_of


def polygons_of(geometry: shapely.Geometry) -> Iterator[shapely.Polygon]:
    """Yield the parts of a geometry that are polygons."""
    for part in shapely.get_parts(geometry):
        if part.geom_type == "Polygon":
            yield part


def rasterize(
    lesions: shapely.Geometry, *, corner: tuple[float, float], size: tuple[int, int], downsample: float
) -> NDArray[np.bool_]:
    """Return which pixels of a part of a slide have their centre in a lesion.

    Args:
        lesions: valid polygons in pixels of level 0.
        corner: x and y of the part's upper left corner, likewise.
        size: its width and height in pixels.
        downsample: pixels of level 0 for one of these.

    Returns:
        bool (height, width).
    """
    width, height = size
    mask = np.zeros((height, width), dtype=np.bool_)
    # A pixel's width more on each side, so that the cut itself marks none.
    low, high = [c - downsample for c in corner], [c + (s + 1) * downsample for c, s in zip(corner, size, strict=True)]
    part = shapely.make_valid(shapely.clip_by_rect(lesions, *low, *high))
    for polygon in sorted(polygons_of(part), key=lambda each: -each.area):  # what lies in a hole comes after it
        for number, ring in enumerate((polygon.exterior, *polygon.interiors)):
            x, y = ((shapely.get_coordinates(ring) - corner) / downsample - 0.5).T
            mask[inside_of(y, x, (height, width))] = number == 0  # type: ignore[no-untyped-call]
    return mask


def covered_shares(lesions: shapely.Geometry, corners: NDArray[np.int64], *, side: float) -> NDArray[np.float64]:
    """Return which share of each square lies in a lesion, float64 (n).

    Args:
        lesions: valid polygons in pixels of level 0.
        corners: int64 (n, 2), upper left corners of the squares, likewise.
        side: of the squares, likewise.
    """
    squares = shapely.box(corners[:, 0], corners[:, 1], corners[:, 0] + side, corners[:, 1] + side)
    shares = np.zeros(len(corners))
    shapely.prepare(lesions)
    touched = shapely.intersects(lesions, squares)
    shares[touched] = shapely.area(shapely.intersection(squares[touched], lesions)) / side**2
    return shares
