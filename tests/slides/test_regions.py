"""Regions: some measured by hand, and on any mask polygons that are valid and hold the pixels that they came from."""

from collections.abc import Sequence

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.slides import regions as module
from pipeline.slides.heat import NOT_LOOKED_AT, Heat
from pipeline.slides.masks import rasterize
from pipeline.slides.regions import Region, find_regions

STRIDE = 16.0
MPP = 0.25
PIXEL_MM2 = (STRIDE * MPP) ** 2 / 1e6
SHAPES = {
    "nothing": ["....", "...."],
    "everything": ["####", "####"],
    "one pixel": ["...", ".#.", "..."],
    "one pixel in a corner": ["#..", "..."],
    "a line": [".....", ".###.", "....."],
    "a hole": ["....", "####", "#..#", "####"],
    "corners that touch": ["##...", "##...", "..##.", "..##."],
    "a hole that touches the outside": [".####", "##..#", "#...#", "#####"],
    "two holes that touch": ["######", "#.####", "##.###", "######"],
    "a ring within a ring": ["#######", "#.....#", "#.###.#", "#.#.#.#", "#.###.#", "#.....#", "#######"],
    "a chequerboard": ["#.#.#.", ".#.#.#", "#.#.#.", ".#.#.#"],
    "a comb": ["#.#.#.#", "#.#.#.#", "#######"],
}


def mask_of(rows: Sequence[str]) -> NDArray[np.bool_]:
    return np.array([[sign == "#" for sign in row] for row in rows])


def heat_of(mask: NDArray[np.bool_], *, stride: float = STRIDE) -> Heat:
    return Heat(np.where(mask, 254, 0).astype(np.uint8), stride, MPP)


def regions_of(mask: NDArray[np.bool_]) -> list[Region]:
    return find_regions(heat_of(mask), threshold=0.5, smallest_mm2=0)


