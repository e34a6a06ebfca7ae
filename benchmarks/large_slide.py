"""A slide as large as a scanner's, 100,000 x 100,000 pixels at 0.25 micrometres, and how fast one core works it off.

    OMP_NUM_THREADS=1 python -m benchmarks.large_slide large.tif
    OMP_NUM_THREADS=1 /usr/bin/time -v pixelcam slide large.tif --mpp 1.0 --workers 1

A fifth of it is tissue: one piece, repeated. The first command writes it if it is not there, and prints rates; the
second shows time and peak memory of all that is done with a slide. Rates are by the time of the processor, so that
other programs count little.
"""

import resource
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Final

import numpy as np
import openslide
import torch
import typer
from imagecodecs import jpeg8_encode
from numpy.typing import NDArray
from PIL import Image
from tifffile import TiffWriter

from benchmarks.networks import default_params
from benchmarks.slides import make_look, make_model
from pipeline.evaluation.slide_windows import lay_windows, map_windows
from pipeline.runtime.devices import make_fabric
from pipeline.runtime.files import replacing_file
from pipeline.slides.grid import Corners, lay_grid
from pipeline.slides.nuclei import doubt_about_mpp
from pipeline.slides.reading import Slide, fingerprint
from pipeline.slides.tissue import find_tissue, tissue_area
from pipeline.synthetic.slides import render_slide

Picture = NDArray[np.uint8]  # (H, W, 3)
SIDE: Final = 100_000  # pixels
MPP: Final = 0.25
TILE: Final = 256
CELL: Final = 1024  # pixels of level 0 that are tissue or glass: one tile of the second level
PATTERN: Final = 4096  # pixels of level 0 after which tissue repeats
RENDERED: Final = 8192  # side of the slide that it is cut from, at twice as many micrometres
LEVELS: Final = (1, 4, 16, 64)
ENCODED: Final = (1, 4)  # levels that are put together from encoded tiles; the others are painted whole
GLASS: Final = 243
# Pieces of tissue, in shares of the slide: x and y of their centres, and half their axes. A fifth of it in all.
PIECES: Final = ((0.3, 0.3, 0.2, 0.16), (0.68, 0.62, 0.18, 0.14), (0.25, 0.78, 0.1, 0.07))
QUALITY: Final = 85

ENCODER: Final = "tf_efficientnet_lite0"  # the default
TILE_SIDE: Final = 448  # pixels of a tile that is read
READ_MPP: Final = 0.5
TIMES: Final = 200  # tiles
WINDOWS: Final = ((256, 1.0), (448, 0.5))  # sides in pixels, and their micrometres per pixel
ROWS: Final = 2  # rows of windows, the longest ones


def write_large_slide(path: Path, *, side: int) -> None:
    """Write a slide of `side` x `side` pixels as pyramidal, tiled BigTIFF, JPEG within."""
    pattern = _tissue(PATTERN)
    shown = _where(side)
    with replacing_file(path) as temporary, TiffWriter(temporary, bigtiff=True) as tiff:
        for level in LEVELS:
            shrunk = _shrunk(pattern, level)
            small = side // level
            tiff.write(
                _tiles(shrunk, shown, level, side=small) if level in ENCODED else _painted(shrunk, shown, level, small),
                shape=(small, small, 3),
                dtype=np.uint8,
                tile=(TILE, TILE),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": QUALITY},
                subsampling=(2, 2),
                subfiletype=int(level > 1),
                resolution=(1e4 / (MPP * level),) * 2,
                resolutionunit="CENTIMETER",
                metadata=None,
            )


