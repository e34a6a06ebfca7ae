"""The overview: where its colours and lines lie, and that it is drawn at any size."""

from pathlib import Path

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray
from PIL import Image

from pipeline.slides.heat import NOT_LOOKED_AT, Heat
from pipeline.slides.overview import (
    ANNOTATION_COLOUR,
    PAPER,
    REGION_COLOUR,
    TISSUE_COLOUR,
    draw_overview,
    write_overview,
)
from pipeline.slides.regions import Region, find_regions

Picture = NDArray[np.uint8]
GLASS = 243
CERTAIN_ON_GLASS = [247, 231, 88]  # of 253, 231, 37: 0.75 * 253 * (0.6 + 0.4 * 243 / 255) + 0.25 * 243, ...
NOTHING_ON_GLASS = [111, 62, 123]  # of 68, 1, 84
STRIDE, MPP = 16.0, 0.5  # 8 micrometres for a heat pixel, on a slide of 6,400 x 4,800 pixels


def made() -> tuple[Heat, NDArray[np.bool_]]:
    """Return a heatmap (300, 400), in whose left half there is tissue and in it a square that is certain."""
    values = np.full((300, 400), NOT_LOOKED_AT, dtype=np.uint8)
    values[40:260, 20:200] = 0
    values[100:140, 60:100] = 254
    heat = Heat(values, STRIDE, MPP)
    return heat, heat.seen


def thumbnail(heat: Heat, *, mpp: float) -> Picture:
    height, width = (round(side * heat.pixel_size / mpp) for side in heat.values.shape)
    return np.full((height, width, 3), GLASS, dtype=np.uint8)


def draw(mpp: float, *, tissue: bool = False, regions: bool = False, annotation: bool = False) -> Picture:
    heat, seen = made()
    return draw_overview(
        thumbnail(heat, mpp=mpp),
        heat,
        thumbnail_mpp=mpp,
        tissue=seen if tissue else None,
        regions=find_regions(heat, threshold=0.5, smallest_mm2=0) if regions else [],
        annotation=shapely.box(2000, 2400, 2800, 3200) if annotation else None,
    )


def places(picture: Picture, colour: tuple[int, int, int]) -> NDArray[np.int64]:
    """Return the rows and columns, (n, 2), where a picture has a colour or nearly."""
    return np.argwhere(np.abs(picture.astype(int) - colour).max(axis=2) <= 8)


@pytest.mark.parametrize("mpp", [3.2, 6.0, 8.0, 16.0, 35.0])
def test_heat_lies_where_the_slide_lies(mpp: float) -> None:
    picture = draw(mpp)
    assert picture.shape == (round(2400 / mpp), round(3200 / mpp), 3)
    assert picture.dtype == np.uint8
    for (y, x), expected in {
        (960, 640): CERTAIN_ON_GLASS,
        (600, 640): NOTHING_ON_GLASS,
        (1900, 1500): NOTHING_ON_GLASS,
        (600, 1700): [GLASS] * 3,
        (100, 640): [GLASS] * 3,
    }.items():
        assert picture[int(y / mpp), int(x / mpp)].tolist() == pytest.approx(expected, abs=1)


def test_no_colour_comes_from_where_nothing_was_looked_at() -> None:
    values = np.full((64, 64), NOT_LOOKED_AT, dtype=np.uint8)
    values[:, :24] = 254
    heat = Heat(values, STRIDE, MPP)
    for mpp in (8.0, 20.0, 32.0):
        ground = thumbnail(heat, mpp=mpp)
        picture = draw_overview(ground, heat, thumbnail_mpp=mpp, tissue=None, regions=[], annotation=None)
        coloured = np.ptp(picture, axis=2) > 0
        assert np.abs(picture[coloured].astype(int) - CERTAIN_ON_GLASS).max() <= 1
        assert coloured.mean() == pytest.approx(24 / 64, abs=0.05)


