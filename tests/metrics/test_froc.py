"""FROC by hand: what is a lesion, what a hit, and what the curve and its score are; ties and missing parts too."""

import math

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.draw import polygon2mask
from skimage.measure import regionprops

from pipeline.metrics.froc import (
    RATES,
    Froc,
    SlideDetections,
    _major_axis,
    froc,
    group_lesions,
    match_detections,
)

MPP = 0.5
MISSED = -np.inf


def um(*values: float) -> tuple[float, ...]:
    """Return micrometres as pixels of level 0."""
    return tuple(value / MPP for value in values)


def disc(x: float, y: float, diameter: float) -> shapely.Polygon:
    """Return a disc, all in micrometres."""
    (x, y, radius) = um(x, y, diameter / 2)
    return shapely.Point(x, y).buffer(radius, quad_segs=64)


def box(left: float, top: float, right: float, bottom: float) -> shapely.Polygon:
    return shapely.box(*um(left, top, right, bottom))


def points(*pairs: tuple[float, float]) -> NDArray[np.float64]:
    return np.array(pairs, dtype=np.float64).reshape(-1, 2) / MPP


def tumour(lesions: list[float], false: tuple[float, ...] = (), isolated: int = 0) -> SlideDetections:
    return SlideDetections(
        lesion_scores=np.array(lesions, dtype=np.float64),
        false_scores=np.array(false, dtype=np.float64),
        normal=False,
        isolated=isolated,
    )


def normal(*false: float) -> SlideDetections:
    return SlideDetections(
        lesion_scores=np.zeros(0), false_scores=np.array(false, dtype=np.float64), normal=True, isolated=0
    )


def curve(found: Froc) -> list[tuple[float, float]]:
    return list(zip(found.false_positives.tolist(), found.sensitivity.tolist(), strict=True))


@pytest.mark.parametrize(("gap", "lesions"), [(60, 1), (74, 1), (76, 2), (300, 2)])
def test_what_lies_closer_than_75_micrometres_is_one_lesion(gap: float, lesions: int) -> None:
    annotation = shapely.union_all([box(0, 0, 500, 500), box(500 + gap, 0, 1000 + gap, 500)])
    assert len(group_lesions(annotation, mpp=MPP)) == lesions


def test_lesions_join_in_a_chain() -> None:
    chain = shapely.union_all([disc(150 * index, 0, 100) for index in range(5)])
    (lesion,) = group_lesions(chain, mpp=MPP)
    assert not lesion.is_itc, "single cells in a row of 700 micrometres are a metastasis"


@pytest.mark.parametrize(("diameter", "is_itc"), [(20, True), (195, True), (205, False), (1000, False)])
def test_a_short_lesion_is_of_isolated_tumour_cells(diameter: float, is_itc: bool) -> None:
    (lesion,) = group_lesions(disc(5000, 9000, diameter), mpp=MPP)
    assert lesion.is_itc == is_itc


@pytest.mark.parametrize(("length", "axis", "is_itc"), [(176, 274.3, True), (177, 275.4, False)])
def test_the_axis_of_the_widened_lesion_is_held_against_275_micrometres(
    length: float, axis: float, is_itc: bool
) -> None:
    (lesion,) = group_lesions(box(0, 0, length, 5), mpp=MPP)
    assert _major_axis(lesion.area) * MPP == pytest.approx(axis, abs=0.1)
    assert lesion.is_itc == is_itc


def test_the_longest_diameter_decides_and_not_the_area() -> None:
    (thread,) = group_lesions(shapely.affinity.rotate(box(0, 0, 300, 5), 30), mpp=MPP)
    assert not thread.is_itc
    (clump,) = group_lesions(box(0, 0, 100, 100), mpp=MPP)
    assert clump.is_itc


def test_resolution_matters_to_what_is_a_lesion() -> None:
    area = shapely.Point(0, 0).buffer(300)  # 600 pixels
    assert not group_lesions(area, mpp=0.5)[0].is_itc
    assert group_lesions(area, mpp=0.25)[0].is_itc


