"""Regions as GeoJSON that QuPath opens as annotations, by RFC 7946 but for its coordinates, which are pixels."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from uuid import NAMESPACE_URL, UUID, uuid5

import numpy as np
import shapely

from pipeline.runtime.files import replacing_file
from pipeline.slides.regions import Region

REGIONS: Final[UUID] = uuid5(NAMESPACE_URL, "pixelcam/regions")  # of the ids
PLACES: Final = 3  # of a pixel of level 0
DIGITS: Final = 6  # of measurements


def write_geojson(path: Path, regions: Sequence[Region], *, name: str, colour: tuple[int, int, int]) -> None:
    """Write regions as QuPath 0.4 and later read annotations, whole or not at all; the same ones as the same bytes.

    Args:
        path: the file, which ends in `.geojson`; QuPath opens it by a drop on its window.
        regions: in pixels of level 0, as QuPath counts them; none is an empty collection.
        name: the class in QuPath.
        colour: of the class, RGB.

    Raises:
        PixelCAMError: the system does not let it be written.
    """
    with replacing_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for number, region in enumerate(regions):
            file.write(",\n" if number else "\n")
            file.write(json.dumps(_feature(region, name=name, colour=colour), allow_nan=False))
        file.write("\n]}\n")


def _feature(region: Region, *, name: str, colour: tuple[int, int, int]) -> dict[str, Any]:
    rings = [
        np.round(shapely.get_coordinates(ring), PLACES).tolist()
        for ring in (region.polygon.exterior, *region.polygon.interiors)
    ]
    return {
        "type": "Feature",
        "id": str(uuid5(REGIONS, json.dumps([name, rings]))),
        "geometry": {"type": "Polygon", "coordinates": rings},
        "properties": {
            "objectType": "annotation",
            "classification": {"name": name, "color": list(colour)},
            "measurements": {
                "area mm2": round(region.area_mm2, DIGITS),
                "mean probability": round(region.mean, DIGITS),
                "maximum probability": round(region.maximum, DIGITS),
                "diameter mm": round(region.diameter_mm, DIGITS),
            },
        },
    }
