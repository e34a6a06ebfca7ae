"""Whole slides: tiles against bare OpenSlide, windows against bare forward passes; preparing one, and its regions."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import openslide
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.networks import default_params, make_teacher
from benchmarks.outcome import Outcome, Reach, cost, speed
from benchmarks.settings import Settings
from benchmarks.timing import seconds_of, side_by_side
from pipeline.data.image_store import square_batch
from pipeline.data.maps import resize_map
from pipeline.evaluation.slide_windows import Look, Windows, lay_windows, map_windows
from pipeline.models.pixelcam import PixelCAM, PixelCAMLocalizer, build_pixelcam
from pipeline.params.vocabulary import PixelHeadName
from pipeline.slides.geojson import write_geojson
from pipeline.slides.grid import lay_grid
from pipeline.slides.heat import CERTAIN, NOT_LOOKED_AT, Heat
from pipeline.slides.nuclei import doubt_about_mpp
from pipeline.slides.reading import Slide, fingerprint
from pipeline.slides.regions import Region, find_regions
from pipeline.slides.tissue import BoolMap, find_tissue
from pipeline.synthetic.slides import render_slide

ROW: Final = "slides"
READ_MPPS: Final = (0.5, 1.0)  # the slide has 0.5
MAP_MPP: Final = 1.0
PITCH: Final = 60  # heat pixels from one region to the next


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    """Sides in pixels of the slide, of a tile and of a window, and how many regions there are along a side."""

    slide: int
    tile: int
    regions: int


def measure(settings: Settings) -> Iterator[Outcome]:
    """Yield what each of them costs on a generated slide.

    Raises:
        ValueError: works that are compared do not do the same, or a part of them does nothing.
    """
    sizes = _Sizes(slide=1024, tile=64, regions=4) if settings.quick else _Sizes(slide=4096, tile=256, regions=100)
    path = settings.scratch / "slide.tif"
    render_slide(path, None, size=sizes.slide, metastatic=True, seed=0, index=0)
    for mpp in READ_MPPS:
        yield reading(path, settings, mpp=mpp, tile=sizes.tile)
    yield mapping(path, settings, size=sizes.tile)
    yield from preparing(path, settings, tile=sizes.tile)
    yield from outlining(settings, along=sizes.regions)


def reading(path: Path, settings: Settings, *, mpp: float, tile: int) -> Outcome:
    """Return how fast all tiles of a slide are read, each work with a handle, and a cache, of its own."""
    with Slide(path) as slide, openslide.OpenSlide(path) as bare:
        downsample = mpp / slide.mpp
        side = round(tile * downsample)  # of level 0, as the next level is coarser than either mpp
        corners = [(x, y) for y in range(0, slide.size[1], side) for x in range(0, slide.size[0], side)]

        def ours() -> None:
            for corner in corners:
                slide.read(corner, size=(tile, tile), downsample=downsample)

        def theirs() -> None:
            for corner in corners:
                bare.read_region(corner, 0, (side, side))

        times = side_by_side(ours, theirs, rounds=settings.rounds(9), device=settings.fabric.device)
        outcome = speed(
            ROW,
            f"{len(corners)} tiles, {tile} pixels",
            f"reading tiles at {mpp} micrometres",
            "openslide.read_region",
            times=times,
            target=0.8,
        )
    rate = len(corners) / median(times.ours)
    return _with(outcome, tiles_per_second=rate)


def mapping(path: Path, settings: Settings, *, size: int) -> Outcome:
    """Return what mapping a slide costs against the forward passes of its windows, which are in memory already."""
    slides, device = default_params().slides, settings.fabric.device
    name, scratch = next(iter(settings.encoders)), settings.scratch / "windows"
    model = make_model(name, size=size).to(device)
    look = make_look(model, settings.fabric)
    with Slide(path) as slide:
        tissue = find_tissue(slide, slides.tissue)
        windows = lay_windows(slide, tissue, size=size, mpp=MAP_MPP, params=slides)
        batches = _windows_of(slide, windows, tissue, settings)

        def ours() -> None:
            map_windows(slide, windows, tissue, look=look, batch_size=slides.batch_size, scratch=scratch)
            shutil.rmtree(scratch)  # else nothing would be looked at again

        def theirs() -> None:
            with torch.inference_mode(), settings.fabric.autocast():
                for batch in batches:
                    model(batch)

        times = side_by_side(ours, theirs, rounds=settings.rounds(3), device=device)
    outcome = cost(
        ROW,
        f"{name}, {len(windows)} windows",
        f"mapping a slide at {MAP_MPP} micrometres",
        "forward passes of its windows",
        times=times,
        target=1.25,
    )
    return _with(outcome, windows_per_second=len(windows) / median(times.ours))


def make_model(name: str, *, size: int) -> PixelCAM:
    """Return a model with random weights, for windows of `size` pixels."""
    teacher = make_teacher(name, input_size=size)
    return build_pixelcam(teacher.encoder, teacher.image_head, PixelHeadName.LINEAR, seed=0).eval()


def make_look(model: PixelCAM, fabric: Fabric) -> Look:
    """Return what looks at windows as `Predictor.look_for` does with PixelCAM."""
    localizer = PixelCAMLocalizer(model)

    def look(seen: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
        batch = square_batch(list(seen), seen.shape[1]).to(fabric.device)
        with fabric.autocast():
            maps = localizer(batch, torch.zeros(len(batch), dtype=torch.int64, device=fabric.device)).maps
        return resize_map(maps.float(), (side, side)).clamp(0, 1).cpu().numpy()

    return look


def _windows_of(slide: Slide, windows: Windows, tissue: BoolMap, settings: Settings) -> list[Tensor]:
    """Return all windows in full batches, float32 (B, 3, size, size), on the device."""
    kept: list[NDArray[np.uint8]] = []

    def keep(seen: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
        kept.extend(seen)
        return np.zeros((len(seen), side, side), dtype=np.float32)

    count = default_params().slides.batch_size
    map_windows(slide, windows, tissue, look=keep, batch_size=count, scratch=settings.scratch / "kept")
    if len(kept) != len(windows):
        raise ValueError(f"{len(kept)} of {len(windows)} windows were looked at")
    starts = range(0, len(kept), count)
    return [square_batch(kept[start : start + count], windows.size).to(settings.fabric.device) for start in starts]


def preparing(path: Path, settings: Settings, *, tile: int) -> Iterator[Outcome]:
    """Yield the seconds that the parts of preparing a slide take."""
    params = default_params().slides.tissue
    with Slide(path) as slide:
        tissue, side = find_tissue(slide, params), tile / slide.mpp * READ_MPPS[0]
        scale = params.mpp / slide.mpp

        def grid() -> NDArray[np.int64]:
            return lay_grid(tissue, scale=scale, side=side, step=side, least=0.5)

        corners = grid()
        parts: dict[str, Callable[[], object]] = {
            "finding tissue": lambda: find_tissue(slide, params),
            "laying the grid": grid,
            "looking at nuclei": lambda: doubt_about_mpp(slide, corners, side=side),
            "fingerprint": lambda: fingerprint(path),
        }
        case = f"{slide.size[0]}x{slide.size[1]}, {len(corners)} tiles"
        for name, part in parts.items():
            yield _seconds(name, case, part, settings)


def outlining(settings: Settings, *, along: int) -> Iterator[Outcome]:
    """Yield the seconds that finding regions on a heatmap, and writing them, take."""
    heat = ragged_spots(along)
    found: list[Region] = []

    def find() -> None:
        found[:] = find_regions(heat, threshold=0.5, smallest_mm2=0.0)

    case = f"{along**2} regions, {heat.values.shape[1]}x{heat.values.shape[0]}"
    path = settings.scratch / "regions.geojson"
    yield _seconds("finding regions", case, find, settings)
    if len(found) != along**2:
        raise ValueError(f"{len(found)} regions were found on a heatmap of {along**2}")
    outcome = _seconds(
        "writing GeoJSON", case, lambda: write_geojson(path, found, name="tumour", colour=(213, 94, 0)), settings
    )
    yield _with(outcome, bytes=path.stat().st_size)


def ragged_spots(along: int) -> Heat:
    """Return a heatmap of `along` times `along` regions of different size, with bays; a third of them have a hole."""
    rng = np.random.default_rng(0)
    axis = np.arange(PITCH) - (PITCH - 1) / 2
    distance, angle = np.hypot(axis[:, None], axis), np.arctan2(axis[:, None], axis)
    values = np.full((along * PITCH, along * PITCH), NOT_LOOKED_AT, dtype=np.uint8)
    for row in range(along):
        for column in range(along):
            radius, turn = rng.uniform(4, 22), rng.uniform(0, 2 * np.pi, 2)
            rim = radius * (1 + 0.15 * np.sin(5 * angle + turn[0]) + 0.08 * np.sin(13 * angle + turn[1]))
            inside = (distance < rim) & (distance > (radius / 3 if (row + column) % 3 == 0 else -1))
            place = np.s_[row * PITCH : (row + 1) * PITCH, column * PITCH : (column + 1) * PITCH]
            values[place] = np.where(inside, rng.integers(CERTAIN // 2, CERTAIN, inside.shape), CERTAIN // 10)
    return Heat(values, 16.0, 0.25)


def _seconds(work: str, case: str, action: Callable[[], object], settings: Settings) -> Outcome:
    """Return how long a work takes, which nothing is there to compare with."""
    action()
    taken = [seconds_of(action, settings.fabric.device) for _ in range(settings.rounds(3))]
    return Outcome(
        row=ROW,
        case=case,
        work=work,
        against="nothing",
        figure=median(taken),
        unit="seconds",
        reach=Reach.AT_MOST,
        target=None,
        details={"seconds": [round(each, 4) for each in taken]},
    )


def _with(outcome: Outcome, **more: Any) -> Outcome:  # noqa: ANN401 - as `details` has it
    """Return an outcome that says more."""
    return Outcome(**{**vars(outcome), "details": {**outcome.details, **more}})