def test_the_major_axis_is_that_of_an_ellipse_with_the_same_moments() -> None:
    corners = np.array([(40, 30), (300, 60), (340, 160), (180, 120), (90, 260)], dtype=np.float64)
    mask = polygon2mask((400, 400), corners)  # type: ignore[no-untyped-call]
    (properties,) = regionprops(mask.astype(np.uint8))  # type: ignore[no-untyped-call]
    assert _major_axis(shapely.Polygon(corners + 50_000)) == pytest.approx(properties.axis_major_length, rel=0.01)
    disc_of_10 = shapely.Point(70_000, 20_000).buffer(5, quad_segs=256)
    assert _major_axis(disc_of_10) == pytest.approx(10, rel=1e-4)
    assert _major_axis(disc_of_10.reverse()) == pytest.approx(10, rel=1e-4), "whichever way round it is drawn"


@pytest.mark.parametrize("nothing", [shapely.MultiPolygon(), shapely.Polygon(), shapely.GeometryCollection()])
def test_no_annotation_is_no_lesion(nothing: shapely.Geometry) -> None:
    assert group_lesions(nothing, mpp=MPP) == ()


def test_holes_are_filled_and_what_lies_in_them_belongs_to_the_lesion() -> None:
    ring = disc(0, 0, 1000).difference(disc(0, 0, 800))
    (lesion,) = group_lesions(shapely.union_all([ring, disc(0, 0, 100)]), mpp=MPP)
    found = match_detections(points((150, 150)), np.array([0.7]), [lesion], normal=False)
    assert found.lesion_scores.tolist() == [0.7]


def test_a_hit_may_lie_half_of_75_micrometres_beside_the_annotation() -> None:
    lesions = group_lesions(box(0, 0, 500, 500), mpp=MPP)
    found = match_detections(points((-36, 250), (-39, 250)), np.array([0.5, 0.9]), lesions, normal=False)
    assert found.lesion_scores.tolist() == [0.5]
    assert found.false_scores.tolist() == [0.9]


def test_of_several_hits_the_surest_counts_and_none_is_wrong() -> None:
    lesions = group_lesions(box(0, 0, 500, 500), mpp=MPP)
    found = match_detections(points((10, 10), (100, 10), (10, 400)), np.array([0.3, 0.8, 0.5]), lesions, normal=False)
    assert found.lesion_scores.tolist() == [0.8]
    assert found.false_scores.tolist() == []


def test_a_hit_of_isolated_tumour_cells_is_neither_right_nor_wrong() -> None:
    lesions = group_lesions(shapely.union_all([disc(0, 0, 50), disc(2000, 0, 500)]), mpp=MPP)
    found = match_detections(points((0, 0)), np.array([0.9]), lesions, normal=False)
    assert found.lesion_scores.tolist() == [MISSED]
    assert found.false_scores.tolist() == []
    assert found.isolated == 1


def test_on_a_normal_slide_every_detection_is_wrong() -> None:
    lesions = group_lesions(box(0, 0, 500, 500), mpp=MPP)
    found = match_detections(points((10, 10), (900, 900)), np.array([0.3, 0.8]), lesions, normal=True)
    assert found.lesion_scores.size == 0
    assert found.false_scores.tolist() == [0.3, 0.8]
    assert found.normal


def test_without_detection_every_lesion_is_missed() -> None:
    lesions = group_lesions(box(0, 0, 500, 500), mpp=MPP)
    found = match_detections(points(), np.zeros(0), lesions, normal=False)
    assert found.lesion_scores.tolist() == [MISSED]
    assert found.false_scores.size == 0


@pytest.mark.parametrize("shape", [(2, 2), (1, 3), (2,)])
def test_points_that_do_not_fit_their_scores_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be \(N, 2\) and \(N,\)"):
        match_detections(np.zeros(shape), np.zeros(1), [], normal=True)


def test_a_small_example_by_hand() -> None:
    """Four lesions in two slides, two normal slides; the false positive of a tumour slide is on no account."""
    found = froc([tumour([0.9, 0.4], false=(0.99,)), tumour([0.6, MISSED], isolated=1), normal(0.7, 0.5), normal()])
    # >= 0.9: 0 and 1/4; >= 0.7: 0.5 and 1/4; >= 0.6: 0.5 and 2/4; >= 0.5: 1 and 2/4; >= 0.4: 1 and 3/4
    assert curve(found) == [(0, 0), (0, 0.25), (0.5, 0.25), (0.5, 0.5), (1, 0.5), (1, 0.75)]
    assert found.at == {0.25: 0.25, 0.5: 0.5, 1.0: 0.75, 2.0: 0.75, 4.0: 0.75, 8.0: 0.75}
    assert found.score == pytest.approx((0.25 + 0.5 + 4 * 0.75) / 6)


