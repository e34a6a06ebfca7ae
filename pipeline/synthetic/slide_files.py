"""Files of a whole slide: a pyramid of tiles in a BigTIFF, written strip by strip, and an annotation as ASAP's XML.

Levels are 1, 4 and 16 times smaller than the slide. The file's largest level is written as strips come; of the others,
which a TIFF holds behind it, the encoded tiles are kept until then.
"""

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from imagecodecs import jpeg8_encode
from numpy.typing import NDArray
from tifffile import TiffWriter

from pipeline.params.errors import PixelCAMError
from pipeline.runtime.files import replacing_file, write_text

UInt8Image = NDArray[np.uint8]  # (H, W, 3)
Corners = NDArray[np.float64]  # (N, 2): x and y in pixels of level 0

STRIP: Final = 512  # rows
TILE: Final = 256  # pixels
SHRINKING: Final = 4  # from a level to the next
LEVELS: Final = 3
QUALITY: Final = 87  # of JPEG
_SUBSAMPLING: Final = (2, 2)
_MICROMETRES: Final = 1e4  # in a centimetre
_DIGITS: Final = 2  # of coordinates
# As CAMELYON16 names them, which has lesions in `_0` and `_1`, and what is cut out of them in `_2`.
LESION_GROUP: Final = "_0"
HOLE_GROUP: Final = "_2"
_COLOURS: Final = {LESION_GROUP: "#00ff00", HOLE_GROUP: "#ff0000"}


def write_slide(path: Path, strips: Iterable[UInt8Image], *, width: int, height: int, mpp: float) -> None:
    """Write a slide as pyramidal, tiled BigTIFF, JPEG within; the same bytes for the same pixels.

    Args:
        path: the file; appears when all of it is there.
        strips: the slide from top to bottom, uint8 (rows, width, 3), sRGB; `STRIP` rows each, the last one fewer.
        width: of the slide, pixels.
        height: likewise.
        mpp: micrometres per pixel.

    Raises:
        PixelCAMError: the strips do not add up to the slide, or the system does not let the file be written.
    """
    smaller: list[list[bytes]] = [[] for _ in range(LEVELS - 1)]
    largest = _encoded_tiles(path, strips, smaller, width=width, height=height)
    with replacing_file(path) as temporary, TiffWriter(temporary, bigtiff=True) as tiff:
        for level, tiles in enumerate((largest, *map(iter, smaller))):
            shrunk = SHRINKING**level
            tiff.write(
                tiles,
                shape=(height // shrunk, width // shrunk, 3),
                dtype=np.uint8,
                tile=(TILE, TILE),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": QUALITY},
                subsampling=_SUBSAMPLING,
                subfiletype=int(level > 0),
                resolution=(_MICROMETRES / (mpp * shrunk), _MICROMETRES / (mpp * shrunk)),
                resolutionunit="CENTIMETER",
                software=False,
                metadata=None,
            )


def _encoded_tiles(
    path: Path, strips: Iterable[UInt8Image], smaller: list[list[bytes]], *, width: int, height: int
) -> Iterator[bytes]:
    """Yield the tiles of a slide row by row, and put those of the smaller levels into their lists meanwhile."""
    waiting: list[list[UInt8Image]] = [[] for _ in smaller]
    seen = 0
    for strip in strips:
        rows = len(strip)
        if strip.shape != (rows, width, 3) or rows != min(STRIP, height - seen):
            raise PixelCAMError(
                f"{path}: expected a strip of {min(STRIP, height - seen)}x{width} pixels from row {seen}, got "
                f"{strip.shape}; give strips of {STRIP} rows from top to bottom, the last one may have fewer"
            )
        seen += rows
        # Before the tiles go out: who takes the last one does not come back.
        sums = strip.astype(np.uint32)
        for level, tiles in enumerate(smaller):
            sums = _summed(sums)
            waiting[level].append(_averaged(sums, count=SHRINKING ** (2 * level + 2)))
            if seen == height or sum(map(len, waiting[level])) >= TILE:
                tiles.extend(_encode(np.concatenate(waiting[level])))
                waiting[level].clear()
        yield from _encode(strip)
    if seen < height:
        raise PixelCAMError(f"{path}: strips end at row {seen} of {height}; give all of the slide")


def _summed(values: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return the sums over squares of `SHRINKING` pixels: (H, W, 3) to (h, w, 3); what makes no square is left out."""
    height, width = (length // SHRINKING for length in values.shape[:2])
    whole = values[: height * SHRINKING, : width * SHRINKING]
    rows = whole.reshape(height, SHRINKING, -1).sum(axis=1, dtype=np.uint32)
    return np.asarray(rows.reshape(height, width, SHRINKING, 3).sum(axis=2, dtype=np.uint32))


def _averaged(sums: NDArray[np.uint32], *, count: int) -> UInt8Image:
    return ((sums + count // 2) // count).astype(np.uint8)


def _encode(rows: UInt8Image) -> Iterator[bytes]:
    """Yield tiles (H, W, 3) is cut into, row by row, each a JPEG; at the edges the last pixel is repeated."""
    height, width = rows.shape[:2]
    padded = np.pad(rows, ((0, -height % TILE), (0, -width % TILE), (0, 0)), mode="edge")
    for y in range(0, len(padded), TILE):
        for x in range(0, padded.shape[1], TILE):
            tile = np.ascontiguousarray(padded[y : y + TILE, x : x + TILE])
            yield bytes(
                jpeg8_encode(tile, level=QUALITY, colorspace="RGB", outcolorspace="YCBCR", subsampling=_SUBSAMPLING)
            )


def write_annotation(path: Path, *, lesions: Sequence[Corners], holes: Sequence[Corners]) -> None:
    """Write polygons as ASAP does and CAMELYON16 has them; a hole is a polygon of a group of its own.

    Args:
        path: the file; appears when all of it is there.
        lesions: outlines in pixels of level 0, not closed by a repeated corner.
        holes: likewise.

    Raises:
        PixelCAMError: the system does not let the file be written.
    """
    root = ET.Element("ASAP_Annotations")
    annotations, groups = ET.SubElement(root, "Annotations"), ET.SubElement(root, "AnnotationGroups")
    outlines = [(LESION_GROUP, lesion) for lesion in lesions] + [(HOLE_GROUP, hole) for hole in holes]
    for number, (group, corners) in enumerate(outlines):
        attributes = {"Name": f"Annotation {number}", "Type": "Polygon", "PartOfGroup": group, "Color": "#F4FA58"}
        coordinates = ET.SubElement(ET.SubElement(annotations, "Annotation", attributes), "Coordinates")
        for order, (x, y) in enumerate(corners):
            place = {"Order": str(order), "X": f"{x:.{_DIGITS}f}", "Y": f"{y:.{_DIGITS}f}"}
            ET.SubElement(coordinates, "Coordinate", place)
    for group, colour in _COLOURS.items():
        ET.SubElement(ET.SubElement(groups, "Group", Name=group, PartOfGroup="None", Color=colour), "Attributes")
    ET.indent(root, "\t")
    write_text(path, '<?xml version="1.0"?>\n' + ET.tostring(root, encoding="unicode") + "\n")
