"""A slide from a scanner's file, read through OpenSlide at whatever resolution is asked for."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Final, Self

import numpy as np
import openslide
from numpy.typing import NDArray
from PIL import Image

from pipeline.params.errors import PixelCAMError
from pipeline.runtime.files import is_shortage

UInt8Image = NDArray[np.uint8]  # (H, W, 3)

SAME: Final = 1.01  # levels whose downsampling differs by less are taken for the one that was asked for
SQUARE: Final = 1.05  # pixels whose sides differ by less are taken for squares
BLOCK: Final = 4096  # pixels of a level that are read at once, along a side
SAMPLE: Final = 2**20  # bytes of a sample for the fingerprint
SAMPLES: Final = 16
OPEN_SLIDES: Final = 8  # kept open by a process
REMEDY: Final = "restore the file, or remove the slide from the dataset"


class Slide:
    """An open slide, to be read by any number of threads.

    Args:
        path: any file that OpenSlide reads: SVS, NDPI, MRXS, DICOM, tiled TIFF, ...
        mpp: micrometres per pixel of level 0, where the file does not say; overrules the file.

    Attributes:
        path: the file.
        size: width and height of level 0 in pixels.
        mpp: micrometres per pixel of level 0.

    Raises:
        PixelCAMError: the file is missing or no slide, or nobody says its mpp.
    """

    def __init__(self, path: Path, *, mpp: float | None = None) -> None:
        self.path = path
        if not path.exists():
            raise PixelCAMError(f"{path}: there is no such slide; mend the path, or restore the file")
        with self._naming("cannot be opened"):
            try:
                self._file = openslide.OpenSlide(path)
            except openslide.OpenSlideUnsupportedFormatError as error:
                raise PixelCAMError(
                    f"{path}: is no slide that OpenSlide reads (SVS, NDPI, MRXS, SCN, DICOM, tiled TIFF, ...); convert "
                    "it to a pyramidal tiled TIFF"
                ) from error
            self.size: tuple[int, int] = self._file.dimensions
            self._downsamples: tuple[float, ...] = self._file.level_downsamples
            properties = self._file.properties
            sides = [properties.get(f"openslide.mpp-{axis}") for axis in "xy"]
            ground = properties.get("openslide.background-color", "ffffff")
        self._ground = (int(ground[:2], 16), int(ground[2:4], 16), int(ground[4:6], 16))
        found = _mean_side(sides, path=path) if mpp is None else mpp
        if found is None:
            raise PixelCAMError(
                f"{path}: does not say how many micrometres a pixel has; give them, as the column mpp of the table or "
                "as --slide-mpp"
            )
        self.mpp: float = found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the file back."""
        self._file.close()

    def read(self, corner: tuple[float, float], *, size: tuple[int, int], downsample: float) -> UInt8Image:
        """Read a part of the slide, from the nearest finer level, resized.

        Args:
            corner: x and y of its upper left corner, in pixels of level 0.
            size: its width and height in pixels.
            downsample: pixels of level 0 for one of these.

        Returns:
            uint8 (height, width, 3), RGB; what lies outside of the slide is white.

        Raises:
            PixelCAMError: the file is damaged there.
        """
        level = max(i for i, each in enumerate(self._downsamples) if i == 0 or each <= downsample * SAME)
        scale = self._downsamples[level]
        first = [int(np.floor(place / scale)) for place in corner]
        offset = [place / scale - start for place, start in zip(corner, first, strict=True)]
        extent = [side * downsample / scale for side in size]
        read = [int(np.ceil(shift + side - 1e-6)) for shift, side in zip(offset, extent, strict=True)]
        with self._naming(f"is damaged near pixel {int(corner[0])}, {int(corner[1])}"):
            part = self._file.read_region((round(first[0] * scale), round(first[1] * scale)), level, (read[0], read[1]))
        part = self._grounded(part)
        if tuple(read) == tuple(size) and max(offset) < 0.01:
            return np.frombuffer(part.tobytes("raw", "RGB"), dtype=np.uint8).reshape(read[1], read[0], 3)
        colour, whole = part.convert("RGB"), round(downsample / scale)
        right, bottom = (side * whole for side in size)
        if whole > 1 and max(offset) < 0.01 and np.allclose(extent, (right, bottom), rtol=0, atol=0.1):
            # The mean of whole pixels, as scanners make their levels, takes a fifth of the time.
            return np.asarray(colour.reduce(whole, (0, 0, right, bottom)))
        box = (offset[0], offset[1], min(offset[0] + extent[0], read[0]), min(offset[1] + extent[1], read[1]))
        return np.asarray(colour.resize(size, Image.Resampling.BILINEAR, box=box))

    def thumbnail(self, *, mpp: float) -> UInt8Image:
        """Read the whole slide at `mpp` micrometres per pixel, block by block: uint8 (H, W, 3)."""
        downsample = mpp / self.mpp
        width, height = (max(1, int(np.ceil(side / downsample))) for side in self.size)
        return self.read_in_blocks((0, 0), size=(width, height), downsample=downsample)

    def read_in_blocks(self, corner: tuple[float, float], *, size: tuple[int, int], downsample: float) -> UInt8Image:
        """Read as `read` does, but never much of a level at once, however much finer it is than what is asked for."""
        width, height = size
        picture = np.empty((height, width, 3), dtype=np.uint8)
        finer = max((each for each in self._downsamples if each <= downsample * SAME), default=1.0)
        step = max(1, int(BLOCK * finer / downsample))
        for top in range(0, height, step):
            for left in range(0, width, step):
                block = (min(step, width - left), min(step, height - top))
                place = (corner[0] + left * downsample, corner[1] + top * downsample)
                picture[top : top + block[1], left : left + block[0]] = self.read(
                    place, size=block, downsample=downsample
                )
        return picture

    def _grounded(self, part: Image.Image) -> Image.Image:
        """Give what was not scanned, where alpha is 0, the slide's background colour: white, unless it says so."""
        if 0 in part.tobytes("raw", "A"):
            part.paste((*self._ground, 255), mask=part.getchannel("A").point([255] + 255 * [0]))
        return part

    @contextmanager
    def _naming(self, what: str) -> Iterator[None]:
        """Turn what OpenSlide raises into an error that names the file."""
        try:
            yield
        except PixelCAMError:
            raise
        except Exception as error:  # OpenSlideError, and what ctypes and Pillow raise for nonsense
            if is_shortage(error):
                raise
            raise PixelCAMError(f"{self.path}: {what} ({error}); {REMEDY}") from error


