"""The Zarr store of pseudo-labels: its schema, a lazy reader, a check of its content."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import zarr

from pipeline.errors import PixelCAMError
from pipeline.labels import PIXEL_LABELS
from pipeline.shard_rows import ShardRows
from pipeline.shortages import is_shortage

SCHEMA_VERSION: Final = 1
ARRAYS: Final = {"labels": ("uint8", 3), "cam": ("float16", 3), "class_idx": ("int64", 1), "counts": ("int64", 2)}
REMEDY: Final = "run the extract_pseudo_labels stage again (dvc repro -f extract_pseudo_labels)"

UInt8Array = npt.NDArray[np.uint8]
Float16Array = npt.NDArray[np.float16]


@dataclass(frozen=True)
class StoredImage:
    """One row of the store: labels uint8 (H, W), CAM float16 (h, w) in [0, 1], and the class it was taken for."""

    labels: UInt8Array
    cam: Float16Array
    class_idx: int


def count_labels(labels: UInt8Array) -> tuple[int, int, int]:
    """Return how many pixels are background, foreground and ignore."""
    background, foreground, ignore = (int(np.count_nonzero(labels == value)) for value in PIXEL_LABELS.values())
    return background, foreground, ignore


class PseudoLabelStore:
    """Read a store, one image at a time, opened when first used so that it can be sent to worker processes.

    Attributes:
        path: the store's folder.
        attributes: what the store says of itself.
        image_ids: the manifest's images, in the order of the rows.

    Raises:
        PixelCAMError: the folder is no store, lacks a part of it, or is of a schema that this version does not know.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._group: zarr.Group | None = None
        self._arrays: dict[str, zarr.Array[Any]] = {}  # each is described in a file of its own, read once
        self._rows: dict[str, ShardRows | None] = {}
        self._class_idx: npt.NDArray[np.int64] | None = None
        self.attributes: dict[str, Any] = dict(self._open().attrs)
        version = self.attributes.get("schema_version")
        if version != SCHEMA_VERSION:
            raise PixelCAMError(f"{path}: schema_version is {version}, this version reads {SCHEMA_VERSION}; {REMEDY}")
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
        return StoredImage(
            np.asarray(self._read("labels", row)),
            np.asarray(self._read("cam", row)),
            int(self.class_idx()[row]),
        )

    def describe(self) -> dict[str, Any]:
        """Return what the store says of itself, and its counts: all that determines its labels."""
        return self.attributes | {"counts": self.counts().tolist()}

    def counts(self) -> npt.NDArray[np.int64]:
        """Return int64 (image, 3): background, foreground and ignored pixels of each image, as counted when written."""
        return np.asarray(self._read("counts", slice(None)), dtype=np.int64)

    def class_idx(self) -> npt.NDArray[np.int64]:
        """Return int64 (image,): the class each CAM was taken for."""
        if self._class_idx is None:
            self._class_idx = np.asarray(self._read("class_idx", slice(None)), dtype=np.int64)
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
            found = count_labels(image.labels)
            if found != tuple(counts[row]):
                raise PixelCAMError(
                    f"{self.path}: '{image_id}' has {found} background, foreground and ignored pixels where "
                    f"{tuple(int(count) for count in counts[row])} were written; {REMEDY}"
                )

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

    def _read(self, name: str, selection: int | slice) -> Any:  # noqa: ANN401 - a scalar or an array, as zarr gives it
        array = self._array(name)
        try:
            if name not in self._rows:
                self._rows[name] = ShardRows.of(self.path / name, array)
            rows = self._rows[name]
            return rows.read(selection) if rows is not None and isinstance(selection, int) else array[selection]
        except Exception as error:  # codecs raise many kinds on damaged bytes, each with the same remedy
            if is_shortage(error):
                raise
            raise PixelCAMError(f"{self.path}: array '{name}' is damaged at {selection} ({error}); {REMEDY}") from error
