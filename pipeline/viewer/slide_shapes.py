"""What is outlined on a slide: regions that a model found, and what people annotated, as rings of points for a page."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import shapely

from pipeline.data.pixels import read_lesions
from pipeline.evaluation.slide_maps import REGIONS
from pipeline.params.errors import PixelCAMError

Ring = list[list[float]]  # points, x and y in pixels of level 0
Shapes = list[list[Ring]]  # polygons, each an outline and its holes

_MEASURED: Final = {"area": "area mm2", "mean": "mean probability", "maximum": "maximum probability"}


@dataclass(frozen=True, kw_only=True)
class FoundRegion:
    """A region that a model found.

    Attributes:
        rings: its outline, then its holes.
        area: in mm2.
        mean: probability within it, in [0, 1].
        maximum: likewise, the highest.
    """

    rings: list[Ring]
    area: float
    mean: float
    maximum: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, width and height of what holds it, in pixels of level 0."""
        points = np.array(self.rings[0])
        (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        return left, top, right - left, bottom - top


def found_regions(folder: Path) -> list[FoundRegion]:
    """Return the regions in the folder of a slide's map, the largest first.

    Raises:
        PixelCAMError: they are missing or damaged.
    """
    path = folder / REGIONS
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = [_region(feature) for feature in content["features"]]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise PixelCAMError(f"{path}: cannot be read as regions ({error}); map the slide again") from error
    return sorted(found, key=lambda region: -region.area)


def _region(feature: dict[str, Any]) -> FoundRegion:
    rings = [[[float(x), float(y)] for x, y in ring] for ring in feature["geometry"]["coordinates"]]
    measured = {name: float(feature["properties"]["measurements"][title]) for name, title in _MEASURED.items()}
    if not rings or not all(rings):
        raise ValueError("a region without an outline")
    if not np.isfinite([*measured.values(), *(number for ring in rings for point in ring for number in point)]).all():
        raise ValueError("a number that is none")
    return FoundRegion(rings=rings, **measured)


def annotated_shapes(lesions: tuple[Path, str]) -> Shapes:
    """Return the polygons that people annotated on a slide, of the file and its SHA-256.

    Raises:
        PixelCAMError: the file is missing, damaged or another.
    """
    polygons = [part for part in shapely.get_parts(read_lesions(*lesions)) if part.geom_type == "Polygon"]
    return [[_points(ring) for ring in (polygon.exterior, *polygon.interiors)] for polygon in polygons]


def _points(ring: shapely.LinearRing) -> Ring:
    points: Ring = np.round(shapely.get_coordinates(ring), 1).tolist()
    return points
