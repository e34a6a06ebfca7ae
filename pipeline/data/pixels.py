"""An image of a manifest and its mask, whether they are files or a part of a slide."""

import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray

from pipeline.data.images import read_image, read_mask
from pipeline.data.manifest import Manifest, ManifestRow
from pipeline.params.errors import PixelCAMError
from pipeline.runtime.files import sha256_of
from pipeline.slides.masks import rasterize
from pipeline.slides.reading import open_slide

UInt8Image = NDArray[np.uint8]  # (H, W, 3)
LESIONS_KEPT = 64  # of so many slides, by a process


def read_row(manifest: Manifest, row: ManifestRow) -> UInt8Image:
    """Return an image of a manifest, uint8 (H, W, 3); may be called in any thread.

    Raises:
        PixelCAMError: a file cannot be read or is not the one that was prepared; the message names it.
    """
    path = manifest.root / (row.slide or row.image)
    if row.slide:
        slide = open_slide(path, row.slide_sha256)
        return slide.read((row.x, row.y), size=(row.width, row.height), downsample=row.downsample)
    image = read_image(path)
    check_unchanged(path, row.image_sha256)
    return image


def read_row_mask(manifest: Manifest, row: ManifestRow, name: str) -> NDArray[np.bool_]:
    """Return the mask of an image, bool (H, W), from a file that the row names.

    Raises:
        PixelCAMError: a file cannot be read, or the mask is not the one that was prepared; the message names it.
    """
    if row.slide:
        path = (manifest.folder or manifest.root) / name
        lesions = read_lesions(path, row.mask_sha256)
        return rasterize(lesions, corner=(row.x, row.y), size=(row.width, row.height), downsample=row.downsample)
    path = manifest.root / name
    mask = read_mask(path)
    if name == row.mask:
        check_unchanged(path, row.mask_sha256)
    return mask


def tile_sha256(row: ManifestRow) -> str:
    """Return what a tile's pixels are told by: the slide's fingerprint, and its place there."""
    place = f"{row.slide_sha256} {row.x} {row.y} {row.width} {row.height} {row.downsample}"
    return hashlib.sha256(place.encode()).hexdigest()


@lru_cache(maxsize=LESIONS_KEPT)
def read_lesions(path: Path, sha256: str) -> shapely.Geometry:
    """Return the lesions of a slide as preparation wrote them, in pixels of level 0.

    Raises:
        PixelCAMError: the file is missing, damaged, or another.
    """
    try:
        check_unchanged(path, sha256)
        return shapely.from_geojson(path.read_text(encoding="utf-8"))
    except (OSError, shapely.GEOSException) as error:
        raise PixelCAMError(f"{path}: cannot be read ({error}); run the prepare stage of its domain again") from error


def check_unchanged(path: Path, sha256: str) -> None:
    """Raise a `PixelCAMError` unless a file is the one that was prepared."""
    if sha256_of(path) != sha256:
        raise PixelCAMError(
            f"{path}: has changed since it was prepared; run the prepare stage of its domain again (dvc repro -f)"
        )
