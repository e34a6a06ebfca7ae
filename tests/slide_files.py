"""Small slides for tests: pyramidal tiled TIFF files as OpenSlide reads them, and ASAP's annotations."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
TILE = 128


def write_slide(
    path: Path, picture: Picture, *, mpp: float | None = 0.5, downsamples: Sequence[int] = (1, 4), lossless: bool = True
) -> Path:
    """Write a picture, uint8 (H, W, 3), as a pyramidal TIFF; without mpp the file does not say it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path) as writer:
        for downsample in downsamples:
            level = _shrink(picture, downsample)
            said = {} if mpp is None else {"resolution": (1e4 / mpp / downsample,) * 2, "resolutionunit": "CENTIMETER"}
            writer.write(
                _tiles(level),
                shape=level.shape,
                dtype="uint8",
                tile=(TILE, TILE),
                photometric="rgb",
                compression="zlib" if lossless else "jpeg",
                subfiletype=int(downsample > 1),
                metadata=None,
                **said,  # type: ignore[arg-type]
            )
    return path


def _shrink(picture: Picture, downsample: int) -> Picture:
    height, width = (side // downsample for side in picture.shape[:2])
    blocks = picture[: height * downsample, : width * downsample].reshape(height, downsample, width, downsample, 3)
    return np.asarray(blocks.mean(axis=(1, 3)).round(), dtype=np.uint8)


def _tiles(level: Picture) -> Iterator[Picture]:
    for top in range(0, level.shape[0], TILE):
        for left in range(0, level.shape[1], TILE):
            tile = np.zeros((TILE, TILE, 3), dtype=np.uint8)
            part = level[top : top + TILE, left : left + TILE]
            tile[: part.shape[0], : part.shape[1]] = part
            yield tile


def glass(height: int, width: int) -> Picture:
    """Return white glass, uint8 (height, width, 3)."""
    return np.full((height, width, 3), 243, dtype=np.uint8)


def stained(picture: Picture, top: int, left: int, height: int, width: int, *, seed: int = 0) -> Picture:
    """Return a picture with a rectangle of tissue: pink ground, nuclei of 6 micrometres at 0.5 per pixel."""
    rng = np.random.default_rng(seed)
    tissue = np.empty((height, width, 3), dtype=np.uint8)
    tissue[:] = (225, 140, 190)
    rows, columns = np.mgrid[:height, :width]
    for _ in range(height * width // 500):
        y, x = rng.uniform(0, height), rng.uniform(0, width)
        low, high = max(0, int(y) - 7), max(0, int(x) - 7)
        near = (rows[low : low + 14, high : high + 14] - y) ** 2 + (columns[low : low + 14, high : high + 14] - x) ** 2
        tissue[low : low + 14, high : high + 14][near < 36] = (90, 60, 150)
    changed = picture.copy()
    changed[top : top + height, left : left + width] = tissue
    return changed


def write_asap(path: Path, polygons: Mapping[str, Sequence[Sequence[tuple[float, float]]]]) -> Path:
    """Write polygons, lists of (x, y) by the group that they are of, as ASAP's XML."""
    annotations = []
    for group, rings in polygons.items():
        for number, ring in enumerate(rings):
            corners = "".join(f'<Coordinate Order="{i}" X="{x}" Y="{y}" />' for i, (x, y) in enumerate(ring))
            annotations.append(
                f'<Annotation Name="Annotation {number}" Type="Polygon" PartOfGroup="{group}" Color="#F4FA58">'
                f"<Coordinates>{corners}</Coordinates></Annotation>"
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'<?xml version="1.0"?><ASAP_Annotations><Annotations>{"".join(annotations)}</Annotations>'
        "<AnnotationGroups /></ASAP_Annotations>",
        encoding="utf-8",
    )
    return path


def square(left: float, top: float, side: float) -> list[tuple[float, float]]:
    """Return the corners of a square."""
    return [(left, top), (left + side, top), (left + side, top + side), (left, top + side)]
