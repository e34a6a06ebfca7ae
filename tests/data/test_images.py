"""The readers of images and masks: what becomes RGB and foreground, and which files are refused by name."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.images import read_image, read_mask
from pipeline.params.errors import PixelCAMError

RGB = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


@pytest.mark.parametrize("extension", ["png", "bmp", "tif", "ppm"])
def test_image_values_survive(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"image.{extension}"
    Image.fromarray(RGB).save(path)
    image = read_image(path)
    assert image.dtype == np.uint8
    assert image.flags.writeable
    np.testing.assert_array_equal(image, RGB)


def test_lossless_webp(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "image.webp", lossless=True)
    np.testing.assert_array_equal(read_image(tmp_path / "image.webp"), RGB)


def test_gray_and_palette_images_become_rgb(tmp_path: Path) -> None:
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([9, 8, 7, 1, 2, 3])
    palette.putpixel((1, 0), 1)
    Image.fromarray(RGB[..., 0]).save(tmp_path / "gray.png")
    palette.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_image(tmp_path / "gray.png"), np.repeat(RGB[..., :1], 3, axis=2))
    assert read_image(tmp_path / "palette.png").tolist() == [[[9, 8, 7], [1, 2, 3]]]


@pytest.mark.parametrize(
    ("array", "name"),
    [
        (np.array([[0, 1], [254, 7]], dtype=np.uint8), "mask.png"),
        (np.array([[0, 1], [254, 7]], dtype=np.uint8), "mask.bmp"),
        (np.array([[0, 255], [255, 255]], dtype=np.uint8), "mask.png"),
        (np.array([[0, 1], [256, 65534]], dtype=np.uint16), "mask.png"),  # the low byte of 256 is 0
        (np.array([[0, 1], [256, 65536]], dtype=np.int32), "mask.tif"),
        (np.array([[False, True], [True, True]]), "mask.png"),
        (np.array([[False, True], [True, True]]), "mask.bmp"),
        (np.array([[[0, 0, 0], [0, 0, 1]], [[254, 0, 0], [9, 9, 9]]], dtype=np.uint8), "mask.png"),
    ],
)
def test_any_value_but_zero_is_foreground(tmp_path: Path, array: np.ndarray, name: str) -> None:
    Image.fromarray(array).save(tmp_path / name)
    mask = read_mask(tmp_path / name)
    assert mask.dtype == np.bool_
    assert mask.tolist() == [[False, True], [True, True]]


def test_palette_masks_count_by_index_not_by_colour(tmp_path: Path) -> None:
    mask = Image.new("P", (3, 1), 0)
    mask.putpalette([200, 200, 200, 0, 0, 0, 255, 0, 0])
    mask.putpixel((1, 0), 1)
    mask.putpixel((2, 0), 2)
    mask.save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png").tolist() == [[False, True, True]]


def _truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize("read", [read_image, read_mask])
@pytest.mark.parametrize("extension", ["png", "bmp", "tif", "webp"])
def test_truncated_files_are_named(tmp_path: Path, read: Callable[[Path], object], extension: str) -> None:
    path = tmp_path / f"cut.{extension}"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(path)
    _truncate(path)
    with pytest.raises(PixelCAMError, match=rf"cut\.{extension}: (cannot be decoded|is no image)"):
        read(path)


def test_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(PixelCAMError, match=r"absent\.png: does not exist"):
        read_image(tmp_path / "absent.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(PixelCAMError, match=r"text\.png: is no image in a format that is read here .*restore"):
        read_mask(tmp_path / "text.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(PixelCAMError, match=r"empty\.png: is no image"):
        read_image(tmp_path / "empty.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(PixelCAMError, match=r"folder\.png: expected an image file, got a folder"):
        read_image(tmp_path / "folder.png")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("limit", "came"), [(20, "6x4"), (10, "24")])
def test_too_many_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, came: str) -> None:
    Image.fromarray(RGB).save(tmp_path / "large.png")  # 24 pixels: Pillow warns above 20 and refuses above twice 10
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(PixelCAMError, match=rf"large\.png: expected at most {limit} pixels, got {came}; cut it"):
        read_image(tmp_path / "large.png")


@pytest.mark.parametrize(
    "array", [np.zeros((2, 2), np.uint16), np.zeros((2, 2), np.float32), np.zeros((2, 2), np.int32)]
)
def test_modes_without_rgb_counterpart(tmp_path: Path, array: np.ndarray) -> None:
    Image.fromarray(array).save(tmp_path / "deep.tif")
    with pytest.raises(
        PixelCAMError, match=r"deep\.tif: expected one of the modes .*, got (I;16|F|I); convert it to 8-bit RGB"
    ):
        read_image(tmp_path / "deep.tif")


def test_several_frames(tmp_path: Path) -> None:
    frames = [Image.fromarray(RGB), Image.fromarray(RGB[::-1].copy())]
    frames[0].save(tmp_path / "pages.tif", save_all=True, append_images=frames[1:])
    for read in (read_image, read_mask):
        with pytest.raises(PixelCAMError, match=r"pages\.tif: expected one frame, got 2"):
            read(tmp_path / "pages.tif")


@pytest.mark.parametrize("orientation", [3, 6])  # upside down, which keeps the size, and on its side
@pytest.mark.parametrize("extension", ["jpg", "png", "tif", "webp"])
def test_exif_rotation(tmp_path: Path, extension: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RGB).save(tmp_path / f"turned.{extension}", exif=exif)
    with pytest.raises(PixelCAMError, match=rf"turned\.{extension}: EXIF orientation {orientation} .* save it upright"):
        read_image(tmp_path / f"turned.{extension}")
    exif[0x0112] = 1
    Image.fromarray(RGB).save(tmp_path / f"upright.{extension}", exif=exif)
    assert read_image(tmp_path / f"upright.{extension}").shape == (4, 6, 3)


def test_lossy_and_transparent_masks(tmp_path: Path) -> None:
    Image.fromarray(RGB[..., 0]).save(tmp_path / "mask.jpg")
    with pytest.raises(PixelCAMError, match=r"mask\.jpg: a mask must be lossless, got JPEG"):
        read_mask(tmp_path / "mask.jpg")
    Image.new("RGBA", (2, 2)).save(tmp_path / "mask.png")
    with pytest.raises(
        PixelCAMError, match=r"mask\.png: expected one of the modes .*, got RGBA; save it with one channel"
    ):
        read_mask(tmp_path / "mask.png")
