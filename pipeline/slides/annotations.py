"""What is annotated on a slide: polygons of ASAP's XML, as of CAMELYON16, or of QuPath's GeoJSON."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import shapely
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import ParseError, parse
from numpy.typing import NDArray

from pipeline.params.errors import PixelCAMError, named, shown
from pipeline.params.vocabulary import AnnotationRole
from pipeline.slides.masks import polygons_of

AREAS: Final = ("Polygon", "Spline", "Rectangle")  # of ASAP's kinds; others mark points
ENDINGS: Final = (".xml", ".geojson", ".json")


@dataclass(frozen=True, eq=False)
class Annotation:
    """Lesions as a shapely MultiPolygon in pixels of level 0, and what was mended."""

    lesions: shapely.MultiPolygon
    remarks: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Outline:
    """A polygon as it stands in the file; the first ring is its outline, the others are holes."""

    name: str
    group: str
    rings: tuple[NDArray[np.float64], ...]  # (n, 2) each


def read_annotation(
    path: Path, *, groups: Mapping[str, AnnotationRole], size: tuple[int, int], scale: float = 1.0
) -> Annotation:
    """Read the lesions of a slide: what is marked as such, without what is cut out.

    Args:
        path: `.xml` of ASAP, or `.geojson` of QuPath.
        groups: what the groups of polygons mean (in QuPath, the classes).
        size: width and height of the slide, in pixels of level 0.
        scale: multiplies coordinates.

    Raises:
        PixelCAMError: the file is missing or damaged, has a group that `groups` does not name, or a polygon off the
            slide.
    """
    outlines = list(_read_geojson(path) if path.suffix.lower() in ENDINGS[1:] else _read_asap(path))
    remarks: list[str] = []
    found: dict[AnnotationRole, list[shapely.Geometry]] = {role: [] for role in AnnotationRole}
    for outline in outlines:
        if outline.group not in groups:
            raise PixelCAMError(
                f"{path}: {named(outline.name)} is of the group {shown(outline.group)}, which annotation_groups does "
                f"not name ({', '.join(groups)}); add it there, as lesion or hole"
            )
        area = _as_area(outline, path=path, scale=scale, remarks=remarks)
        if area is not None:
            found[groups[outline.group]].append(area)
    whole = shapely.union_all(found[AnnotationRole.LESION])
    lesions = shapely.difference(whole, shapely.union_all(found[AnnotationRole.HOLE]))
    return Annotation(_on_slide(lesions, size=size, path=path, remarks=remarks), tuple(remarks))


def _as_area(outline: _Outline, *, path: Path, scale: float, remarks: list[str]) -> shapely.Geometry | None:
    """Return a valid geometry of an outline, noting what had to be mended; None where it has no area."""
    rings = [ring * scale for ring in outline.rings]
    name = f"{path.name}: {named(outline.name)}"
    if any(len(np.unique(ring, axis=0)) < 3 for ring in rings):
        remarks.append(f"{name} has fewer than three corners and is left out")
        return None
    area = shapely.Polygon(rings[0], rings[1:])
    if not area.is_valid:
        area = shapely.make_valid(area)
        remarks.append(f"{name} crosses itself and is mended")
    return area


def _on_slide(
    lesions: shapely.Geometry, *, size: tuple[int, int], path: Path, remarks: list[str]
) -> shapely.MultiPolygon:
    """Return the parts that are areas and lie on the slide."""
    parts = [part for part in shapely.get_parts(lesions, return_index=False) if part.area > 0]
    width, height = size
    slide = shapely.box(0, 0, width, height)
    off = [part for part in parts if not part.intersects(slide)]
    if off:
        x, y = (int(value) for value in off[0].representative_point().coords[0])
        raise PixelCAMError(
            f"{path}: {len(off)} of {len(parts)} polygons lie off the slide of {width}x{height} pixels, the first at "
            f"{x}, {y}; give the annotation of this slide, in pixels of level 0"
        )
    if not all(slide.contains(part) for part in parts):
        remarks.append(f"{path.name} reaches beyond the slide and is cut there")
        parts = [part for part in shapely.get_parts(shapely.intersection(shapely.union_all(parts), slide)) if part.area]
    return shapely.MultiPolygon([polygon for part in parts for polygon in polygons_of(part)])


def _read_asap(path: Path) -> Iterator[_Outline]:
    try:
        root = parse(path, forbid_dtd=True).getroot()
    except DefusedXmlException as error:
        raise PixelCAMError(
            f"{path}: defines entities or a document type, which an annotation does not need and which may be an "
            "attack; save it from ASAP again"
        ) from error
    except (ParseError, ValueError) as error:
        raise PixelCAMError(f"{path}: is no XML ({error}); save it from ASAP again") from error
    except OSError as error:
        raise PixelCAMError(f"{path}: cannot be read ({error.strerror}); restore it, or mend the table") from error
    if root.tag != "ASAP_Annotations":
        raise PixelCAMError(f"{path}: expected ASAP_Annotations, got {shown(root.tag)}; save it from ASAP as XML")
    for annotation in root.iter("Annotation"):
        if annotation.get("Type") not in AREAS:
            continue
        try:
            corners = sorted(annotation.iter("Coordinate"), key=lambda each: int(each.get("Order", "0")))
            ring = [(float(corner.attrib["X"]), float(corner.attrib["Y"])) for corner in corners]
        except (KeyError, ValueError) as error:
            raise PixelCAMError(
                f"{path}: {named(annotation.get('Name', ''))} has a corner that is no pair of numbers ({error}); save "
                "it from ASAP again"
            ) from error
        yield _Outline(
            annotation.get("Name", ""),
            annotation.get("PartOfGroup", ""),
            (_finite(ring, path, annotation.get("Name")),),
        )


def _read_geojson(path: Path) -> Iterator[_Outline]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        features = content if isinstance(content, list) else content.get("features", [content])
        for number, feature in enumerate(features):
            yield from _outlines_of(feature, name=f"feature {number + 1}", path=path)
    except OSError as error:
        raise PixelCAMError(f"{path}: cannot be read ({error.strerror}); restore it, or mend the table") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise PixelCAMError(f"{path}: is no GeoJSON of polygons ({error}); export it from QuPath again") from error


def _outlines_of(feature: Mapping[str, Any], *, name: str, path: Path) -> Iterator[_Outline]:
    geometry, properties = feature["geometry"], feature.get("properties") or {}
    group = (properties.get("classification") or {}).get("name", "")
    match geometry["type"]:
        case "Polygon":
            polygons = [geometry["coordinates"]]
        case "MultiPolygon":
            polygons = geometry["coordinates"]
        case _:
            return
    for rings in polygons:
        yield _Outline(properties.get("name") or name, group, tuple(_finite(ring, path, name) for ring in rings))


def _finite(ring: list[Any], path: Path, name: str | None) -> NDArray[np.float64]:
    corners = np.array([corner[:2] for corner in ring], dtype=np.float64).reshape(-1, 2)
    if not np.isfinite(corners).all():
        raise PixelCAMError(f"{path}: {named(name or '')} has a corner that is no finite number; export it again")
    return corners
