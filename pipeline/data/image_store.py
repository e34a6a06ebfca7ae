"""A manifest's images as squares of one size: read one by one, or decoded once and kept in memory or in a Zarr store.

A store is named by a key of what determines its pixels, so that it is found whatever stage or experiment comes first,
and never taken for another. It can be removed at any time: it is prepared anew when it is wanted.
"""

import errno
import fcntl
import hashlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import zarr
from PIL import Image
from torch import Tensor
from zarr.codecs import ZstdCodec

from pipeline.data.manifest import Manifest
from pipeline.data.pixels import read_row
from pipeline.data.zarr_rows import ZarrRows
from pipeline.params.errors import PixelCAMError
from pipeline.runtime.console import progress, progress_bar, say
from pipeline.runtime.files import explain_system_error, is_shortage, replacing_folder
from pipeline.runtime.threads import make_pool, prefetch

SCHEMA_VERSION: Final = 1  # also to be raised when images come to be decoded or squashed in another way
FOLDER: Final = "PIXELCAM_IMAGES"  # the variable that names the folder of all stores
DEFAULT_FOLDER: Final = ".images"
ARRAY: Final = "images"
IMAGES_PER_SHARD: Final = 64
BYTES_PER_SHARD: Final = 2**26  # at most, since three shards are in memory while they are written
LEFT_FREE: Final = 10**9  # bytes of the disk, for what else a training writes
DETERMINING: Final = ("schema_version", "size", "pillow", "image_sha256")
REMEDY: Final = "remove this folder, and it is prepared anew"

UInt8Array = npt.NDArray[np.uint8]


class ImageStore:
    """Read a store, one image at a time, opened when first used so that it can be sent to worker processes.

    Args:
        path: the store's folder.
        manifest: the images that it must hold, in this order.
        size: their side in pixels.

    Raises:
        PixelCAMError: the folder is no store of these images.
    """

    def __init__(self, path: Path, *, manifest: Manifest, size: int) -> None:
        self.path = path
        self._shape = (len(manifest), size, size, 3)
        self._rows: ZarrRows | None = None
        expected = _describe(manifest, size)
        with self._naming_damage("its attributes"):
            found = dict(zarr.open_group(path, mode="r", zarr_format=3).attrs)
            for name in DETERMINING:
                if found.get(name) != expected[name]:
                    raise ValueError(f"{name} is not that of the images it is named for")
        self._open()

    def __len__(self) -> int:
        return self._shape[0]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_rows": None}

    def __getitem__(self, index: int) -> UInt8Array:
        """Return one image, uint8 (size, size, 3); may be called in any thread.

        Raises:
            PixelCAMError: its bytes are damaged or gone.
        """
        rows = self._open() if self._rows is None else self._rows
        with self._naming_damage(f"image {index}"):
            return rows.read(index)

    def _open(self) -> ZarrRows:
        with self._naming_damage(f"the array '{ARRAY}'"):
            rows = ZarrRows(self.path / ARRAY, complete=True)
            if rows.shape != self._shape or rows.dtype != "uint8":
                raise ValueError(f"expected uint8 {self._shape}, got {rows.dtype} {rows.shape}")
        self._rows = rows
        return rows

    @contextmanager
    def _naming_damage(self, part: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # zarr raises as many kinds as there are damages
            if is_shortage(error):
                raise
            raise PixelCAMError(f"{self.path}: is damaged at {part} ({error}); {REMEDY}") from error


def images_folder() -> Path:
    """Return the folder of what is prepared once and may be removed at any time."""
    return Path(os.environ.get(FOLDER) or DEFAULT_FOLDER).absolute()


def prepare_images(manifest: Manifest, *, size: int, read: Callable[[int], UInt8Array]) -> ImageStore | None:
    """Return the store of a manifest's images, which is written if there is none; None where the system lets it not be.

    Of several processes that want the same store one writes it and the others wait.

    Args:
        manifest: the images; their checksums, in this order, name the store.
        size: their side in pixels.
        read: returns an image by its number, uint8 (size, size, 3); is called in any thread.

    Raises:
        PixelCAMError: an image cannot be read, or a store that is there is damaged.
    """
    described = _describe(manifest, size)
    folder = images_folder()
    path, unreadable = folder / f"{_key_of(described)}.zarr", []

    def read_noting_failure(index: int) -> UInt8Array:
        try:
            return read(index)
        except Exception as error:
            unreadable.append(error)
            raise

    if not path.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _own_turn(path):
                if not path.exists():
                    _write(path, described, read_noting_failure)
        except (OSError, PixelCAMError) as error:
            refused = error.__cause__ if isinstance(error, PixelCAMError) else error
            if unreadable or not isinstance(refused, OSError):
                raise
            say(f"{path}: cannot be prepared: {explain_system_error(refused)}; until then each image is read anew")
            return None
    return ImageStore(path, manifest=manifest, size=size)


def _describe(manifest: Manifest, size: int) -> dict[str, Any]:
    """Return what a store says of itself. The names are those of the images it was first prepared for."""
    return {
        "image_names": [row.image for row in manifest.rows],
        "image_sha256": [row.image_sha256 for row in manifest.rows],
        "pillow": importlib.metadata.version("pillow"),  # decodes and resizes
        "pixelcam": importlib.metadata.version("pixelcam"),
        "schema_version": SCHEMA_VERSION,
        "size": size,
    }


def _key_of(described: dict[str, Any]) -> str:
    determining = json.dumps([described[name] for name in DETERMINING])
    return hashlib.sha256(determining.encode()).hexdigest()[:32]


@contextmanager
def _own_turn(path: Path) -> Iterator[None]:
    """Wait until no other process prepares a store, and let none do so within the block."""
    lock = path.with_name(f".{path.name}.turn.partial")
    while True:
        with lock.open("w") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"{path}: another process prepares these images; this one waits until it has")
                fcntl.flock(held, fcntl.LOCK_EX)
            if not (lock.exists() and os.path.samestat(os.fstat(held.fileno()), lock.stat())):
                continue  # who had it has removed it, so that others may hold a new one
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return


