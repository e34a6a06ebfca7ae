"""A manifest's images as squares of one size, decoded once and kept where they fit in memory."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.console import progress
from pipeline.errors import PixelCAMError
from pipeline.files import sha256_of
from pipeline.images import read_image
from pipeline.manifest import Manifest, ManifestRow

KEPT_BYTES = 2 * 1024**3  # decoded images beyond this are read from disk each time
UInt8Array = npt.NDArray[np.uint8]


class SquareImages:
    """The images of a manifest, squashed to squares, decoded once and kept where they fit in memory.

    Raises:
        PixelCAMError: a file cannot be read or is not the one that was prepared; the message names it.
    """

    def __init__(self, manifest: Manifest, *, size: int) -> None:
        self.manifest = manifest
        self.size = size
        self._kept: UInt8Array | None = None
        if len(manifest) * size * size * 3 <= KEPT_BYTES:
            self._kept = np.empty((len(manifest), size, size, 3), dtype=np.uint8)
            self.read_into(self._kept)

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, index: int) -> UInt8Array:
        """Return one image, uint8 (size, size, 3)."""
        return self._read(self.manifest.rows[index]) if self._kept is None else self._kept[index]

    def read_into(self, target: UInt8Array) -> None:
        """Read every image into uint8 (image, size, size, 3), decoding several at a time."""
        with ThreadPoolExecutor() as pool:
            images = pool.map(self._read, self.manifest.rows)
            for index, image in enumerate(progress(images, label="reading images", total=len(self))):
                target[index] = image

    def _read(self, row: ManifestRow) -> UInt8Array:
        path = self.manifest.root / row.image
        image = read_image(path)
        check_unchanged(path, row.image_sha256)
        return squash(image, self.size)


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
