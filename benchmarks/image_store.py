"""Prepared images against their files and against plain bytes: reading one at random, and what it takes on disk."""

import os
from collections.abc import Iterator
from itertools import cycle
from unittest.mock import patch

import numpy as np

from benchmarks.label_store import bytes_below
from benchmarks.outcome import Outcome, Reach, cost
from benchmarks.settings import Settings
from benchmarks.timing import seconds_of, side_by_side
from benchmarks.tissue_files import glas_like
from pipeline.data.image_store import FOLDER, ImageStore, SquareReader, prepare_images


def measure(settings: Settings) -> Iterator[Outcome]:
    """Yield the cost of reading an image, the bytes on disk, and the cost of preparing them all.

    Raises:
        ValueError: what is read from the store and from a file differs.
    """
    count, size = (3, 32) if settings.quick else (128, 256)
    reader = SquareReader(glas_like(settings.scratch, settings.glas, count=count), size=size)
    count = len(reader)
    case = f"{count} images, {size} pixels"
    stores: list[ImageStore | None] = []
    with patch.dict(os.environ, {FOLDER: str(settings.scratch / "stores")}):
        preparing = seconds_of(
            lambda: stores.append(prepare_images(reader.manifest, size=size, read=reader.__getitem__)),
            settings.fabric.device,
        )
    (store,) = stores
    if store is None:
        raise ValueError("there is no room for the store")
    order = np.random.default_rng(0).permutation(count).tolist()
    for index in order:
        if not np.array_equal(store[index], reader[index]):
            raise ValueError(f"image {index}: store and file differ")
    from_store, from_files = cycle(order), cycle(order)
    times = side_by_side(
        lambda: store[next(from_store)],
        lambda: reader[next(from_files)],
        rounds=settings.rounds(200),
        device=settings.fabric.device,
    )
    yield cost(
        "image_store",
        case,
        "reading a prepared image",
        "its BMP: checksum, decoding, resizing",
        times=times,
        target=0.1,
    )
    found, plain = bytes_below(store.path), count * size * size * 3
    yield Outcome(
        row="image_store",
        case=case,
        work="store of prepared images",
        against="their plain bytes",
        figure=found / plain,
        unit="times the bytes",
        reach=Reach.AT_MOST,
        target=1.01,
        details={"bytes_per_image": found / count, "seconds_to_prepare": preparing},
    )
