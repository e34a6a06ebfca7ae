"""Masks that do not fit their image or mean something else: what prepare refuses, cuts, and warns of."""

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from rubbish import SIZE, acceptance, refusal, region, write_good

from pipeline.data.images import Remark, decode_mask, foreground_of, looks_inverted, read_mask
from pipeline.params.errors import PixelCAMError

UInt8Array = npt.NDArray[np.uint8]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_good(tmp_path)


def _gradient() -> UInt8Array:
    """Return a map of probabilities as a picture: 1, 2, 3, ... to 255, no two neighbours alike."""
    return np.linspace(1, 255, SIZE[0] * SIZE[1]).reshape(SIZE[1], SIZE[0]).round().astype(np.uint8)


def _trimap(value: int) -> UInt8Array:
    mask = region()
    mask[4:16, 6:13] = value  # as wide as no edge is
    return mask


REFUSED: dict[str, tuple[npt.NDArray[np.uint8] | npt.NDArray[np.float32], str]] = {
    "another size": (
        region()[:-1],
        r"expected 24x20 pixels like images/b\.png, got 24x19; export the mask at the image",
    ),
    "turned": (region().T.copy(), r"expected 24x20 pixels like images/b\.png, got 20x24; export the mask at the image"),
    "three-valued": (_trimap(128), r"expected one value beside 0 or instance ids, got areas of 2 values \(128, 255\)"),
    "255 for ignore": (
        _trimap(1),
        r".* got areas of 2 values \(1, 255\), .*; save it with 0 for background",
    ),
    "probabilities": (_gradient(), r".* got areas of 255 values \(1, 2, 3, 4, 5, \.\.\.\), of which any could be"),
    "empty in a class with regions": (
        np.zeros_like(region()),
        r"is empty, but images/b\.png is of class 'malignant', which has a region of interest; mend mask or label, "
        r"list no mask where none is known, or name the class as background_class",
    ),
    "NaN in a float TIFF": (
        np.full((SIZE[1], SIZE[0]), np.nan, dtype=np.float32),
        r"expected one of the modes .*, got F; save it with one channel, 0 for background",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_masks_that_do_not_fit_or_could_mean_anything_are_refused(root: Path, case: str) -> None:
    mask, message = REFUSED[case]
    path = root / "masks/b.png"
    Image.fromarray(mask).save(path, format="TIFF" if mask.dtype == np.float32 else "PNG")
    told = refusal(root)
    assert "1 fault(s) to mend; nothing was written" in told
    assert re.search(rf"masks/b\.png: {message}", told), told


def test_lossy_masks_are_refused_whatever_their_name(root: Path) -> None:
    Image.fromarray(region()).save(root / "masks/b.png", format="JPEG")
    assert "masks/b.png: a mask must be lossless, got JPEG; export it again as PNG" in refusal(root)


def test_an_empty_mask_is_right_in_the_background_class_and_foreground_is_wrong(root: Path) -> None:
    for name in ("a.png", "c.png"):
        Image.new("1", SIZE).save(root / "masks" / name)
    background = {"domains.home.background_class": "benign"}
    assert acceptance(root, background).startswith("home: 4 images")
    Image.fromarray(region()).save(root / "masks/a.png")
    message = "a.png: marks 144 pixels, but images/a.png is of the background class 'benign'; mend the label or set"
    (root.parent / "prepared/home/manifest.csv").unlink()
    (root.parent / "prepared/home/classes.json").unlink()
    (root.parent / "prepared/home").rmdir()
    assert message in refusal(root, background)


def _soft(mask: UInt8Array) -> UInt8Array:
    """Return a mask with edges as drawing programs smooth them."""
    large = Image.fromarray(mask).resize((SIZE[0] * 4, SIZE[1] * 4), Image.Resampling.BILINEAR)
    return np.array(large.resize(SIZE, Image.Resampling.BICUBIC))


def test_soft_edges_are_cut_at_half_of_white_and_said(root: Path) -> None:
    soft = _soft(region())
    assert len(np.unique(soft)) > 3
    Image.fromarray(soft).save(root / "masks/b.png")
    told = acceptance(root)
    assert f"{root}: 1 masks with soft edges: foreground is what is above half of white (127 of 255)" in told
    assert "(the first: masks/b.png)" in told
    np.testing.assert_array_equal(read_mask(root / "masks/b.png"), soft > 127)
    np.testing.assert_array_equal(read_mask(root / "masks/b.png"), region() > 0)


def test_instance_ids_are_foreground_and_said(root: Path) -> None:
    ids = (np.arange(SIZE[0] * SIZE[1]).reshape(SIZE[1], SIZE[0]) // 60).astype(np.uint8)  # 0 to 7
    Image.fromarray(ids).save(root / "masks/b.png")
    told = acceptance(root)
    assert f"{root}: 1 masks with several values, such as instance ids: every value but 0 is foreground" in told
    np.testing.assert_array_equal(read_mask(root / "masks/b.png"), ids > 0)


def test_a_mask_that_looks_inverted_is_warned_of(root: Path) -> None:
    Image.fromarray(255 - region()).save(root / "masks/b.png")
    told = acceptance(root)
    assert f"warning: {root}: 1 masks that look inverted" in told
    assert "0 must be background (the first: masks/b.png)" in told


@pytest.mark.parametrize(
    ("values", "inverted"),
    [
        ([[1, 1, 1], [1, 0, 1], [1, 1, 1]], True),
        ([[1, 1, 1], [1, 1, 1], [1, 1, 1]], False),  # nothing but tumour, as some tiles are
        ([[1, 1, 1], [1, 0, 1], [1, 1, 0]], False),
        ([[0, 0, 0], [0, 1, 0], [0, 0, 0]], False),
        ([[1]], False),
    ],
)
def test_what_looks_inverted(values: list[list[int]], inverted: bool) -> None:
    assert looks_inverted(np.array(values, dtype=bool)) is inverted


def test_many_ids_up_to_255_are_ids() -> None:
    blocks = np.kron(np.arange(256).reshape(16, 16), np.ones((9, 9))).astype(np.uint8)
    foreground, remark = foreground_of(blocks, name="mask")
    np.testing.assert_array_equal(foreground, blocks > 0)
    assert remark is Remark.SEVERAL_VALUES


@pytest.mark.parametrize("width", [1, 6, 7])
def test_gray_is_an_edge_as_long_as_it_is_narrow(width: int) -> None:
    values = np.zeros((30, 40), dtype=np.uint8)
    values[5:25, 5:20] = 255
    values[5:25, 20 : 20 + width] = 90
    if width > 6:
        with pytest.raises(PixelCAMError, match=r"mask: .* got areas of 2 values \(90, 255\)"):
            foreground_of(values, name="mask")
    else:
        foreground, remark = foreground_of(values, name="mask")
        assert remark is Remark.SOFT_EDGES
        assert int(foreground.sum()) == 20 * 15


def test_white_of_16_bits_is_65535(tmp_path: Path) -> None:
    values = region().astype(np.uint16) * 257
    values[4, 6:18] = 20_000
    Image.fromarray(values).save(tmp_path / "mask.png")
    decoded = decode_mask(tmp_path / "mask.png")
    assert decoded.remarks == (Remark.SOFT_EDGES,)
    np.testing.assert_array_equal(decoded.foreground, values == 65535)


def test_colours_count_by_their_brightest_channel(tmp_path: Path) -> None:
    colours = np.zeros((9, 9, 3), dtype=np.uint8)
    colours[2:5] = (255, 0, 0)
    colours[5:7] = (0, 0, 255)
    Image.fromarray(colours).save(tmp_path / "mask.png")
    decoded = decode_mask(tmp_path / "mask.png")
    assert decoded.remarks == ()
    assert decoded.foreground.any(axis=1).tolist() == [False] * 2 + [True] * 5 + [False] * 2