def test_what_has_one_score_comes_in_together_and_lies_on_a_slope() -> None:
    found = froc([tumour([0.5, 0.5]), normal(0.5)])
    assert curve(found) == [(0, 0), (1, 1)]
    assert found.at == {0.25: 0.25, 0.5: 0.5, 1.0: 1.0, 2.0: 1.0, 4.0: 1.0, 8.0: 1.0}


def test_points_amid_a_straight_piece_change_nothing() -> None:
    found = froc([tumour([0.9, 0.8, 0.7]), normal(0.6, 0.5, 0.4), tumour([0.1])])
    assert curve(found) == [(0, 0), (0, 0.75), (3, 0.75), (3, 1)]
    assert found.at[2.0] == 0.75
    assert found.at[4.0] == 1


def test_a_perfect_reader_without_false_positives_reaches_1() -> None:
    found = froc([tumour([0.9]), normal()])
    assert found.score == 1
    assert curve(found) == [(0, 0), (0, 1)]


def test_without_detection_at_all_nothing_is_found() -> None:
    found = froc([tumour([MISSED, MISSED]), normal()])
    assert found.score == 0
    assert curve(found) == [(0, 0)]


@pytest.mark.parametrize(
    "slides",
    [
        [],
        [tumour([0.9])],  # no normal slide
        [normal(0.3)],  # no lesion
        [tumour([], isolated=2), normal(0.3)],  # none that is to be found
    ],
)
def test_without_lesion_or_normal_slide_there_is_no_score(slides: list[SlideDetections]) -> None:
    found = froc(slides)
    assert math.isnan(found.score)
    assert list(found.at) == [0.25, 0.5, 1, 2, 4, 8]
    assert all(math.isnan(value) for value in found.at.values())
    assert found.false_positives.size == found.sensitivity.size == 0


SCORES = st.lists(st.sampled_from([0.1, 0.2, 0.5, 0.7, 0.9]), max_size=12)


@given(
    lesions=st.lists(st.sampled_from([MISSED, 0.1, 0.2, 0.5, 0.7, 0.9]), min_size=1, max_size=12),
    wrong=st.lists(SCORES, min_size=1, max_size=4),
)
def test_the_curve_rises_and_is_that_of_counting_at_each_score(lesions: list[float], wrong: list[list[float]]) -> None:
    slides = [tumour(lesions), *(normal(*scores) for scores in wrong)]
    found = froc(slides)
    assert (np.diff(found.false_positives) >= 0).all()
    assert (np.diff(found.sensitivity) >= 0).all()
    assert 0 <= found.score <= 1
    counted = [(0.0, 0.0)] + [
        (
            sum(score >= least for scores in wrong for score in scores) / len(wrong),
            sum(score >= least for score in lesions) / len(lesions),
        )
        for least in sorted({score for score in sum(wrong, lesions) if score > MISSED}, reverse=True)
    ]
    assert set(curve(found)) <= set(counted)
    full = np.interp(RATES, *np.array(counted).T)
    assert list(found.at.values()) == pytest.approx(full.tolist())


def test_lesions_do_not_overlap() -> None:
    generator = np.random.default_rng(3)
    annotation = shapely.union_all([disc(x, y, 90) for x, y in generator.uniform(0, 3000, (60, 2))])
    lesions = group_lesions(annotation, mpp=MPP)
    assert len(lesions) > 5
    assert all(lesion.area.is_valid for lesion in lesions)
    assert shapely.union_all([lesion.area for lesion in lesions]).area == pytest.approx(
        sum(lesion.area.area for lesion in lesions)
    )
    for part in annotation.geoms:
        assert sum(lesion.area.contains(part) for lesion in lesions) == 1


def test_an_outline_that_is_drawn_too_finely_costs_no_more() -> None:
    angles = np.linspace(0, 2 * np.pi, 50_000, endpoint=False)
    radius = 8000 + np.random.default_rng(0).uniform(0, 4, len(angles))
    rough = shapely.Polygon(np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1))
    (lesion,) = group_lesions(rough.buffer(0), mpp=0.25)
    assert len(shapely.get_coordinates(lesion.area)) < 1000
    assert lesion.area.equals(shapely.Polygon(lesion.area.exterior))
    widened = shapely.Point(0, 0).buffer(8000 + 37.5 / 0.25, quad_segs=64)
    assert lesion.area.hausdorff_distance(widened) < 2 * 2 / 0.25
