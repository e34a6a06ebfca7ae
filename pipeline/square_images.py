"""A manifest's images as squares of one size: read one by one, or decoded once and kept in memory or on disk."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.console import progress
from pipeline.errors import PixelCAMError
from pipeline.files import sha256_of
from pipeline.image_store import ImageStore, prepare_images
from pipeline.images import read_image
from pipeline.manifest import Manifest
from pipeline.threads import make_pool

KEPT_BYTES = 2 * 1024**3  # of decoded images; more than that is kept in a store on disk
UInt8Array = npt.NDArray[np.uint8]


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
        row = self.manifest.rows[index]
        path = self.manifest.root / row.image
        image = read_image(path)
        check_unchanged(path, row.image_sha256)
        return squash(image, self.size)


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
    """Resize an image, uint8 (H, W, 3), to a square (size, size, 3), bilinearly and without aliasing."""
    if image.shape[:2] == (size, size):
        return image
    return np.array(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))  # a copy, to be writable


def check_unchanged(path: Path, sha256: str) -> None:
    """Raise a `PixelCAMError` unless a file is the one that was prepared."""
    if sha256_of(path) != sha256:
        raise PixelCAMError(
            f"{path}: has changed since it was prepared; run the prepare stage of its domain again (dvc repro -f)"
        )
