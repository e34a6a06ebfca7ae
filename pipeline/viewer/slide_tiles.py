"""Pieces of a slide, and of the maps over it, as a deep-zoom viewer asks for them: tiles of halved resolutions.

A viewer's level 0 is one pixel, its highest level the whole resolution; each halves the one above, rounded up.
"""

from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from math import ceil, log2
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.evaluation.slide_maps import HEAT, THUMBNAIL
from pipeline.params.errors import PixelCAMError
from pipeline.report.overlays import colour_map, fit
from pipeline.slides.heat import CERTAIN, NOT_LOOKED_AT
from pipeline.slides.pyramids import halve, read_ome_zarr
from pipeline.slides.reading import Slide, open_slide
from pipeline.viewer.cache import Cache
from pipeline.viewer.pictures import as_png
from pipeline.viewer.slide_sets import ShownSlide

TILE: Final = 510  # pixels; of slides one more on each side where another tile begins, so that no seam shows
OVERLAP: Final = 1
COARSE: Final = 3  # so many levels from the lowest are kept: they cost the most, and are few
THUMBNAIL_SIDE: Final = 320  # pixels
OPAQUE_FROM: Final = 0.5  # what is less probable is the more transparent the less probable it is
MAPS_OPEN: Final = 4

Part = tuple[int, int, int]  # level, column and row of a tile
Box = tuple[int, int, int, int]  # left, top, right and bottom


@dataclass(frozen=True)
class Grid:
    """How a picture is cut into tiles; `size` is its width and height in pixels, `overlap` what neighbours share."""

    size: tuple[int, int]
    overlap: int = 0

    @property
    def highest(self) -> int:
        """The level of the whole resolution."""
        return ceil(log2(max(self.size)))

    @property
    def lowest(self) -> int:
        """The level at which one tile holds the whole."""
        return max(0, self.highest - max(0, ceil(log2(max(self.size) / TILE))))

    def downsample(self, level: int) -> int:
        """Return the pixels of the whole resolution for one of a level, along a side."""
        return 1 << (self.highest - level)

    def box(self, part: Part) -> Box | None:
        """Return where a tile lies in pixels of its level; None where there is no such tile."""
        level, column, row = part
        if not self.lowest <= level <= self.highest:
            return None
        width, height = (ceil(side / self.downsample(level)) for side in self.size)
        if not (0 <= column * TILE < width and 0 <= row * TILE < height):
            return None
        return (
            max(0, column * TILE - self.overlap),
            max(0, row * TILE - self.overlap),
            min(width, (column + 1) * TILE + self.overlap),
            min(height, (row + 1) * TILE + self.overlap),
        )


def grid_of(slide: ShownSlide) -> Grid:
    """Return how a slide is cut into tiles."""
    return Grid(slide.size, OVERLAP)


def opened(slide: ShownSlide) -> Slide:
    """Return the open file of a slide.

    Raises:
        PixelCAMError: nobody says where it is, or it is missing, damaged, or another.
    """
    if slide.file is None:
        raise PixelCAMError(f"nobody says where the file of {slide.name} is; name its folder with --slide-files")
    return open_slide(slide.file, slide.sha256)


def slide_tile(slide: ShownSlide, part: Part, cache: Cache) -> bytes | None:
    """Return a tile of a slide as JPEG; None where there is no such tile.

    Raises:
        PixelCAMError: as `opened`.
    """
    grid = grid_of(slide)
    box = grid.box(part)
    if box is None:
        return None
    scale = grid.downsample(part[0])
    if part[0] >= grid.lowest + COARSE:
        return _read(slide, box, scale)
    return cache.get("slides", f"{slide.sha256} {TILE} {OVERLAP} {part}", lambda: _read(slide, box, scale))


def _read(slide: ShownSlide, box: Box, downsample: float) -> bytes:
    left, top, right, bottom = box
    corner, size = (left * downsample, top * downsample), (right - left, bottom - top)
    return _as_jpeg(opened(slide).read_in_blocks(corner, size=size, downsample=downsample))


def slide_thumbnail(slide: ShownSlide, cache: Cache) -> bytes:
    """Return a slide as one small JPEG, made once: of the picture beside a map of it, else of the file.

    Raises:
        PixelCAMError: as `opened`, where there is no map.
    """
    return cache.get("slides", f"{slide.sha256} {THUMBNAIL_SIDE}", lambda: _make_thumbnail(slide))


def _make_thumbnail(slide: ShownSlide) -> bytes:
    for each in slide.maps:
        try:
            with Image.open(each.folder / THUMBNAIL) as picture:
                return _as_jpeg(fit(np.asarray(picture.convert("RGB")), side=THUMBNAIL_SIDE))
        except OSError:
            continue
    downsample = max(slide.size) / THUMBNAIL_SIDE
    width, height = (max(1, round(side / downsample)) for side in slide.size)
    return _read(slide, (0, 0, width, height), downsample)


def _as_jpeg(picture: NDArray[np.uint8]) -> bytes:
    file = BytesIO()
    Image.fromarray(picture).save(file, format="JPEG", quality=88)
    return file.getvalue()


@dataclass(frozen=True, eq=False)
class HeatPyramid:
    """A map over a slide, the whole one first and then halves of it.

    Attributes:
        levels: uint8 (h, w), as `Heat` holds values.
        stride: pixels of the slide's level 0 for one of the whole map, along a side.
    """

    levels: tuple[NDArray[np.uint8], ...]
    stride: float

    @property
    def grid(self) -> Grid:
        """How the map is cut into tiles."""
        height, width = self.levels[0].shape
        return Grid((width, height))

    def tile(self, part: Part) -> bytes | None:
        """Return a tile as PNG, transparent where nothing was looked at or found; None where there is no such tile."""
        box = self.grid.box(part)
        if box is None:
            return None
        left, top, right, bottom = box
        values = self.levels[self.grid.highest - part[0]][top:bottom, left:right]
        probabilities = np.where(values == NOT_LOOKED_AT, 0, values).astype(np.float32) / np.float32(CERTAIN)
        colours = colour_map(probabilities, size=(bottom - top, right - left))
        alpha = (255 * np.minimum(probabilities / OPAQUE_FROM, 1)).round().astype(np.uint8)
        return as_png(np.dstack([colours, alpha]))


def open_heat(folder: Path) -> HeatPyramid:
    """Return the map in a slide's folder, kept in memory while it is one of the last that were asked for.

    Raises:
        PixelCAMError: it is missing or damaged.
    """
    path = folder / HEAT
    return _read_heat(path, path.stat().st_mtime_ns if path.exists() else 0)


@lru_cache(maxsize=MAPS_OPEN)
def _read_heat(path: Path, written: int) -> HeatPyramid:
    """Read a map; `written` tells one that was written anew."""
    del written
    heat = read_ome_zarr(path)
    levels = [heat.values]
    while max(levels[-1].shape) > TILE:
        levels.append(halve(levels[-1]))
    return HeatPyramid(tuple(levels), heat.stride)
