"""The two readers everybody uses: image files become RGB arrays and mask files boolean arrays, or the file is named."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from pipeline.errors import PixelCAMError

IMAGE_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV")
MASK_MODES = ("1", "L", "P", "I", "I;16", "I;16L", "I;16B", "I;16N", "RGB")
LOSSY_FORMATS = ("JPEG", "MPO")
UNTURNED = (0, 1)  # 1 is upright by the EXIF standard; some writers put 0 for unknown


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image file as RGB, uint8 (H, W, 3); gray, palette and CMYK images are converted, transparency is dropped.

    Raises:
        PixelCAMError: the file is missing, broken, too large, of several frames, turned by EXIF, or of a mode
            (16-bit gray, float) that has no plain RGB counterpart.
    """
    remedy = "convert it to 8-bit RGB with the contrast you want"
    with _opened(path, modes=IMAGE_MODES, remedy=remedy) as image:
        opaque = image.convert("RGBA") if "transparency" in image.info else image
        return np.array(opaque.convert("RGB"), dtype=np.uint8)


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Read a mask file as bool (H, W): any value but 0 is foreground, be it 1, 255, an instance id or a palette index.

    Raises:
        PixelCAMError: as `read_image`; also for transparency and for JPEG, whose rounding would turn edges into
            foreground.
    """
    with _opened(path, modes=MASK_MODES, remedy="save it with one channel, 0 for background") as image:
        if image.format in LOSSY_FORMATS:
            raise PixelCAMError(f"{path}: a mask must be lossless, got {image.format}; export it again as PNG")
        foreground: NDArray[np.bool_] = np.asarray(image) != 0
        return np.any(foreground, axis=2) if foreground.ndim == 3 else foreground


@contextmanager
def _opened(path: Path, *, modes: Collection[str], remedy: str) -> Iterator[Image.Image]:
    """Open an image file and turn whatever goes wrong, until the caller has decoded it, into a `PixelCAMError`."""
    try:
        with Image.open(path) as image:
            _check(image, path=path, modes=modes, remedy=remedy)
            yield image
    except PixelCAMError:
        raise
    except FileNotFoundError as error:
        raise PixelCAMError(f"{path}: does not exist; restore the file or remove it from the dataset") from error
    except UnidentifiedImageError as error:
        raise PixelCAMError(f"{path}: is no image that Pillow can read; restore the file") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PixelCAMError(f"{path}: {_too_large()}") from error
    except (
        Exception
    ) as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ... for broken files
        raise PixelCAMError(f"{path}: cannot be decoded ({error}); restore the file") from error


def _check(image: Image.Image, *, path: Path, modes: Collection[str], remedy: str) -> None:
    if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
        raise PixelCAMError(f"{path}: {_too_large()}")
    if image.mode not in modes:
        raise PixelCAMError(f"{path}: expected one of the modes {', '.join(modes)}, got {image.mode}; {remedy}")
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise PixelCAMError(f"{path}: expected one frame, got {frames}; save the page you mean as a file of its own")
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    if orientation not in UNTURNED:
        raise PixelCAMError(
            f"{path}: EXIF orientation {orientation} asks viewers to turn it; save it upright, without that tag"
        )


def _too_large() -> str:
    return f"has more than {Image.MAX_IMAGE_PIXELS} pixels; cut it into smaller images"