def drawn(polygons: Sequence[shapely.Polygon], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return which centres of pixels lie within polygons, by shapely."""
    rows, columns = np.indices(shape)
    points = shapely.points((columns + 0.5) * STRIDE, (rows + 0.5) * STRIDE)
    within = np.zeros(shape, dtype=np.bool_)
    for polygon in polygons:
        within |= shapely.contains(polygon, points)
    return within


def check(mask: NDArray[np.bool_]) -> list[Region]:
    """Hold the regions of a mask against all that is promised of their polygons."""
    regions = regions_of(mask)
    polygons = [region.polygon for region in regions]
    assert sum(round(region.area_mm2 / PIXEL_MM2) for region in regions) == mask.sum()
    assert np.array_equal(drawn(polygons, mask.shape), mask)
    for number, polygon in enumerate(polygons):
        assert polygon.geom_type == "Polygon"
        assert polygon.is_valid
        assert polygon.exterior.is_ccw
        assert not any(hole.is_ccw for hole in polygon.interiors)
        rings = [polygon.exterior, *polygon.interiors]
        assert all(ring.is_simple and ring.is_closed and len(ring.coords) >= 4 for ring in rings)
        assert not any(a.intersects(b) for a in rings for b in rings if a is not b)
        assert not any(polygon.intersects(other) for other in polygons[number + 1 :])
    return regions


@pytest.mark.parametrize("name", SHAPES)
def test_polygons_are_valid_and_hold_the_pixels_that_they_came_from(name: str) -> None:
    mask = mask_of(SHAPES[name])
    check(mask)
    whole = shapely.union_all([region.polygon for region in regions_of(mask)])
    size = (mask.shape[1], mask.shape[0])
    assert np.array_equal(rasterize(whole, corner=(0, 0), size=size, downsample=STRIDE), mask)


MASKS = arrays(np.bool_, st.tuples(st.integers(1, 14), st.integers(1, 14)))


@settings(max_examples=300, deadline=None)
@given(MASKS)
def test_so_are_those_of_any_mask(mask: NDArray[np.bool_]) -> None:
    check(mask)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_so_are_those_of_noise(share: float) -> None:
    check(np.random.default_rng(0).random((60, 90)) < share)


def test_a_straightened_outline_covers_what_the_pixels_cover() -> None:
    rows, columns = np.mgrid[:200, :300]
    mask = (rows - 90) ** 2 / 80**2 + (columns - 150) ** 2 / 120**2 < 1
    (region,) = check(mask)
    assert len(region.polygon.exterior.coords) < 300  # the ellipse has a circumference of 640 pixels
    squares = shapely.union_all(
        shapely.box(*(np.stack([x := np.nonzero(mask)[1], y := np.nonzero(mask)[0], x + 1, y + 1]) * STRIDE))
    )
    assert region.polygon.intersection(squares).area / region.polygon.union(squares).area > 0.99


def test_where_straightening_would_cross_lines_the_outline_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = ndimage.gaussian_filter(np.random.default_rng(2).standard_normal((60, 60)), 2) > 0
    usual = [shapely.get_num_coordinates(region.polygon) for region in regions_of(mask)]
    monkeypatch.setattr(module, "TOLERANCE", 0.8)
    regions = regions_of(mask)
    assert all(region.polygon.is_valid for region in regions)
    assert any(len(region.polygon.exterior.coords) > usual[number] for number, region in enumerate(regions))


def test_a_region_is_measured() -> None:
    values = np.zeros((8, 10), dtype=np.uint8)
    values[2:4, 3:8] = 127
    values[3, 5] = values[3, 6] = 200
    values[7, 0] = 254
    first, second = find_regions(Heat(values, STRIDE, MPP), threshold=0.5, smallest_mm2=0)
    assert first.area_mm2 == pytest.approx(10 * PIXEL_MM2)
    assert first.mean == pytest.approx((8 * 127 + 2 * 200) / 10 / 254)
    assert first.maximum == 200 / 254
    assert first.peak == (5.5 * STRIDE, 3.5 * STRIDE)
    assert first.polygon.bounds == (3 * STRIDE, 2 * STRIDE, 8 * STRIDE, 4 * STRIDE)
    assert first.diameter_mm == pytest.approx(np.hypot(5, 1) * STRIDE * MPP / 1e3)  # corners are cut
    assert (second.area_mm2, second.maximum, second.peak) == (PIXEL_MM2, 1.0, (0.5 * STRIDE, 7.5 * STRIDE))
    assert second.diameter_mm == pytest.approx(STRIDE * MPP / 1e3)


def test_a_hole_is_kept_and_its_pixels_do_not_count() -> None:
    values = np.full((6, 6), 254, dtype=np.uint8)
    values[2:4, 2:4] = 100
    values[0, 0] = 150
    (region,) = find_regions(Heat(values, STRIDE, MPP), threshold=0.5, smallest_mm2=0)
    assert len(region.polygon.interiors) == 1
    assert region.area_mm2 == pytest.approx(32 * PIXEL_MM2)
    assert region.mean == pytest.approx((31 * 254 + 150) / 32 / 254)
    assert not region.polygon.contains(shapely.Point(3 * STRIDE, 3 * STRIDE))


def test_the_largest_comes_first_and_equal_ones_by_rows() -> None:
    regions = regions_of(mask_of(["..#....#", "#......#", "#.##...#", "........", "##......"]))
    assert [round(region.area_mm2 / PIXEL_MM2) for region in regions] == [3, 2, 2, 2, 1]
    assert [region.peak[1] / STRIDE - 0.5 for region in regions] == [0, 1, 2, 4, 0]


def test_pixels_that_share_a_corner_are_one_region() -> None:
    assert len(regions_of(mask_of(SHAPES["corners that touch"]))) == 1
    assert len(regions_of(mask_of(SHAPES["a chequerboard"]))) == 1


def test_regions_that_are_too_small_are_left_out_and_one_of_that_size_is_not() -> None:
    heat = heat_of(mask_of(["##..#", "##..."]))
    for pixels, found in ((1, 2), (2, 1), (4, 1), (5, 0)):
        assert len(find_regions(heat, threshold=0.5, smallest_mm2=pixels * PIXEL_MM2)) == found


@pytest.mark.parametrize("value", [0, 1, 77, 127, 253, 254])
def test_a_probability_that_equals_the_threshold_reaches_it(value: int) -> None:
    heat = Heat(np.array([[value, max(value - 1, 0)]], dtype=np.uint8), STRIDE, MPP)
    for threshold in (value / 254, float(heat.probabilities.max())):
        (region,) = find_regions(heat, threshold=threshold, smallest_mm2=0)
        assert round(region.area_mm2 / PIXEL_MM2) == (2 if value == 0 else 1)


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_what_was_not_looked_at_is_in_no_region(threshold: float) -> None:
    values = np.full((4, 4), NOT_LOOKED_AT, dtype=np.uint8)
    assert find_regions(Heat(values, STRIDE, MPP), threshold=threshold, smallest_mm2=0) == []
    values[1, 1:3] = 254
    (region,) = find_regions(Heat(values, STRIDE, MPP), threshold=threshold, smallest_mm2=0)
    assert region.area_mm2 == 2 * PIXEL_MM2


def test_thousands_of_holes_take_no_minutes() -> None:
    mask = np.ones((400, 400), dtype=np.bool_)
    mask[1::4, 1::4] = False
    (region,) = regions_of(mask)
    assert len(region.polygon.interiors) == 100**2
    assert region.polygon.is_valid
