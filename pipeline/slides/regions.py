"""Suspicious regions of a slide: where its heatmap reaches a threshold, as polygons with holes, and what is measured.

Outlines come from `skimage.measure.find_contours`; unions of run-length boxes (`shapely.union_all`) took twice as
long and touch themselves in corners, `cv2.findContours` runs through pixel centres, and rasterio brings GDAL along.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import find_contours

from pipeline.slides.heat import CERTAIN, Heat

# Heat pixels by which an outline may be straightened. It runs half-way between the centres of pixels, cutting corners,
# so that no centre is nearer to it than 0.35: below that none changes sides, and regions do not come to touch.
TOLERANCE: Final = 0.35
SQUARE_MICROMETRES: Final = 1e6  # in a mm2
EIGHT_NEIGHBOURS: Final = np.ones((3, 3), dtype=np.bool_)


@dataclass(frozen=True, eq=False, kw_only=True)
class Region:
    """A region of a slide.

    Attributes:
        polygon: its outline and its holes in pixels of level 0; valid, no ring touches itself or another; the outline
            counter-clockwise and the holes clockwise, by the signs that GeoJSON goes by. The centres of the heat
            pixels within are those of the region.
        area_mm2: of its heat pixels.
        mean: of their probabilities.
        maximum: of these.
        peak: x and y, in pixels of level 0, of the centre of the heat pixel where that is, the first one by rows.
        diameter_mm: its largest extent, between two points of its outline as it was before it was straightened.
    """

    polygon: shapely.Polygon
    area_mm2: float
    mean: float
    maximum: float
    peak: tuple[float, float]
    diameter_mm: float


class _Part(NamedTuple):
    """A region on the lattice: its box, which pixels of it are its own, and how many."""

    box: tuple[slice, ...]
    inside: NDArray[np.bool_]
    pixels: int


def find_regions(heat: Heat, *, threshold: float, smallest_mm2: float) -> list[Region]:
    """Return the connected regions of pixels with at least a probability, pixels that share a corner among them.

    Args:
        heat: of a slide.
        threshold: probability in [0, 1].
        smallest_mm2: smaller regions are left out.

    Returns:
        The largest first; of equal ones the one whose first pixel comes first by rows.
    """
    return [_measure(heat, part) for part in _find_parts(heat, threshold=threshold, smallest_mm2=smallest_mm2)]


def _find_parts(heat: Heat, *, threshold: float, smallest_mm2: float) -> list[_Part]:
    # By float32, as `Heat.probabilities` has them, so that a threshold taken from there meets its pixel.
    reach = np.arange(CERTAIN + 2, dtype=np.float32) / np.float32(CERTAIN) >= np.float32(threshold)
    reach[CERTAIN + 1 :] = False
    above = reach[heat.values]
    labels, count = ndimage.label(above, structure=EIGHT_NEIGHBOURS)
    if count == 0:
        return []
    pixels = np.bincount(labels[above], minlength=count + 1)
    del above
    large = pixels * heat.pixel_size**2 / SQUARE_MICROMETRES >= smallest_mm2
    parts = [
        _Part(box, labels[box] == label, int(pixels[label]))
        for label, box in enumerate(ndimage.find_objects(labels), start=1)
        if large[label]
    ]
    return sorted(parts, key=_order)


def _order(part: _Part) -> tuple[int, int, int]:
    """Return what sorts the largest first, then by the row and the column of the first pixel."""
    rows, columns = part.box
    return -part.pixels, rows.start, columns.start + int(part.inside[0].argmax())


def _measure(heat: Heat, part: _Part) -> Region:
    rows, columns = part.box
    values = np.where(part.inside, heat.values[part.box].astype(np.int16), -1)
    row, column = np.unravel_index(values.argmax(), values.shape)
    rings = _rings(part)
    straight = _straighten(rings, TOLERANCE)
    polygon = straight if straight.is_valid else _straighten(rings, 0)
    scaled = shapely.transform(polygon, lambda corners: corners * heat.stride)
    return Region(
        polygon=shapely.orient_polygons(scaled, exterior_cw=False),
        area_mm2=part.pixels * heat.pixel_size**2 / SQUARE_MICROMETRES,
        mean=float(values[part.inside].mean()) / CERTAIN,
        maximum=float(values[row, column]) / CERTAIN,
        peak=((columns.start + int(column) + 0.5) * heat.stride, (rows.start + int(row) + 0.5) * heat.stride),
        diameter_mm=_largest_extent(rings[0]) * heat.pixel_size / 1e3,
    )


def _rings(part: _Part) -> list[NDArray[np.float64]]:
    """Return the outline of a part and then its holes, in heat pixels from the lattice's upper left corner."""
    corner = np.array([part.box[1].start, part.box[0].start]) - 0.5  # of the frame: a pixel's centre lies at a half
    framed = np.pad(part.inside, 1)
    rings = [ring[:, ::-1] + corner for ring in find_contours(framed, 0.5, fully_connected="high")]  # type: ignore[no-untyped-call]
    # The outline is the widest, since all others lie within.
    return sorted(rings, key=lambda ring: float(np.ptp(ring[:, 0])), reverse=True)


def _straighten(rings: Sequence[NDArray[np.float64]], tolerance: float) -> shapely.Polygon:
    """Return a polygon of rings, the outline first, without corners that lie as near to a straight line.

    Ring by ring, by Douglas and Peucker: what `shapely.simplify` does to keep a polygon valid takes minutes where it
    has thousands of holes.
    """
    lines = shapely.simplify([shapely.LineString(ring) for ring in rings], tolerance, preserve_topology=False)
    outline, *holes = [shapely.linearrings(shapely.get_coordinates(line)) for line in lines]
    return shapely.Polygon(outline, holes)


def _largest_extent(ring: NDArray[np.float64]) -> float:
    """Return the largest distance between two corners of a ring (n, 2)."""
    x, y = shapely.get_coordinates(shapely.convex_hull(shapely.LineString(ring))).T
    return float(np.hypot(x[:, None] - x, y[:, None] - y).max())
