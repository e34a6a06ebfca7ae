"""A manifest's images as squares of one size: read one by one, or decoded once and kept in memory or on disk."""

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.console import progress, say
from pipeline.errors import PixelCAMError
from pipeline.files import sha256_of
from pipeline.images import read_image
from pipeline.manifest import Manifest

KEPT_BYTES = 2 * 1024**3  # more than that of decoded images is kept in a temporary file
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
    """The same images, each decoded once: at once and into memory where they fit, else when first asked for.

    Those beyond memory are kept in a temporary file, which lies where TMPDIR says and is gone with the process; where
    the disk has no room for it, they are read anew each time.

    Raises:
        PixelCAMError: a file cannot be read or is not the one that was prepared; the message names it.
    """

    def __init__(self, manifest: Manifest, *, size: int) -> None:
        self.manifest = manifest
        self.size = size
        self._reader = SquareReader(manifest, size=size)
        shape = (len(manifest), size, size, 3)
        fits = len(manifest) * size * size * 3 <= KEPT_BYTES
        self._kept = np.empty(shape, dtype=np.uint8) if fits else _on_disk(shape)
        self._known = np.zeros(len(manifest), dtype=np.bool_)
        if fits and self._kept is not None:
            self.read_into(self._kept)
            self._known[:] = True

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, index: int) -> UInt8Array:
        """Return one image, uint8 (size, size, 3); may be called in any thread."""
        if self._kept is None:
            return self._reader[index]
        if not self._known[index]:
            self._kept[index] = self._reader[index]
            self._known[index] = True  # only now, for other threads
        kept: UInt8Array = self._kept[index]
        return kept

    def read_into(self, target: UInt8Array) -> None:
        """Read every image into uint8 (image, size, size, 3), decoding several at a time."""
        with ThreadPoolExecutor() as pool:
            images = pool.map(self._reader.__getitem__, range(len(self)))
            for index, image in enumerate(progress(images, label="reading images", total=len(self))):
                target[index] = image


def _on_disk(shape: tuple[int, ...]) -> UInt8Array | None:
    """Return an array in a temporary file, or None where the disk has no room for it."""
    size = int(np.prod(shape))
    with tempfile.TemporaryFile() as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)  # so that the disk cannot be full when it is written to
        except (AttributeError, OSError):  # not every system has it
            say(f"no room for {size / 1e9:.1f} GB of decoded images in {tempfile.gettempdir()}: each is read anew")
            return None
        return np.asarray(np.memmap(file, dtype=np.uint8, mode="r+", shape=shape))


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