def _mean_side(sides: list[str | None], *, path: Path) -> float | None:
    """Return the side of a pixel, None where the file does not say it."""
    try:
        lengths = [float(side) for side in sides if side is not None]
    except ValueError:
        return None
    if len(lengths) < 2 or min(lengths) <= 0:
        return None
    if max(lengths) > SQUARE * min(lengths):
        raise PixelCAMError(
            f"{path}: expected square pixels, got {lengths[0]} x {lengths[1]} micrometres; convert the slide to square "
            "pixels, or give the mpp that holds for both"
        )
    return sum(lengths) / len(lengths)


def fingerprint(path: Path) -> str:
    """Return a SHA-256 that tells a slide from another without reading all of it: of its size and of samples.

    A slide of several files (MRXS, DICOM) is told by the one that is named.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for number in range(SAMPLES):
            file.seek(max(0, (size - SAMPLE) * number // (SAMPLES - 1)))
            digest.update(file.read(SAMPLE))
    return digest.hexdigest()


@lru_cache(maxsize=OPEN_SLIDES)
def open_slide(path: Path, sha256: str) -> Slide:
    """Return a slide that this process keeps open; raise a `PixelCAMError` if it is not the one of that fingerprint."""
    if path.exists() and fingerprint(path) != sha256:
        raise PixelCAMError(
            f"{path}: has changed since it was prepared; run the prepare stage of its domain again (dvc repro -f)"
        )
    return Slide(path, mpp=1.0)  # tiles are read by their downsampling


os.register_at_fork(after_in_child=open_slide.cache_clear)  # a file's position is shared with the parent
