"""The two readers everybody uses: image files become RGB arrays and mask files boolean arrays, or the file is named.

What is odd and accepted all the same is remarked upon: one line per kind, with a count, however many files.
"""

import re
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from scipy import ndimage

from pipeline.params.errors import PixelCAMError, named
from pipeline.runtime.console import say

ImageLike = Path | str | NDArray[np.uint8]  # an image by its file, or by its pixels (H, W, 3)


class Remark(StrEnum):
    """What reading a file converted, or what looks wrong and may be right."""

    GRAY = "gray images, read as RGB with three equal channels"
    PALETTE = "images with a palette, read as RGB by its colours"
    COLOUR_SPACE = "images in CMYK, YCbCr or HSV, read as RGB without a colour profile"
    OPAQUE = "images with an alpha channel that is opaque, which is dropped"
    OTHER_FORMAT = "files in another format than their name says, read as what they are"
    SEVERAL_VALUES = "masks with several values, such as instance ids: every value but 0 is foreground"
    SOFT_EDGES = "masks with soft edges: foreground is what is above half of white (127 of 255)"
    INVERTED = "masks that look inverted, foreground all along the border and none within: 0 must be background"


def tell(remarks: Iterable[tuple[Remark, str]], *, source: object) -> None:
    """Print a line for each kind of remark on `source`, given with the file that it is about."""
    files: dict[Remark, list[str]] = {}
    for remark, file in remarks:
        files.setdefault(remark, []).append(file)
    for remark in Remark:
        if found := files.get(remark):
            warning = "warning: " if remark is Remark.INVERTED else ""
            say(f"{warning}{source}: {len(found)} {remark} (the first: {named(found[0])})")


BoolArray = npt.NDArray[np.bool_]
# A band of an edge is this many pixels wide at most; what is wider is an area of its own.
MAX_EDGE_WIDTH: Final = 6
SHOWN_VALUES: Final = 5


def foreground_of(values: npt.NDArray[np.integer], *, name: str) -> tuple[BoolArray, Remark | None]:
    """Return where a mask marks the region of interest, bool (H, W), and what is worth telling about it.

    One value beside 0 is foreground, and so is each of several, which are taken for instance ids. But where the largest
    value that the type can hold (255 or 65535) stands beside others, that is white, and the others are gray: gray in
    thin bands is a soft edge, foreground from half of white on; gray over an area could be anything.

    Args:
        values: integers (H, W).
        name: what the error calls the mask.

    Raises:
        PixelCAMError: gray areas, be it a third value such as ignore, or a map of probabilities.
    """
    foreground = values != 0
    present = np.unique(values[foreground])
    if len(present) < 2:
        return foreground, None
    white = 255 if values.dtype == np.uint8 else 65535
    if present[-1] != white:
        return foreground, Remark.SEVERAL_VALUES
    gray = foreground & (values != white)
    if not _has_area(gray):
        return values > white // 2, Remark.SOFT_EDGES
    if _looks_like_ids(values, present=present, gray=gray):
        return foreground, Remark.SEVERAL_VALUES
    some = ", ".join(str(value) for value in present[:SHOWN_VALUES])
    raise PixelCAMError(
        f"{name}: expected one value beside 0 or instance ids, got areas of {len(present)} values ({some}"
        f"{', ...' if len(present) > SHOWN_VALUES else ''}), of which any could be ignored or uncertain; save it with "
        "0 for background and 255 for foreground, and what is to be ignored as a mask of its own"
    )


def looks_inverted(mask: BoolArray) -> bool:
    """Return whether all along the border a mask is foreground, and somewhere within it is not."""
    border = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
    return all(bool(side.all()) for side in border) and not bool(mask.all())


def _has_area(pixels: BoolArray) -> bool:
    """Return whether a square that is wider than an edge fits into the pixels."""
    return bool(ndimage.minimum_filter(pixels, MAX_EDGE_WIDTH + 1, mode="constant", cval=0).any())


def _looks_like_ids(values: npt.NDArray[np.integer], *, present: npt.NDArray[np.integer], gray: BoolArray) -> bool:
    """Return whether values are counted from 1, as ids are, and stand in flat areas, as those of a gradient do not."""
    if len(present) == 2 or present[0] != 1 or present[1] != 2:
        return False
    flat = ndimage.maximum_filter(values, 3) == ndimage.minimum_filter(values, 3)
    return bool(flat[gray].mean() > 0.5)