def _tissue(side: int) -> Picture:
    """Return the fullest square of a generated slide, enlarged to half its micrometres per pixel."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slide.tif"
        render_slide(path, None, size=RENDERED, metastatic=True, seed=0, index=0)
        with openslide.OpenSlide(path) as slide:
            whole = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))[..., :3]
    half, step = side // 2, 256
    places = range(0, RENDERED - half + 1, step)
    starts = [(y, x) for y in places for x in places]
    y, x = min(starts, key=lambda start: whole[start[0] : start[0] + half, start[1] : start[1] + half, 1].mean())
    return np.asarray(Image.fromarray(whole[y : y + half, x : x + half]).resize((side, side), Image.Resampling.BICUBIC))


def _where(side: int) -> NDArray[np.bool_]:
    """Return which cells of a slide are tissue, bool (h, w)."""
    y, x = np.mgrid[: -(-side // CELL), : -(-side // CELL)] * (CELL / side)
    inside = [((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1 for cx, cy, rx, ry in PIECES]
    return np.asarray(np.stack(inside).any(axis=0))


def _shrunk(picture: Picture, level: int) -> Picture:
    small = len(picture) // level
    means = picture.reshape(small, level, small, level, 3).mean(axis=(1, 3))
    return np.asarray(means.round(), dtype=np.uint8)


def _tiles(pattern: Picture, shown: NDArray[np.bool_], level: int, *, side: int) -> Iterator[bytes]:
    """Yield the encoded tiles of a level, row by row."""
    glass = _encoded(np.full((TILE, TILE, 3), GLASS, dtype=np.uint8))
    many, cells = len(pattern) // TILE, CELL // level // TILE
    tissue = [
        [_encoded(pattern[y : y + TILE, x : x + TILE]) for x in range(0, many * TILE, TILE)]
        for y in range(0, many * TILE, TILE)
    ]
    count = -(-side // TILE)
    for y in range(count):
        for x in range(count):
            yield tissue[y % many][x % many] if shown[y // cells, x // cells] else glass


def _encoded(tile: Picture) -> bytes:
    tile = np.ascontiguousarray(tile)
    return bytes(jpeg8_encode(tile, level=QUALITY, colorspace="RGB", outcolorspace="YCBCR", subsampling=(2, 2)))


def _painted(pattern: Picture, shown: NDArray[np.bool_], level: int, side: int) -> Picture:
    """Return a level as one picture (side, side, 3)."""
    cell, times = CELL // level, -(-side // len(pattern))
    where = shown.repeat(cell, axis=0).repeat(cell, axis=1)[:side, :side]
    return np.where(where[..., None], np.tile(pattern, (times, times, 1))[:side, :side], np.uint8(GLASS))


def preparing(path: Path) -> Corners:
    """Print what preparing the slide costs; return its tiles."""
    tissue_params = default_params().slides.tissue
    with Slide(path) as slide:
        began, parts = process_time(), []
        tissue = find_tissue(slide, tissue_params)
        parts.append(process_time())
        side = TILE_SIDE * READ_MPP / slide.mpp
        tiles = lay_grid(tissue, scale=tissue_params.mpp / slide.mpp, side=side, step=side, least=0.5)
        parts.append(process_time())
        doubt_about_mpp(slide, tiles, side=side)
        parts.append(process_time())
        fingerprint(path)
        parts.append(process_time())
        pixels, area = slide.size[0] * slide.size[1], tissue_area(tissue, mpp=tissue_params.mpp)
    spent = parts[-1] - began
    named = zip(("tissue", "grid", "nuclei", "fingerprint"), np.diff([began, *parts]), strict=True)
    print(f"preparing: {spent:.2f} s (" + ", ".join(f"{name} {each:.2f}" for name, each in named) + ")")
    print(f"  {1e9 * spent / pixels:.3f} s for 10^9 pixels; {1000 * spent / area:.0f} ms for a mm2 of {area:.0f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"  peak memory {peak:.2f} GiB, that of the packages included")
    return tiles


def reading(path: Path, tiles: Corners) -> None:
    """Print how many tiles are read in a second."""
    some = tiles[len(tiles) // 2 :][:TIMES].tolist()
    with Slide(path) as slide:
        began = process_time()
        for corner in some:
            slide.read(corner, size=(TILE_SIDE, TILE_SIDE), downsample=READ_MPP / slide.mpp)
        rate = len(some) / (process_time() - began)
    print(f"reading: {rate:.0f} tiles/s of {TILE_SIDE} pixels at {READ_MPP} micrometres")


def mapping(path: Path, *, size: int, mpp: float) -> None:
    """Print how many windows are mapped in a second, by the default encoder."""
    params, fabric = default_params(), make_fabric()
    look = make_look(make_model(ENCODER, size=size).to(fabric.device), fabric)
    with Slide(path) as slide, tempfile.TemporaryDirectory() as scratch:
        tissue = find_tissue(slide, params.slides.tissue)
        windows = lay_windows(slide, tissue, size=size, mpp=mpp, params=params.slides)
        kept = sorted(range(len(windows.rows)), key=lambda row: -len(windows.rows[row]))[:ROWS]
        windows = replace(windows, rows=tuple(each if i in kept else () for i, each in enumerate(windows.rows)))
        began = process_time()
        map_windows(slide, windows, tissue, look=look, batch_size=params.slides.batch_size, scratch=Path(scratch))
        rate = len(windows) / (process_time() - began)
    print(f"mapping: {rate:.1f} windows/s of {size} pixels at {mpp} micrometres")


def main(path: Path) -> None:
    """Write the slide to PATH, half a gigabyte, if it is not there, and print the rates."""
    torch.set_num_threads(1)
    if not path.exists():
        write_large_slide(path, side=SIDE)
        print(f"{path}: {path.stat().st_size / 1e6:.0f} MB, {_where(SIDE).mean():.1%} tissue")
    tiles = preparing(path)
    reading(path, tiles)
    for size, mpp in WINDOWS:
        mapping(path, size=size, mpp=mpp)


if __name__ == "__main__":
    typer.run(main)