def test_outlines_lie_where_they_belong() -> None:
    picture = draw(3.2, tissue=True, regions=True, annotation=True)
    for colour, bounds in {
        TISSUE_COLOUR: (160, 320, 1600, 2080),
        REGION_COLOUR: (480, 800, 800, 1120),
        ANNOTATION_COLOUR: (1000, 1200, 1400, 1600),
    }.items():
        found = places(picture, colour) * 3.2  # micrometres
        left, top, right, bottom = bounds
        near = (found[:, 0] > top - 16) & (found[:, 0] < bottom + 16) & (found[:, 1] > left - 16)
        found = found[near & (found[:, 1] < right + 16)]
        low, high = found.min(axis=0), found.max(axis=0)
        assert [low[1], low[0], high[1], high[0]] == pytest.approx([left, top, right, bottom], abs=8)
        inner = (found[:, 0] > top + 16) & (found[:, 0] < bottom - 16) & (found[:, 1] > left + 16)
        assert not (inner & (found[:, 1] < right - 16)).any(), "lines, not areas"


def test_the_scale_bar_is_as_long_as_it_says() -> None:
    picture = draw(3.2)
    dark = (picture.astype(int).max(axis=2) < 60) & (np.ptp(picture, axis=2) < 8)
    longest = max(np.diff(np.flatnonzero(np.diff(np.pad(row, 1).astype(int)))[:2]).sum() for row in dark if row.any())
    assert longest * 3.2 == pytest.approx(500, abs=3.3)  # a fifth of the width is 640 micrometres


def test_legend_and_scale_hide_no_tissue_where_there_is_room() -> None:
    paper = places(draw(3.2, tissue=True, regions=True), PAPER)
    assert len(paper) > 5000
    assert paper[:, 1].min() * 3.2 > 1600  # the right half is glass


def test_a_small_picture_goes_without_a_legend() -> None:
    picture = draw(35.0, tissue=True, regions=True, annotation=True)
    assert picture.shape == (69, 91, 3)
    assert len(places(picture[:, 50:], PAPER)) == 0


@pytest.mark.parametrize("scale", [0.5, 1, 3])
def test_tissue_may_have_any_size(scale: float) -> None:
    heat, seen = made()
    size = (round(400 * scale), round(300 * scale))
    tissue = np.asarray(Image.fromarray(seen).resize(size, Image.Resampling.NEAREST))
    ground = thumbnail(heat, mpp=3.2)
    picture = draw_overview(ground, heat, thumbnail_mpp=3.2, tissue=tissue, regions=[], annotation=None)
    lines = places(picture, TISSUE_COLOUR)
    assert lines.min(axis=0) * 3.2 == pytest.approx([320, 160], abs=10)


def test_an_empty_annotation_and_a_slide_without_tissue_are_drawn() -> None:
    heat = Heat(np.full((300, 400), NOT_LOOKED_AT, dtype=np.uint8), STRIDE, MPP)
    ground = thumbnail(heat, mpp=8.0)
    regions: list[Region] = []
    empty = shapely.MultiPolygon()
    nowhere = np.zeros((30, 40), dtype=np.bool_)
    picture = draw_overview(ground, heat, thumbnail_mpp=8.0, tissue=nowhere, regions=regions, annotation=empty)
    assert (picture[:100] == GLASS).all()


def test_what_is_given_is_not_written_into() -> None:
    heat, seen = made()
    ground = thumbnail(heat, mpp=8.0)
    # Writing into these raises.
    ground.flags.writeable = heat.values.flags.writeable = seen.flags.writeable = False
    draw_overview(ground, heat, thumbnail_mpp=8.0, tissue=seen, regions=[], annotation=None)


def test_the_same_picture_makes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_overview(tmp_path / f"{name}.png", draw(8.0, tissue=True, regions=True, annotation=True))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(np.asarray(image), draw(8.0, tissue=True, regions=True, annotation=True))
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "b.png"}