# Pixels alone: Pillow's list also has formats that run a program (EPS) or that are recognized by next to nothing.
FORMATS: Final = ("BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
IMAGE_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV")
MASK_MODES = ("1", "L", "P", "I", "I;16", "I;16L", "I;16B", "I;16N", "RGB")
LOSSY_FORMATS = ("JPEG", "MPO")  # MPO is what Pillow calls a JPEG file that holds several images
MIN_SIDE: Final = 4  # pixels; what is smaller shows no tissue, but a pixel that a viewer or a page needed
UNTURNED = (0, 1)  # 1 is upright by the EXIF standard; some writers put 0 for unknown

_FORMAT_OF_NAME = {
    ".bmp": "BMP",
    ".gif": "GIF",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jp2": "JPEG2000",
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}
SUFFIXES: Final = tuple(_FORMAT_OF_NAME)  # by which an image is known in a folder of all kinds of files
_REMARK_OF_MODE = {
    "1": Remark.GRAY,
    "L": Remark.GRAY,
    "LA": Remark.GRAY,
    "P": Remark.PALETTE,
    "PA": Remark.PALETTE,
    "CMYK": Remark.COLOUR_SPACE,
    "YCbCr": Remark.COLOUR_SPACE,
    "HSV": Remark.COLOUR_SPACE,
}


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """Pixels uint8 (H, W, 3), and what was converted to get them."""

    pixels: NDArray[np.uint8]
    remarks: tuple[Remark, ...]


@dataclass(frozen=True, eq=False)
class DecodedMask:
    """Foreground bool (H, W), and how the file's values were understood."""

    foreground: NDArray[np.bool_]
    remarks: tuple[Remark, ...]


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image file as RGB, uint8 (H, W, 3); see `decode_image`."""
    return decode_image(path).pixels


def several(images: Sequence[ImageLike]) -> Sequence[ImageLike]:
    """Return a list of images; raise a `PixelCAMError` for a single file, whose letters would be taken for files."""
    if isinstance(images, str | Path):
        raise PixelCAMError(f"{images}: expected a list of images, got one; put it into a list")
    return images


def as_pixels(image: ImageLike) -> NDArray[np.uint8]:
    """Return an image that is given as its file or as its pixels, uint8 (H, W, 3).

    Raises:
        PixelCAMError: the file cannot be read, see `decode_image`, or the pixels are of another type or shape.
    """
    if isinstance(image, str | Path):
        return read_image(Path(image))
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise PixelCAMError(
            f"expected a list of images, each a file or an array uint8 (H, W, 3), got {image.dtype} {image.shape}; "
            "convert it, or put a single image into a list"
        )
    return image


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Read a mask file as bool (H, W); see `decode_mask`."""
    return decode_mask(path).foreground


def decode_image(path: Path) -> DecodedImage:
    """Read an image file as RGB; gray, palette and CMYK images are converted, an opaque alpha channel is dropped.

    Raises:
        PixelCAMError: the file is missing, no file, broken, too large, of several frames, turned by EXIF, partly
            transparent, or of more than 8 bits per channel, which has no plain RGB counterpart.
    """
    remedy = "convert it to 8-bit RGB with the contrast you want"
    with _opened(path, modes=IMAGE_MODES, remedy=remedy) as image:
        remarks = [*_remarks_on_name(path, image_format=image.format)]
        if image.mode in _REMARK_OF_MODE:
            remarks.append(_REMARK_OF_MODE[image.mode])
        if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
            image = image.convert("RGBA")  # noqa: PLW2901 - the file is closed by the block
            _check_opaque(image, path=path)
            remarks.append(Remark.OPAQUE)
        return DecodedImage(np.array(image.convert("RGB"), dtype=np.uint8), tuple(remarks))


def decode_mask(path: Path) -> DecodedMask:
    """Read a mask file: any value but 0 is foreground, be it 1, 255, an instance id or a palette index.

    Soft edges are cut at half of white, and of colours the brightest channel counts; see `foreground_of`.

    Raises:
        PixelCAMError: as `decode_image`; also for transparency, for values that could mean anything, and for JPEG,
            whose rounding would turn edges into foreground.
    """
    with _opened(path, modes=MASK_MODES, remedy="save it with one channel, 0 for background") as image:
        if image.format in LOSSY_FORMATS:
            raise PixelCAMError(f"{path}: a mask must be lossless, got {image.format}; export it again as PNG")
        values = np.asarray(image)
        named = _remarks_on_name(path, image_format=image.format)
        if image.mode in ("1", "P"):  # of a palette, the indices count, not the colours
            return DecodedMask(values != 0, named)
        foreground, remark = foreground_of(values.max(axis=2) if values.ndim == 3 else values, name=str(path))
        return DecodedMask(foreground, (*named, remark) if remark else named)


@contextmanager
def _opened(path: Path, *, modes: Collection[str], remedy: str) -> Iterator[Image.Image]:
    """Open an image file and turn whatever goes wrong, until the caller has decoded it, into a `PixelCAMError`."""
    try:
        _check_file(path)
        with Image.open(path, formats=FORMATS) as image:
            _check(image, path=path, modes=modes, remedy=remedy)
            yield image
    except PixelCAMError:
        raise
    except UnidentifiedImageError as error:
        known = ", ".join(FORMATS)
        raise PixelCAMError(
            f"{path}: is no image in a format that is read here ({known}); restore the file, or convert it to PNG"
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        pixels = re.search(r"\d+", str(error))
        raise PixelCAMError(f"{path}: {_too_large(pixels.group() if pixels else 'more')}") from error
    except MemoryError as error:
        raise PixelCAMError(
            f"{path}: there is not enough memory to decode it, or it is broken; end other programs, or restore the file"
        ) from error
    except (
        Exception
    ) as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ... for broken files
        raise PixelCAMError(f"{path}: cannot be decoded ({error}); restore the file") from error


def _check_file(path: Path) -> None:
    """Refuse what is no file with content, in words of its own; opening a pipe would wait for ever."""
    try:
        status = path.stat()
    except FileNotFoundError as error:
        if path.is_symlink():
            raise PixelCAMError(
                f"{path}: is a link to {path.readlink()}, which does not exist; restore that file or mend the link"
            ) from error
        raise PixelCAMError(f"{path}: does not exist; restore the file or remove it from the dataset") from error
    except (OSError, ValueError) as error:
        raise PixelCAMError(f"{path}: cannot be found ({error}); restore the file or mend its name") from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a device or a pipe"
        raise PixelCAMError(f"{path}: expected an image file, got {kind}; mend the path")
    if status.st_size == 0:
        raise PixelCAMError(f"{path}: is no image, it is empty (0 bytes); restore the file")


def _check(image: Image.Image, *, path: Path, modes: Collection[str], remedy: str) -> None:
    """Refuse by what the file says of itself, before any pixel is decoded."""
    if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
        raise PixelCAMError(f"{path}: {_too_large(f'{image.width}x{image.height}')}")
    if image.mode not in modes:
        raise PixelCAMError(f"{path}: expected one of the modes {', '.join(modes)}, got {image.mode}; {remedy}")
    if not image.mode.startswith("I") and _is_deep(image):
        raise PixelCAMError(f"{path}: expected 8 bits per channel, got 16; {remedy}")
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise PixelCAMError(f"{path}: expected one frame, got {frames}; save the page you mean as a file of its own")
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    if orientation not in UNTURNED:
        raise PixelCAMError(
            f"{path}: EXIF orientation {orientation} asks viewers to turn it, and its mask may be either way; save it "
            "upright, without that tag"
        )


def _is_deep(image: Image.Image) -> bool:
    """Return whether Pillow would cut 16 bits of colour to 8 in silence: only its name of the raw layout says so."""
    layouts = (tile[3] for tile in getattr(image, "tile", ()))
    return any(";16" in str(layout[0] if isinstance(layout, tuple) and layout else layout) for layout in layouts)


def _check_opaque(image: Image.Image, *, path: Path) -> None:
    transparent = int((np.asarray(image.getchannel("A")) < 255).sum())
    if transparent:
        raise PixelCAMError(
            f"{path}: expected an opaque image, got {transparent} of {image.width * image.height} pixels with "
            "transparency; flatten it on the background that you mean"
        )


def _remarks_on_name(path: Path, *, image_format: str | None) -> tuple[Remark, ...]:
    named = _FORMAT_OF_NAME.get(path.suffix.lower())
    return () if named is None or named == image_format else (Remark.OTHER_FORMAT,)


def _too_large(came: str) -> str:
    return f"expected at most {Image.MAX_IMAGE_PIXELS} pixels, got {came}; cut it into smaller images"
