"""Pseudo-labels in Zarr against one PNG a map: writing all of them, and reading one at random."""

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from shutil import rmtree

import numpy as np
from PIL import Image

from benchmarks.networks import default_params, smooth_maps
from benchmarks.outcome import Outcome, Reach, cost, speed
from benchmarks.settings import Settings
from benchmarks.timing import side_by_side
from pipeline.data.maps import resize_map
from pipeline.pseudo_labels.store import PseudoLabelStore, StoredImage, write_store
from pipeline.pseudo_labels.thresholding import make_pseudo_labels

STRIDE = 16  # of the CAMs, by default


def measure(settings: Settings) -> Iterator[Outcome]:
    """Yield the speed of writing, the bytes on disk, and the cost of reading.

    Raises:
        ValueError: what is read from Zarr and from PNG differs.
    """
    count, size = (3, 64) if settings.quick else (128, 512)
    rows, store = stored_images(count, size), settings.scratch / "labels.zarr"
    folder, cams = settings.scratch / "labels", settings.scratch / "cams"
    names = [f"{number}.png" for number in range(count)]
    case = f"{count} maps of {size}x{size}"
    times = side_by_side(
        lambda: write_zarr(store, rows, names),
        lambda: write_png(folder, rows, names),
        rounds=settings.rounds(5),
        device=settings.fabric.device,
    )
    yield speed("label_store", case, "writing to Zarr, with CAMs", "one PNG a map", times=times, target=1.5)
    write_cams(cams, rows, names)
    labels, both = bytes_below(folder), bytes_below(folder) + bytes_below(cams)
    yield size_on_disk(case, "labels in Zarr", "one PNG a map", found=bytes_below(store / "labels"), other=labels)
    yield size_on_disk(
        case, "whole store, with CAMs", "PNGs of labels and of CAMs", found=bytes_below(store), other=both
    )
    reader = PseudoLabelStore(store)
    order = np.random.default_rng(0).permutation(count).tolist()
    for index in order:
        row, name = reader.read(names[index]), names[index]
        if not np.array_equal(row.labels, decode(folder / name)) or not np.array_equal(bits(row), decode(cams / name)):
            raise ValueError(f"{names[index]}: Zarr and PNG differ")
    zarr_next, png_next = cycle(order), cycle(order)
    times = side_by_side(
        lambda: reader.read(names[next(zarr_next)]),
        lambda: decode(folder / names[next(png_next)]),
        rounds=settings.rounds(200),
        device=settings.fabric.device,
    )
    yield cost("label_store", case, "reading a sample, with its CAM", "decoding its PNG", times=times, target=1.0)


def stored_images(count: int, size: int) -> list[StoredImage]:
    """Return CAMs and labels as the default params make them."""
    cams = smooth_maps(count, size // STRIDE)[:, 0]
    labels = make_pseudo_labels(resize_map(cams, (size, size)), default_params().extract_pseudo_labels).numpy()
    return [StoredImage(each, cam.numpy().astype(np.float16), 0) for each, cam in zip(labels, cams, strict=True)]


def write_zarr(store: Path, rows: list[StoredImage], names: list[str]) -> None:
    """Write the store as the pipeline does, over one that may be there."""
    rmtree(store, ignore_errors=True)
    shapes = {"label_size": rows[0].labels.shape, "cam_size": rows[0].cam.shape}
    write_store(store, iter(rows), image_count=len(rows), attributes={"image_ids": names}, **shapes)


def write_png(folder: Path, rows: list[StoredImage], names: list[str]) -> None:
    """Write the labels alone, one file each."""
    rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, row in zip(names, rows, strict=True):
        Image.fromarray(row.labels).save(folder / name)


def write_cams(folder: Path, rows: list[StoredImage], names: list[str]) -> None:
    """Write the CAMs as gray images of 16 bits: those of their numbers, which PNG holds in less than round(65535 p)."""
    folder.mkdir()
    for name, row in zip(names, rows, strict=True):
        Image.fromarray(bits(row)).save(folder / name)


def bits(row: StoredImage) -> np.ndarray[tuple[int, ...], np.dtype[np.uint16]]:
    """Return the bits of a CAM, the same as whole numbers."""
    return row.cam.view(np.uint16)


def decode(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8 | np.uint16]]:
    """Return what a file holds."""
    with Image.open(path) as image:
        return np.asarray(image)


def size_on_disk(case: str, work: str, against: str, *, found: int, other: int) -> Outcome:
    """Return how many times the bytes of another form one takes, to be no more."""
    return Outcome(
        row="label_store",
        case=case,
        work=work,
        against=against,
        figure=found / other,
        unit="times the bytes",
        reach=Reach.AT_MOST,
        target=1.0,
        details={"bytes": found, "against_bytes": other},
    )


def bytes_below(folder: Path) -> int:
    """Return what all files of a folder take."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
