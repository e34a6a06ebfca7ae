"""Slides as files: what OpenSlide and tifffile read of them, bytes and memory; and annotations as ASAP has them."""

import weakref
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.params.errors import PixelCAMError
from pipeline.synthetic.slide_files import STRIP, UInt8Image, write_annotation, write_slide

LIGHT = np.array([0.299, 0.587, 0.114])  # which JPEG keeps at full resolution, colours at half of it


def picture(height: int, width: int) -> UInt8Image:
    """Return something smooth that differs from place to place."""
    noise = np.random.default_rng(0).standard_normal((height, width, 3))
    smooth = ndimage.gaussian_filter(noise, (25.0, 25.0, 0.0))
    return np.asarray(np.clip(128 + 30 * smooth / smooth.std(), 0, 255), dtype=np.uint8)


def cut(image: UInt8Image) -> Iterator[UInt8Image]:
    for start in range(0, len(image), STRIP):
        yield image[start : start + STRIP].copy()


def written(path: Path, image: UInt8Image) -> Path:
    write_slide(path, cut(image), width=image.shape[1], height=len(image), mpp=0.5)
    return path


def box_averaged(image: UInt8Image, factor: int) -> NDArray[np.float64]:
    height, width = (length // factor for length in image.shape[:2])
    whole = image[: height * factor, : width * factor].astype(np.float64)
    return np.asarray(whole.reshape(height, factor, width, factor, 3).mean(axis=(1, 3)), dtype=np.float64)


@pytest.mark.parametrize(("height", "width"), [(1024, 1024), (1100, 700), (300, 520)])
def test_openslide_and_tifffile_read_every_level(tmp_path: Path, height: int, width: int) -> None:
    image = picture(height, width)
    path = written(tmp_path / "slide.tif", image)
    with openslide.OpenSlide(str(path)) as slide, tifffile.TiffFile(path) as tiff:
        assert slide.properties["openslide.vendor"] == "generic-tiff"
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5)
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(0.5)
        assert slide.level_dimensions == tuple((width // factor, height // factor) for factor in (1, 4, 16))
        assert slide.level_downsamples == pytest.approx((1, 4, 16), rel=0.03)
        assert tiff.is_bigtiff
        for level, factor in enumerate((1, 4, 16)):
            wanted = box_averaged(image, factor)
            read = np.asarray(slide.read_region((0, 0), level, slide.level_dimensions[level]))[..., :3]
            assert np.abs((read - wanted) @ LIGHT).mean() < 1.5
            assert np.abs(read - wanted).mean() < 8
            page = tiff.pages[level]
            assert isinstance(page, tifffile.TiffPage)
            assert np.abs((page.asarray() - wanted) @ LIGHT).mean() < 1.5
            assert page.is_tiled
            assert page.is_reduced == (level > 0)
            assert page.get_resolution("micrometer") == pytest.approx((1 / (0.5 * factor),) * 2)
            assert {"DateTime", "Software", "ImageDescription"}.isdisjoint(tag.name for tag in page.tags)


def test_a_slide_of_one_colour_has_it_at_every_level_up_to_the_edges(tmp_path: Path) -> None:
    path = written(tmp_path / "slide.tif", np.full((700, 530, 3), (200, 100, 150), dtype=np.uint8))
    with tifffile.TiffFile(path) as tiff:
        for page in tiff.pages:
            assert np.abs(page.asarray().astype(int) - (200, 100, 150)).max() <= 3


def test_same_pixels_give_the_same_bytes(tmp_path: Path) -> None:
    image = picture(600, 600)
    first, second = (written(tmp_path / name, image).read_bytes() for name in ("a.tif", "b.tif"))
    assert first == second


def test_no_more_than_the_strip_at_hand_and_the_next_are_held(tmp_path: Path) -> None:
    alive: list[weakref.ref[UInt8Image]] = []
    most = 0

    def strips() -> Iterator[UInt8Image]:
        nonlocal most
        for _ in range(8):
            strip = np.zeros((STRIP, 512, 3), dtype=np.uint8)
            alive.append(weakref.ref(strip))
            most = max(most, sum(reference() is not None for reference in alive))
            yield strip

    write_slide(tmp_path / "slide.tif", strips(), width=512, height=8 * STRIP, mpp=0.5)
    assert len(alive) == 8
    assert most <= 2


@pytest.mark.parametrize(
    ("strips", "said"),
    [
        ([np.zeros((STRIP, 300, 3), np.uint8)] * 2, "from row 0"),
        ([np.zeros((STRIP, 256, 3), np.uint8), np.zeros((10, 256, 3), np.uint8)], "from row 512"),
        ([np.zeros((STRIP, 256, 3), np.uint8)], "end at row 512 of 1024"),
    ],
)
def test_strips_that_do_not_make_the_slide_are_refused(tmp_path: Path, strips: list[UInt8Image], said: str) -> None:
    with pytest.raises(PixelCAMError, match=said):
        write_slide(tmp_path / "slide.tif", strips, width=256, height=2 * STRIP, mpp=0.5)
    assert list(tmp_path.iterdir()) == []


def test_annotation_is_as_asap_has_it(tmp_path: Path) -> None:
    square = np.array([[10.0, 20.0], [110.0, 20.0], [110.0, 120.456], [10.0, 120.0]])
    write_annotation(tmp_path / "slide.xml", lesions=[square, square + 500], holes=[0.5 * square + 30])
    root = ET.parse(tmp_path / "slide.xml").getroot()
    assert root.tag == "ASAP_Annotations"
    assert [child.tag for child in root] == ["Annotations", "AnnotationGroups"]
    annotations = root.findall("Annotations/Annotation")
    assert [annotation.get("Name") for annotation in annotations] == [f"Annotation {number}" for number in range(3)]
    assert [annotation.get("PartOfGroup") for annotation in annotations] == ["_0", "_0", "_2"]
    assert {annotation.get("Type") for annotation in annotations} == {"Polygon"}
    corners = annotations[0].findall("Coordinates/Coordinate")
    assert [corner.get("Order") for corner in corners] == ["0", "1", "2", "3"]
    assert (corners[2].get("X"), corners[2].get("Y")) == ("110.00", "120.46")
    groups = root.findall("AnnotationGroups/Group")
    assert [(group.get("Name"), group.get("PartOfGroup")) for group in groups] == [("_0", "None"), ("_2", "None")]


def test_annotation_of_nothing_has_no_polygon(tmp_path: Path) -> None:
    write_annotation(tmp_path / "slide.xml", lesions=[], holes=[])
    assert ET.parse(tmp_path / "slide.xml").getroot().findall("Annotations/Annotation") == []