def _write(path: Path, described: dict[str, Any], read: Callable[[int], UInt8Array]) -> None:
    """Write a store, shard by shard, each while the next is decoded."""
    count, size = len(described["image_sha256"]), described["size"]
    needed = count * size * size * 3
    with replacing_folder(path) as temporary:
        if shutil.disk_usage(temporary).free < needed + LEFT_FREE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        say(
            f"{path}: preparing {count} decoded images of {size} pixels, {needed / 1e9:.1f} GB, for this and later "
            f"runs; the variable {FOLDER} names another folder"
        )
        group = zarr.open_group(temporary, mode="w", zarr_format=3)
        group.attrs.update(described)
        rows = max(1, min(count, IMAGES_PER_SHARD, BYTES_PER_SHARD // (size * size * 3)))
        array = group.create_array(
            ARRAY,
            shape=(count, size, size, 3),
            dtype="uint8",
            chunks=(1, size, size, 3),
            shards=(rows, size, size, 3),
            # Tissue is noise to it: level 1 saves 6 % of the bytes and takes more than twice as long to read.
            compressors=ZstdCodec(level=-1, checksum=True),
            fill_value=0,
            dimension_names=("image", "y", "x", "channel"),
            config={"write_empty_chunks": True},  # so that what is missing is no black image
        )
        shards = (list(range(start, min(start + rows, count))) for start in range(0, count, rows))
        with progress_bar(label="preparing images", total=count) as bar:
            for indices, images in prefetch(shards, read, depth=1):
                array[indices[0] : indices[-1] + 1] = np.stack(images)
                bar.update(len(indices))


KEPT_BYTES = 2 * 1024**3  # of decoded images; more than that is kept in a store on disk


class SquareReader:
    """The images of a manifest, squashed to squares, each read from its file whenever it is asked for."""

    def __init__(self, manifest: Manifest, *, size: int) -> None:
        self.manifest = manifest
        self.size = size

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, index: int) -> UInt8Array:
        """Return one image, uint8 (size, size, 3); may be called in any thread.

        Raises:
            PixelCAMError: the file cannot be read or is not the one that was prepared; the message names it.
        """
        return squash(read_row(self.manifest, self.manifest.rows[index]), self.size)


class SquareImages:
    """The same images, each decoded once: into memory where they fit, else into a store on disk that later runs find.

    Where the disk has no room for it, those beyond memory are read anew each time.

    Args:
        manifest: the images.
        size: their side in pixels.
        only: numbers of those that are wanted, where not all are: memory takes no others.

    Raises:
        PixelCAMError: a file cannot be read or is not the one that was prepared, or a store is damaged; the message
            names it.
    """

    def __init__(self, manifest: Manifest, *, size: int, only: Sequence[int] | None = None) -> None:
        self.manifest = manifest
        self.size = size
        self._images: UInt8Array | ImageStore | SquareReader
        reader = SquareReader(manifest, size=size)
        if len(manifest) * size * size * 3 <= KEPT_BYTES:
            self._images = _read_all(reader, range(len(manifest)) if only is None else only)
        else:
            store = prepare_images(manifest, size=size, read=reader.__getitem__)
            self._images = reader if store is None else store

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, index: int) -> UInt8Array:
        """Return one image, uint8 (size, size, 3); may be called in any thread."""
        image: UInt8Array = self._images[index]
        return image


def _read_all(reader: SquareReader, wanted: Sequence[int]) -> UInt8Array:
    """Return uint8 (image, size, size, 3) in which the wanted images are filled in, decoding several at a time."""
    kept = np.empty((len(reader), reader.size, reader.size, 3), dtype=np.uint8)  # what is not touched takes no memory
    with make_pool() as pool:
        images = pool.map(reader.__getitem__, wanted)
        for index, image in zip(wanted, progress(images, label="reading images", total=len(wanted)), strict=True):
            kept[index] = image
    return kept


def squash(image: UInt8Array, size: int) -> UInt8Array:
    """Resize an image, uint8 (H, W, 3), to a square (size, size, 3), bilinearly and without aliasing.

    Width first, then height: left to itself, Pillow 13 takes the height first where an image is tall, and rounds
    otherwise than Pillow 12 does.
    """
    if image.shape[:2] == (size, size):
        return image
    narrow = Image.fromarray(image).resize((size, image.shape[0]), Image.Resampling.BILINEAR)
    return np.array(narrow.resize((size, size), Image.Resampling.BILINEAR))  # a copy, to be writable


def square_batch(images: Sequence[UInt8Array], size: int) -> Tensor:
    """Squash images, uint8 (H_i, W_i, 3), into a batch as models take it, float32 (B, 3, size, size) in [0, 1]."""
    squares = torch.from_numpy(np.stack([squash(image, size) for image in images]))
    return squares.permute(0, 3, 1, 2).float().div_(255)
