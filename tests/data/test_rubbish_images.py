"""Images that are none, or not quite: what prepare refuses, what it converts, and what it says of either."""

import os
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rubbish import SIZE, acceptance, picture, refusal, write_good

from pipeline.data.images import read_image
from pipeline.params.errors import PixelCAMError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_good(tmp_path)


def _png(width: int, height: int, *, depth: int, colour: int, rows: bytes) -> bytes:
    """Return a PNG as its standard has it, of kinds that Pillow does not write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:300])


def _animate(path: Path) -> None:
    frames = [Image.fromarray(picture(seed)) for seed in (1, 2, 3)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def _turn(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture()).save(path, exif=exif)


def _replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _break_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("moved.png")


def _link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def _float_tiff(path: Path) -> None:
    values = np.full((SIZE[1], SIZE[0]), 0.5, dtype=np.float32)
    values[3, 3] = np.nan
    Image.fromarray(values).save(path, format="TIFF")


def _deep_gray(path: Path) -> None:
    Image.fromarray(np.full((SIZE[1], SIZE[0]), 3000, dtype=np.uint16)).save(path)


def _deep_colour(path: Path) -> None:
    rows = (b"\0" + bytes(6 * SIZE[0])) * SIZE[1]
    path.write_bytes(_png(*SIZE, depth=16, colour=2, rows=rows))


def _see_through(path: Path) -> None:
    alpha = np.full((SIZE[1], SIZE[0]), 255, dtype=np.uint8)
    alpha[:2] = 0
    Image.fromarray(np.dstack([picture(), alpha])).save(path)


def _palette_with_a_hole(path: Path) -> None:
    Image.fromarray(picture()).quantize(8).save(path, transparency=0)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (_truncate, r"cannot be decoded \(.*\); restore the file"),
    "zero bytes": (lambda path: path.write_bytes(b""), r"is no image, it is empty \(0 bytes\); restore the file"),
    "text named png": (
        lambda path: path.write_text("<html>404</html>"),
        r"is no image in a format that is read here \(BMP, .*\); restore the file, or convert it to PNG",
    ),
    "16-bit gray": (_deep_gray, r"expected one of the modes .*, got I;16; convert it to 8-bit RGB with the contrast"),
    "16-bit colour": (_deep_colour, r"expected 8 bits per channel, got 16; convert it to 8-bit RGB with the contrast"),
    "partly transparent": (
        _see_through,
        r"expected an opaque image, got 48 of 480 pixels with transparency; flatten it on the background",
    ),
    "palette with a hole": (_palette_with_a_hole, r"expected an opaque image, got \d+ of 480 pixels with transparency"),
    "EXIF-rotated": (_turn, r"EXIF orientation 6 asks viewers to turn it, .*; save it upright, without that tag"),
    "animated": (_animate, r"expected one frame, got 3; save the page you mean as a file of its own"),
    "1x1": (
        lambda path: Image.new("RGB", (1, 1)).save(path),
        r"expected at least 4x4 pixels, got 1x1; restore the image or remove it",
    ),
    "100,000x100,000": (
        lambda path: path.write_bytes(_png(100_000, 100_000, depth=8, colour=2, rows=b"")),
        r"expected at most 89478485 pixels, got 10000000000; cut it into smaller images",
    ),
    "10,000x10,000": (
        lambda path: path.write_bytes(_png(10_000, 10_000, depth=8, colour=2, rows=b"")),
        r"expected at most 89478485 pixels, got 10000x10000; cut it into smaller images",
    ),
    "a folder": (_replace_by_folder, r"expected an image file, got a folder; mend the path"),
    "a pipe": (_replace_by_pipe, r"expected an image file, got a device or a pipe; mend the path"),
    "a broken link": (
        _break_link,
        r"is a link to moved\.png, which does not exist; restore that file or mend the link",
    ),
    "a link to itself": (_link_to_itself, r"cannot be found \(.*\); restore the file or mend its name"),
    "missing": (Path.unlink, r"does not exist; restore the file or remove it from the dataset"),
    "NaN in a float TIFF": (_float_tiff, r"expected one of the modes .*, got F; convert it to 8-bit RGB"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_image_is_refused_by_name(root: Path, case: str, recwarn: pytest.WarningsRecorder) -> None:
    spoil, message = REFUSED[case]
    spoil(root / "images/b.png")
    told = refusal(root)
    assert told.startswith(f"error: {root}: 1 fault(s) to mend; nothing was written\n")
    assert re.search(rf"images/b\.png: {message}", told), told
    assert not recwarn.list  # Pillow's own doubts are no second message


def _save(path: Path, mode: str) -> None:
    Image.fromarray(picture()).convert(mode).save(path)


def _save_jpeg(path: Path, mode: str) -> None:
    Image.fromarray(picture()).convert(mode).save(path, format="JPEG")


CONVERTED: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "grayscale": (lambda path: _save(path, "L"), ("gray images, read as RGB with three equal channels",)),
    "one bit": (lambda path: _save(path, "1"), ("gray images, read as RGB with three equal channels",)),
    "palette": (lambda path: _save(path, "P"), ("images with a palette, read as RGB by its colours",)),
    "opaque RGBA": (
        lambda path: _save(path, "RGBA"),
        ("images with an alpha channel that is opaque, which is dropped",),
    ),
    "CMYK": (
        lambda path: _save_jpeg(path, "CMYK"),
        ("images in CMYK, YCbCr or HSV, read as RGB", "files in another format than their name says, read as what"),
    ),
    "wrong extension": (
        lambda path: _save_jpeg(path, "RGB"),
        ("files in another format than their name says, read as what they are",),
    ),
}


@pytest.mark.parametrize("case", CONVERTED)
def test_what_can_be_converted_is_and_said_once_per_kind(root: Path, case: str) -> None:
    spoil, phrases = CONVERTED[case]
    for name in ("b.png", "d.png"):
        spoil(root / "images" / name)
    (root / "images/d.png").write_bytes((root / "images/d.png").read_bytes() + b"\0")  # the same file twice is refused
    lines = acceptance(root).splitlines()
    assert len(lines) == len(phrases) + 1  # and the summary
    for phrase in phrases:
        (line,) = (line for line in lines if phrase in line)
        assert line.startswith(f"{root}: 2 {phrase}")
        assert line.endswith("(the first: images/b.png)")


def test_plain_images_are_not_commented_on(root: Path) -> None:
    assert acceptance(root) == "home: 4 images: train 2, val 1 (1 for selection), test 1\n"


def test_conversion_keeps_the_values(tmp_path: Path) -> None:
    _save(tmp_path / "opaque.png", "RGBA")
    np.testing.assert_array_equal(read_image(tmp_path / "opaque.png"), picture())


def test_all_bad_files_are_listed_the_first_twenty_by_name(root: Path) -> None:
    names = [f"gone{number:02}.png" for number in range(30)]
    with (root / "table.csv").open("a") as table:
        table.writelines(f"images/{name},benign,train,\n" for name in names)
    (root / "images/a.png").write_bytes(b"")
    (root / "masks/c.png").write_bytes(b"")
    lines = refusal(root).splitlines()
    assert "32 fault(s) to mend; nothing was written" in lines[0]
    assert len(lines) == 22
    assert "images/a.png: is no image" in lines[1]
    assert "masks/c.png: is no image" in lines[2]
    assert "images/gone00.png: does not exist" in lines[3]
    assert lines[-1] == "  ... and 12 more"


def test_formats_that_run_programs_are_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "drawing.png"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    with pytest.raises(PixelCAMError, match="is no image in a format that is read here"):
        read_image(path)
