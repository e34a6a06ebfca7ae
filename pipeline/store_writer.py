"""Write the Zarr store of pseudo-labels, whole shards at a time, each while the rows of the next one are computed."""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import ZstdCodec

from pipeline.errors import PixelCAMError
from pipeline.labels import IGNORE, PIXEL_LABELS
from pipeline.shard_rows import ShardRows
from pipeline.store import REMEDY, SCHEMA_VERSION, StoredImage, count_labels

IMAGES_PER_SHARD: Final = 64

Counts = tuple[int, int, int]


def write_store(
    path: Path,
    images: Iterable[StoredImage],
    *,
    image_count: int,
    label_size: tuple[int, int],
    cam_size: tuple[int, int],
    attributes: Mapping[str, Any],
) -> None:
    """Write a pseudo-label store in Zarr format 3, shard by shard, from one thread beside the caller's.

    While a shard is compressed and written, the next one is taken from `images`, so that two are in memory at most.

    Args:
        path: an empty or missing folder; give the temporary path of `replacing_folder`.
        images: `image_count` rows in the order of `attributes["image_ids"]`.
        image_count: number of rows.
        label_size: height and width of the labels.
        cam_size: height and width of the CAMs.
        attributes: what the group says of itself, `image_ids` among it; JSON values only. `schema_version` and
            `ignore_index` are added.

    Raises:
        PixelCAMError: a row of other shape or dtype, a label other than 0, 1, 255, a CAM outside [0, 1], or another
            number of rows or of image ids.
    """
    if len(attributes["image_ids"]) != image_count:
        raise PixelCAMError(f"image_ids must name {image_count} rows, got {len(attributes['image_ids'])}")
    group = zarr.open_group(path, mode="w", zarr_format=3)
    described = {**attributes, "schema_version": SCHEMA_VERSION, "ignore_index": IGNORE}
    group.attrs.update(dict(sorted(described.items())))
    rows = min(IMAGES_PER_SHARD, max(1, image_count))
    # The fill values of the last three are none that is ever written, so that `verify` sees a missing file.
    labels = _create(group, "labels", (image_count, *label_size), "uint8", ("image", "y", "x"), IGNORE, rows)
    cam = _create(group, "cam", (image_count, *cam_size), "float16", ("image", "cam_y", "cam_x"), float("nan"), rows)
    class_idx: list[int] = []
    counts: list[Counts] = []
    writing: Future[list[Counts]] | None = None
    with ThreadPoolExecutor(max_workers=1) as background:  # waits for what is under way, whatever was raised
        for shard in _shards(images, rows):
            if writing is not None:
                counts += writing.result()
            start = len(class_idx)
            if start + len(shard) > image_count:
                raise PixelCAMError(f"{path}: expected {image_count} rows, got more; {REMEDY}")
            writing = background.submit(_write_shard, path, shard, start, labels=labels, cam=cam)
            class_idx += [image.class_idx for image in shard]
        if writing is not None:
            counts += writing.result()
    if len(class_idx) != image_count:
        raise PixelCAMError(f"{path}: expected {image_count} rows, got {len(class_idx)}; {REMEDY}")
    _create_whole(group, "class_idx", np.array(class_idx, dtype=np.int64), ("image",))
    _create_whole(group, "counts", np.array(counts, dtype=np.int64), ("image", "pixel_label"))


def _shards(images: Iterable[StoredImage], rows: int) -> Iterator[list[StoredImage]]:
    """Yield the images of one shard after the other, the last of which may hold fewer."""
    iterator = iter(images)
    while shard := list(islice(iterator, rows)):
        yield shard


def _create(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    dtype: str,
    dimension_names: tuple[str, ...],
    fill_value: float,
    rows: int,
) -> zarr.Array[Any]:
    """Create an array with one image per chunk and many images per shard, so that files stay few and reads small."""
    return group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=(1, *shape[1:]),
        shards=(rows, *shape[1:]),
        compressors=_compressor(),
        fill_value=fill_value,
        dimension_names=dimension_names,
    )


def _create_whole(group: zarr.Group, name: str, values: npt.NDArray[np.int64], names: tuple[str, ...]) -> None:
    """Create and fill an array of a few numbers per image, in one chunk."""
    array = group.create_array(
        name,
        shape=values.shape,
        dtype="int64",
        chunks=values.shape,
        compressors=_compressor(),
        fill_value=-1,
        dimension_names=names,
    )
    array[...] = values


def _compressor() -> ZstdCodec:
    return ZstdCodec(level=4, checksum=True)


def _write_shard(
    path: Path, shard: list[StoredImage], start: int, *, labels: zarr.Array[Any], cam: zarr.Array[Any]
) -> list[Counts]:
    """Write the rows of a shard, the first of which is row `start`, and return the counts of their labels."""
    counts = [_checked(image, row, labels.shape[1:], cam.shape[1:]) for row, image in enumerate(shard, start)]
    _write_rows(path / "labels", labels, start, [image.labels for image in shard])
    _write_rows(path / "cam", cam, start, [image.cam for image in shard])
    return counts


def _write_rows(folder: Path, array: zarr.Array[Any], start: int, values: list[npt.NDArray[Any]]) -> None:
    """Write the rows of a shard: straight to its file, several times as fast, or by zarr; the bytes are the same."""
    rows = ShardRows.of(folder, array)
    if rows is None:
        array[start : start + len(values)] = np.stack(values)
    else:
        rows.write_shard(start // rows.per_shard, values)


def _checked(image: StoredImage, row: int, label_size: tuple[int, ...], cam_size: tuple[int, ...]) -> Counts:
    """Return the counts of a row's labels; raise a `PixelCAMError` if the row is unfit to be stored."""
    for name, values, dtype, size in (
        ("labels", image.labels, np.uint8, label_size),
        ("cam", image.cam, np.float16, cam_size),
    ):
        if values.dtype != dtype or values.shape != size:
            raise PixelCAMError(f"row {row}: {name} must be {dtype.__name__} {size}, got {values.dtype} {values.shape}")
    counts = count_labels(image.labels)
    if sum(counts) != image.labels.size:
        strange = sorted({int(value) for value in np.unique(image.labels)} - set(PIXEL_LABELS.values()))
        raise PixelCAMError(f"row {row}: labels must be 0, 1 or 255, got {strange}")
    if not ((image.cam >= 0) & (image.cam <= 1)).all():  # catches NaN too
        raise PixelCAMError(f"row {row}: a CAM must lie in [0, 1], got {image.cam.min()} to {image.cam.max()}")
    return counts
