"""The Zarr store of pseudo-labels: its schema, a lazy reader, a check of its content, and its writer.

Schema 2 says what labels mean, `pixel_classes`; in schema 1 they are background and foreground. Both are read.

Whole shards are written at a time, each while the rows of the next one are computed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import ZstdCodec

from pipeline.data.zarr_rows import ZarrRows
from pipeline.params.errors import PixelCAMError, shown
from pipeline.params.vocabulary import BACKGROUND, IGNORE, TWO_PIXEL_CLASSES
from pipeline.runtime.files import is_shortage

SCHEMA_VERSION: Final = 2
READABLE: Final = (1, 2)
ARRAYS: Final = {"labels": ("uint8", 3), "cam": ("float16", 3), "class_idx": ("int64", 1), "counts": ("int64", 2)}
REMEDY: Final = "run the extract_pseudo_labels stage again (dvc repro -f extract_pseudo_labels)"

UInt8Array = npt.NDArray[np.uint8]
Float16Array = npt.NDArray[np.float16]
Counts = tuple[int, ...]


@dataclass(frozen=True)
class StoredImage:
    """One row of the store: labels uint8 (H, W), CAM float16 (h, w) in [0, 1], and the class it was taken for."""

    labels: UInt8Array
    cam: Float16Array
    class_idx: int


def count_labels(labels: UInt8Array, *, pixel_classes: int = len(TWO_PIXEL_CLASSES)) -> Counts:
    """Return how many pixels are of each of so many pixel classes, background first, and last how many are ignored."""
    return tuple(int(np.count_nonzero(labels == value)) for value in (*range(pixel_classes), IGNORE))


class PseudoLabelStore:
    """Read a store, one image at a time, opened when first used so that it can be sent to worker processes.

    Attributes:
        path: the store's folder.
        attributes: what the store says of itself.
        pixel_classes: what the labels 0, 1, ... are called, background first.
        image_ids: the manifest's images, in the order of the rows.

    Raises:
        PixelCAMError: the folder is no store, lacks a part of it, or is of a schema that this version does not know.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._group: zarr.Group | None = None
        self._arrays: dict[str, zarr.Array[Any]] = {}  # each is described in a file of its own, read once
        self._rows: dict[str, ZarrRows] = {}
        self._class_idx: npt.NDArray[np.int64] | None = None
        self.attributes: dict[str, Any] = dict(self._open().attrs)
        version = self.attributes.get("schema_version")
        if isinstance(version, bool) or version not in READABLE:
            known = " and ".join(str(each) for each in READABLE)
            raise PixelCAMError(f"{path}: schema_version is {version}, this version reads {known}; {REMEDY}")
        self.pixel_classes = TWO_PIXEL_CLASSES if version == 1 else self._read_pixel_classes()
        self.image_ids = self._read_image_ids()
        for name, (kind, dimensions) in ARRAYS.items():
            array = self._array(name)
            if str(array.dtype) != kind or array.ndim != dimensions:
                raise PixelCAMError(
                    f"{path}: '{name}' must be {kind} of {dimensions} dimensions, got {array.dtype} of {array.ndim}; "
                    f"{REMEDY}"
                )
            found = array.shape[0]
            if found != len(self.image_ids):
                raise PixelCAMError(f"{path}: '{name}' has {found} rows for {len(self.image_ids)} image_ids; {REMEDY}")
        if self._array("counts").shape[1] != len(self.pixel_classes) + 1:
            raise PixelCAMError(
                f"{path}: 'counts' has {self._array('counts').shape[1]} columns where {', '.join(self.pixel_classes)} "
                f"and ignore were expected; {REMEDY}"
            )
        self._row_of = {image_id: row for row, image_id in enumerate(self.image_ids)}

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_group": None, "_arrays": {}, "_rows": {}}

    def read(self, image_id: str) -> StoredImage:
        """Return the row of an image.

        Raises:
            PixelCAMError: the image is not in the store, or its bytes are damaged.
        """
        if image_id not in self._row_of:
            raise PixelCAMError(f"{self.path}: holds no image '{image_id}'; {REMEDY}")
        row = self._row_of[image_id]
        labels, cam = self._read_rows(("labels", "cam"), row)
        return StoredImage(labels, cam, int(self.class_idx()[row]))

    def describe(self) -> dict[str, Any]:
        """Return what the store says of itself, and its counts: all that determines its labels."""
        return self.attributes | {"counts": self.counts().tolist()}

    def counts(self) -> npt.NDArray[np.int64]:
        """Return int64 (image, label): pixels of each image by `pixel_classes`, and ignored ones, as when written."""
        return np.asarray(self._read_whole("counts"), dtype=np.int64)

    def class_idx(self) -> npt.NDArray[np.int64]:
        """Return int64 (image,): the class each CAM was taken for."""
        if self._class_idx is None:
            self._class_idx = np.asarray(self._read_whole("class_idx"), dtype=np.int64)
        return self._class_idx

    def verify(self) -> None:
        """Read everything and compare it with the counts, since a missing file reads as its fill value in silence.

        Raises:
            PixelCAMError: damaged or missing bytes, or labels that differ from their counts; the message names the
                image.
        """
        self._rows, self._class_idx = {}, None  # what was read before may have changed since
        counts = self.counts()
        for row, image_id in enumerate(self.image_ids):
            image = self.read(image_id)
            if image.class_idx < 0 or np.isnan(image.cam).any():
                raise PixelCAMError(f"{self.path}: '{image_id}' has lost its CAM or its class; {REMEDY}")
            found = count_labels(image.labels, pixel_classes=len(self.pixel_classes))
            if found != tuple(counts[row]):
                raise PixelCAMError(
                    f"{self.path}: '{image_id}' has {found} {', '.join(self.pixel_classes)} and ignored pixels where "
                    f"{tuple(int(count) for count in counts[row])} were written; {REMEDY}"
                )

    def _read_pixel_classes(self) -> tuple[str, ...]:
        names = self.attributes.get("pixel_classes")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise PixelCAMError(
                f"{self.path}: pixel_classes must be a list of names, got {shown(str(names))}; {REMEDY}"
            )
        if not len(TWO_PIXEL_CLASSES) <= len(names) <= IGNORE:
            raise PixelCAMError(f"{self.path}: pixel_classes must be 2 to {IGNORE} names, got {len(names)}; {REMEDY}")
        return tuple(names)

    def _read_image_ids(self) -> tuple[str, ...]:
        if "image_ids" not in self.attributes:
            raise PixelCAMError(f"{self.path}: lacks the attribute image_ids; {REMEDY}")
        image_ids = self.attributes["image_ids"]
        if not isinstance(image_ids, list) or not all(isinstance(image_id, str) for image_id in image_ids):
            raise PixelCAMError(f"{self.path}: image_ids must be a list of names, got something else; {REMEDY}")
        if len(set(image_ids)) != len(image_ids):
            raise PixelCAMError(f"{self.path}: image_ids must differ from each other, and some do not; {REMEDY}")
        return tuple(image_ids)

    def _open(self) -> zarr.Group:
        if self._group is None:
            try:
                self._group = zarr.open_group(self.path, mode="r", zarr_format=3)
            except Exception as error:  # zarr raises as many kinds as a damaged description can be damaged
                if is_shortage(error):
                    raise
                raise PixelCAMError(f"{self.path}: cannot be opened as a Zarr group ({error}); {REMEDY}") from error
        return self._group

    def _array(self, name: str) -> zarr.Array[Any]:
        if name in self._arrays:
            return self._arrays[name]
        try:
            array = self._open()[name]
        except PixelCAMError:
            raise
        except Exception as error:  # as when the group is opened
            if is_shortage(error):
                raise
            raise PixelCAMError(f"{self.path}: lacks the array '{name}' or its description; {REMEDY}") from error
        if not isinstance(array, zarr.Array):
            raise PixelCAMError(f"{self.path}: '{name}' is a group where an array was expected; {REMEDY}")
        self._arrays[name] = array
        return array

    def _read_rows(self, names: Sequence[str], row: int) -> Iterator[npt.NDArray[Any]]:
        """Yield a row of several arrays, all of which are read at once."""
        waiting = []
        for name in names:
            with self._naming_damage(name, f"row {row}"):
                if name not in self._rows:
                    self._rows[name] = ZarrRows(self.path / name)
                waiting.append(self._rows[name].begin_reading(row))
        for name, wait in zip(names, waiting, strict=True):
            with self._naming_damage(name, f"row {row}"):
                yield wait()

    def _read_whole(self, name: str) -> npt.NDArray[Any]:
        array = self._array(name)
        with self._naming_damage(name, "its values"):
            return np.asarray(array[...])

    @contextmanager
    def _naming_damage(self, name: str, part: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # codecs raise many kinds on damaged bytes, each with the same remedy
            if is_shortage(error):
                raise
            raise PixelCAMError(f"{self.path}: array '{name}' is damaged at {part} ({error}); {REMEDY}") from error


IMAGES_PER_SHARD: Final = 64


def write_store(
    path: Path,
    images: Iterable[StoredImage],
    *,
    image_count: int,
    label_size: tuple[int, int],
    cam_size: tuple[int, int],
    attributes: Mapping[str, Any],
    pixel_classes: Sequence[str] = TWO_PIXEL_CLASSES,
) -> None:
    """Write a pseudo-label store in Zarr format 3, shard by shard, from one thread beside the caller's.

    While a shard is compressed and written, the next one is taken from `images`, so that two are in memory at most.

    Args:
        path: an empty or missing folder; give the temporary path of `replacing_folder`.
        images: `image_count` rows in the order of `attributes["image_ids"]`.
        image_count: number of rows.
        label_size: height and width of the labels.
        cam_size: height and width of the CAMs.
        attributes: what the group says of itself, `image_ids` among it; JSON values only. `schema_version`,
            `pixel_classes` and `ignore_index` are added.
        pixel_classes: what the labels 0, 1, ... are called, background first.

    Raises:
        PixelCAMError: a row of other shape or dtype, a label that is neither 255 nor of a pixel class, a CAM outside
            [0, 1], or another number of rows or of image ids.
    """
    if len(attributes["image_ids"]) != image_count:
        raise PixelCAMError(f"image_ids must name {image_count} rows, got {len(attributes['image_ids'])}")
    group = zarr.open_group(path, mode="w", zarr_format=3)
    added = {"schema_version": SCHEMA_VERSION, "pixel_classes": list(pixel_classes), "ignore_index": IGNORE}
    group.attrs.update(dict(sorted({**attributes, **added}.items())))
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
            writing = background.submit(
                _write_shard, shard, start, labels=labels, cam=cam, pixel_classes=len(pixel_classes)
            )
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
    shard: list[StoredImage], start: int, *, labels: zarr.Array[Any], cam: zarr.Array[Any], pixel_classes: int
) -> list[Counts]:
    """Write the rows of a shard, the first of which is row `start`, and return the counts of their labels."""
    sizes = {"labels": labels.shape[1:], "cam": cam.shape[1:]}
    counts = [_checked(image, row, sizes, pixel_classes=pixel_classes) for row, image in enumerate(shard, start)]
    rows = slice(start, start + len(shard))
    with zarr.config.set({"codec_pipeline.batch_size": len(shard)}):  # row by row takes a fifth longer
        labels[rows] = np.stack([image.labels for image in shard])
        cam[rows] = np.stack([image.cam for image in shard])
    return counts


def _checked(image: StoredImage, row: int, sizes: Mapping[str, tuple[int, ...]], *, pixel_classes: int) -> Counts:
    """Return the counts of a row's labels; raise a `PixelCAMError` if the row is unfit to be stored."""
    for name, values, dtype in (("labels", image.labels, np.uint8), ("cam", image.cam, np.float16)):
        if values.dtype != dtype or values.shape != sizes[name]:
            raise PixelCAMError(
                f"row {row}: {name} must be {dtype.__name__} {sizes[name]}, got {values.dtype} {values.shape}"
            )
    counts = count_labels(image.labels, pixel_classes=pixel_classes)
    if sum(counts) != image.labels.size:
        strange = sorted({int(value) for value in np.unique(image.labels)} - {*range(pixel_classes), IGNORE})
        raise PixelCAMError(f"row {row}: labels must be {BACKGROUND} to {pixel_classes - 1} or {IGNORE}, got {strange}")
    if not ((image.cam >= 0) & (image.cam <= 1)).all():  # catches NaN too
        raise PixelCAMError(f"row {row}: a CAM must lie in [0, 1], got {image.cam.min()} to {image.cam.max()}")
    return counts
