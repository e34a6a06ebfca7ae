"""The Zarr store of pseudo-labels: its schema, one writer of whole shards, a lazy reader, a check of its content."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import ZstdCodec

from pipeline.errors import PixelCAMError
from pipeline.labels import IGNORE, PIXEL_LABELS

SCHEMA_VERSION: Final = 1
IMAGES_PER_SHARD: Final = 64
REMEDY: Final = "run the extract_pseudo_labels stage again (dvc repro -f extract_pseudo_labels)"

UInt8Array = npt.NDArray[np.uint8]
Float16Array = npt.NDArray[np.float16]


@dataclass(frozen=True)
class StoredImage:
    """One row of the store: labels uint8 (H, W), CAM float16 (h, w) in [0, 1], and the class it was taken for."""

    labels: UInt8Array
    cam: Float16Array
    class_idx: int


def write_store(
    path: Path,
    images: Iterable[StoredImage],
    *,
    image_count: int,
    label_size: tuple[int, int],
    cam_size: tuple[int, int],
    attributes: Mapping[str, Any],
) -> None:
    """Write a pseudo-label store in Zarr format 3, shard by shard, from one writer.

    Args:
        path: an empty or missing folder; give the temporary path of `replacing_folder`.
        images: `image_count` rows in the order of `attributes["image_ids"]`.
        image_count: number of rows.
        label_size: height and width of the labels.
        cam_size: height and width of the CAMs.
        attributes: what the group says of itself; JSON values only. `schema_version`, `ignore_index` are added.

    Raises:
        PixelCAMError: a row of other shape or dtype, with a label other than 0, 1, 255, or another number of rows.
    """
    group = zarr.open_group(path, mode="w", zarr_format=3)
    described = {**attributes, "schema_version": SCHEMA_VERSION, "ignore_index": IGNORE}
    group.attrs.update(dict(sorted(described.items())))
    rows = min(IMAGES_PER_SHARD, max(1, image_count))
    labels = _create(group, "labels", (image_count, *label_size), "uint8", ("image", "y", "x"), IGNORE, rows)
    cam = _create(group, "cam", (image_count, *cam_size), "float16", ("image", "cam_y", "cam_x"), 0, rows)
    class_idx = np.zeros(image_count, dtype=np.int64)
    counts = np.zeros((image_count, len(PIXEL_LABELS)), dtype=np.int64)
    pending: list[StoredImage] = []
    start = 0
    for image in images:
        _check_row(image, start + len(pending), label_size, cam_size)
        pending.append(image)
        if len(pending) == rows or start + len(pending) == image_count:
            stop = start + len(pending)
            labels[start:stop] = np.stack([row.labels for row in pending])
            cam[start:stop] = np.stack([row.cam for row in pending])
            class_idx[start:stop] = [row.class_idx for row in pending]
            counts[start:stop] = [count_labels(row.labels) for row in pending]
            start, pending = stop, []
    if start != image_count or pending:
        raise PixelCAMError(f"{path}: expected {image_count} rows, got {start + len(pending)}; {REMEDY}")
    for name, values, names in (
        ("class_idx", class_idx, ("image",)),
        ("counts", counts, ("image", "pixel_label")),
    ):
        array = group.create_array(
            name,
            shape=values.shape,
            dtype="int64",
            chunks=values.shape,
            compressors=_compressor(),
            dimension_names=names,
        )
        array[...] = values


def count_labels(labels: UInt8Array) -> tuple[int, int, int]:
    """Return how many pixels are background, foreground and ignore."""
    background, foreground, ignore = (int((labels == value).sum()) for value in PIXEL_LABELS.values())
    return background, foreground, ignore


class PseudoLabelStore:
    """Read a store, one image at a time, opened when first used so that it can be sent to worker processes.

    Attributes:
        path: the store's folder.
        attributes: what the store says of itself.
        image_ids: the manifest's images, in the order of the rows.

    Raises:
        PixelCAMError: the folder is no store, or of a schema that this version does not know.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._group: zarr.Group | None = None
        group = self._open()
        self.attributes: dict[str, Any] = dict(group.attrs)
        version = self.attributes.get("schema_version")
        if version != SCHEMA_VERSION:
            raise PixelCAMError(f"{path}: schema_version is {version}, this version reads {SCHEMA_VERSION}; {REMEDY}")
        missing = sorted({"labels", "cam", "class_idx", "counts"} - set(group.array_keys()))
        if missing:
            raise PixelCAMError(f"{path}: lacks the array(s) {', '.join(missing)}; {REMEDY}")
        self.image_ids: tuple[str, ...] = tuple(self.attributes["image_ids"])
        self._row_of = {image_id: row for row, image_id in enumerate(self.image_ids)}

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_group": None}

    def read(self, image_id: str) -> StoredImage:
        """Return the row of an image.

        Raises:
            PixelCAMError: the image is not in the store, or its bytes are damaged.
        """
        if image_id not in self._row_of:
            raise PixelCAMError(f"{self.path}: holds no image '{image_id}'; {REMEDY}")
        row = self._row_of[image_id]
        return StoredImage(
            np.asarray(self._read("labels", row)),
            np.asarray(self._read("cam", row)),
            int(self._read("class_idx", row)),
        )

    def counts(self) -> npt.NDArray[np.int64]:
        """Return int64 (image, 3): background, foreground and ignored pixels of each image, as counted when written."""
        return np.asarray(self._read("counts", slice(None)), dtype=np.int64)

    def class_idx(self) -> npt.NDArray[np.int64]:
        """Return int64 (image,): the class each CAM was taken for."""
        return np.asarray(self._read("class_idx", slice(None)), dtype=np.int64)

    def verify(self) -> None:
        """Read everything and compare it with the counts, since a missing chunk reads as ignored pixels in silence.

        Raises:
            PixelCAMError: damaged bytes or labels that differ from their counts; the message names the image.
        """
        counts = self.counts()
        for row, image_id in enumerate(self.image_ids):
            found = count_labels(self.read(image_id).labels)
            if found != tuple(counts[row]):
                raise PixelCAMError(
                    f"{self.path}: '{image_id}' has {found} background, foreground and ignored pixels where "
                    f"{tuple(int(count) for count in counts[row])} were written; {REMEDY}"
                )

    def _open(self) -> zarr.Group:
        if self._group is None:
            try:
                self._group = zarr.open_group(self.path, mode="r", zarr_format=3)
            except (OSError, ValueError, KeyError) as error:
                raise PixelCAMError(f"{self.path}: cannot be opened as a Zarr group ({error}); {REMEDY}") from error
        return self._group

    def _read(self, name: str, selection: int | slice) -> Any:  # noqa: ANN401 - a scalar or an array, as zarr gives it
        array = self._open()[name]
        try:
            return array[selection]  # type: ignore[index]
        except Exception as error:  # codecs raise many kinds on damaged bytes, each with the same remedy
            raise PixelCAMError(f"{self.path}: array '{name}' is damaged at {selection} ({error}); {REMEDY}") from error


def _create(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    dtype: str,
    dimension_names: tuple[str, ...],
    fill_value: int,
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


def _compressor() -> ZstdCodec:
    return ZstdCodec(level=3, checksum=True)


def _check_row(image: StoredImage, row: int, label_size: tuple[int, int], cam_size: tuple[int, int]) -> None:
    for name, values, dtype, size in (
        ("labels", image.labels, np.uint8, label_size),
        ("cam", image.cam, np.float16, cam_size),
    ):
        if values.dtype != dtype or values.shape != size:
            raise PixelCAMError(f"row {row}: {name} must be {dtype.__name__} {size}, got {values.dtype} {values.shape}")
    strange = sorted({int(value) for value in np.unique(image.labels)} - set(PIXEL_LABELS.values()))
    if strange:
        raise PixelCAMError(f"row {row}: labels must be 0, 1 or 255, got {strange}")
