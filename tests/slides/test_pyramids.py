"""Heatmaps for viewers: what OME's own reader and model, tifffile and OpenSlide find in them, and what is read back."""

import shutil
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import ome_zarr_models
import openslide
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from ome_zarr.io import parse_url
from ome_zarr.reader import Node, Reader
from tiny import digests

from pipeline.params.errors import PixelCAMError
from pipeline.slides.heat import NOT_LOOKED_AT, Heat
from pipeline.slides.pyramids import halve, read_ome_zarr, write_ome_tiff, write_ome_zarr
from pipeline.slides.reading import Slide

STRIDE = 16.5
MPP = 0.2427
SHAPE = (1501, 1203)
SHAPES = [(1501, 1203), (751, 602), (376, 301)]
ABOUT = {"slide": "a.svs", "mpp": 0.5, "scores": {"maximum": 0.75, "regions": 3}}


def noise(shape: tuple[int, int] = SHAPE) -> Heat:
    """Return a heatmap that holds every value."""
    return Heat(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), STRIDE, MPP)


def on_black(heat: Heat) -> NDArray[np.uint8]:
    return np.where(heat.seen, heat.values, 0).astype(np.uint8)


def half_on_black() -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return what level 1 of `noise` shows, and where there is tissue, by the mean of two by two."""
    even = np.pad(noise().values, ((0, 1), (0, 1)), constant_values=NOT_LOOKED_AT)
    mean = np.ma.masked_equal(even.reshape(751, 2, 602, 2), NOT_LOOKED_AT).mean(axis=(1, 3))
    return np.floor(mean + 0.5).filled(0).astype(np.uint8), ~np.ma.getmaskarray(mean)


def nodes_of(path: Path) -> list[Node]:
    location = parse_url(str(path))
    assert location is not None
    return [node for node in Reader(location)() if node.data]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pyramids")
    write_ome_zarr(folder / "a.ome.zarr", noise(), name="a", attributes=ABOUT)
    write_ome_tiff(folder / "a.ome.tiff", noise(), name="a")
    return folder


def test_half_a_heatmap_is_the_mean_of_what_was_looked_at() -> None:
    unseen = NOT_LOOKED_AT
    values = [[0, 254, 10, unseen, 7], [1, 0, unseen, unseen, 8], [unseen, unseen, 254, 254, unseen]]
    expected = [[64, 10, 8], [unseen, 254, unseen]]  # 63.75, 10, 7.5
    assert halve(np.array(values, dtype=np.uint8)).tolist() == expected


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (64, 3), (513, 2), SHAPE])
def test_ome_zarr_is_read_back_as_it_was(tmp_path: Path, shape: tuple[int, int]) -> None:
    heat = noise(shape)
    write_ome_zarr(tmp_path / "a.ome.zarr", heat, name="a", attributes=ABOUT)
    read = read_ome_zarr(tmp_path / "a.ome.zarr")
    assert np.array_equal(read.values, heat.values)
    assert read.values.dtype == np.uint8
    assert (read.stride, read.mpp) == (STRIDE, MPP)


def test_the_reader_of_ome_zarr_finds_heatmap_and_tissue(written: Path) -> None:
    image, tissue = nodes_of(written / "a.ome.zarr")
    assert [level.shape for level in image.data] == [level.shape for level in tissue.data] == SHAPES
    assert np.array_equal(np.asarray(image.data[0]), on_black(noise()))
    assert np.array_equal(np.asarray(tissue.data[0]), noise().seen)
    half, half_seen = half_on_black()
    assert np.array_equal(np.asarray(image.data[1]), half)
    assert np.array_equal(np.asarray(tissue.data[1]), half_seen)
    assert image.metadata["name"] == "a"
    assert image.metadata["contrast_limits"] == [[0, 254]]
    assert image.metadata["channel_names"] == ["probability"]
    assert [axis["unit"] for axis in image.metadata["axes"]] == ["micrometer", "micrometer"]
    assert tissue.metadata["name"] == "tissue"
    assert tissue.metadata["properties"] == {0: {"name": "glass"}, 1: {"name": "tissue"}}
    assert tissue.metadata["color"][0][3] == 0


def test_the_levels_of_ome_zarr_lie_where_the_slide_lies(written: Path) -> None:
    nodes = nodes_of(written / "a.ome.zarr")
    # Strides of 16.5, 33 and 66 pixels. From the slide's corner the centre of its first pixel is half a pixel away, a
    # level's half a stride: 7.75, 16 and 32.5 pixels lie between.
    scales, translations = [4.00455, 8.0091, 16.0182], [1.880925, 3.8832, 7.88775]
    for node in nodes:
        levels = node.metadata["coordinateTransformations"]
        assert [[step["type"] for step in level] for level in levels] == [["scale", "translation"]] * 3
        assert [scale["scale"] for scale, _ in levels] == [pytest.approx([each] * 2) for each in scales]
        assert [shift["translation"] for _, shift in levels] == [pytest.approx([each] * 2) for each in translations]


def test_the_metadata_of_ome_zarr_is_that_of_the_specification(written: Path) -> None:
    for place in (".", "labels/tissue"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = ome_zarr_models.open_ome_zarr(zarr.open_group(written / "a.ome.zarr" / place, mode="r"))
        assert found.ome_zarr_version == "0.5"
    about: Any = dict(zarr.open_group(written / "a.ome.zarr", mode="r").attrs)["pixelcam"]
    assert about == {**ABOUT, "heat": {"stride": STRIDE, "mpp": MPP, "certain": 254}}


def test_tifffile_finds_levels_and_sizes(written: Path) -> None:
    with tifffile.TiffFile(written / "a.ome.tiff") as file:
        assert file.is_ome
        assert not file.is_bigtiff
        (series,) = file.series
        assert series.axes == "YX"
        assert [level.shape for level in series.levels] == SHAPES
        assert np.array_equal(series.levels[0].asarray(), on_black(noise()))
        assert np.array_equal(series.levels[1].asarray(), half_on_black()[0])
        for level in series.levels:
            page: Any = level.pages[0]
            assert page.is_tiled
            assert page.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        described: Any = tifffile.xml2dict(file.ome_metadata or "")
    pixels = described["OME"]["Image"]["Pixels"]
    assert [pixels[f"PhysicalSize{axis}"] for axis in "XY"] == pytest.approx([STRIDE * MPP] * 2)
    assert [pixels[f"PhysicalSize{axis}Unit"] for axis in "XY"] == ["µm", "µm"]
    assert pixels["Type"] == "uint8"


def test_openslide_opens_its_largest_level(written: Path) -> None:
    with openslide.OpenSlide(written / "a.ome.tiff") as file:
        assert file.dimensions == SHAPE[::-1]
        region = np.asarray(file.read_region((0, 0), 0, SHAPE[::-1]))
    assert np.array_equal(region[..., 0], on_black(noise()))
    with Slide(written / "a.ome.tiff") as slide:
        assert slide.mpp == pytest.approx(STRIDE * MPP)


def test_a_name_may_hold_anything(tmp_path: Path) -> None:
    name = 'a <b> & "c" µ'
    write_ome_tiff(tmp_path / "a.ome.tiff", noise((20, 30)), name=name)
    with tifffile.TiffFile(tmp_path / "a.ome.tiff") as file:
        described: Any = tifffile.xml2dict(file.ome_metadata or "")
        assert file.series[0].shape == (20, 30)
    assert described["OME"]["Image"]["Name"] == name
    write_ome_zarr(tmp_path / "a.ome.zarr", noise((20, 30)), name=name, attributes={})
    assert nodes_of(tmp_path / "a.ome.zarr")[0].metadata["name"] == name


def test_the_same_heatmap_makes_the_same_bytes(written: Path, tmp_path: Path) -> None:
    time.sleep(1.1)  # a time of day would differ
    write_ome_zarr(tmp_path / "a.ome.zarr", noise(), name="a", attributes=ABOUT)
    write_ome_tiff(tmp_path / "a.ome.tiff", noise(), name="a")
    assert digests(tmp_path) == digests(written)


def test_another_heatmap_takes_its_place(tmp_path: Path) -> None:
    for heat in (noise(), noise((20, 30))):
        write_ome_zarr(tmp_path / "a.ome.zarr", heat, name="a", attributes={})
        write_ome_tiff(tmp_path / "a.ome.tiff", heat, name="a")
    assert read_ome_zarr(tmp_path / "a.ome.zarr").values.shape == (20, 30)
    assert not (tmp_path / "a.ome.zarr/1").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"a.ome.zarr", "a.ome.tiff"}


def test_a_missing_heatmap_is_said(tmp_path: Path) -> None:
    with pytest.raises(PixelCAMError, match=r"there is no such heatmap"):
        read_ome_zarr(tmp_path / "a.ome.zarr")


@pytest.mark.parametrize("part", ["zarr.json", "0/zarr.json", "labels/tissue/0/zarr.json"])
def test_a_heatmap_without_a_part_is_said(written: Path, tmp_path: Path, part: str) -> None:
    path = tmp_path / "a.ome.zarr"
    shutil.copytree(written / "a.ome.zarr", path)
    (path / part).unlink()
    with pytest.raises(PixelCAMError, match=r"a\.ome\.zarr: is no heatmap that can be read .*; map the slide again"):
        read_ome_zarr(path)


def test_a_damaged_heatmap_is_said(written: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.ome.zarr"
    shutil.copytree(written / "a.ome.zarr", path)
    chunk = path / "0/c/0/0"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(PixelCAMError, match=r"is no heatmap that can be read"):
        read_ome_zarr(path)


def test_another_ome_zarr_is_said(written: Path) -> None:
    with pytest.raises(PixelCAMError, match=r"is no heatmap that can be read"):
        read_ome_zarr(written / "a.ome.zarr/labels/tissue")


def test_a_heatmap_whose_tissue_has_another_size_is_said(written: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.ome.zarr"
    shutil.copytree(written / "a.ome.zarr", path)
    shutil.rmtree(path / "labels/tissue/0")
    (path / "labels/tissue/1").rename(path / "labels/tissue/0")
    with pytest.raises(PixelCAMError, match=r"in one size, got uint8 \(1501, 1203\) and \(751, 602\)"):
        read_ome_zarr(path)
