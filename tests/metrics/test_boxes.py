"""Boxes of all thresholds at once, against labelling a map once per threshold with SciPy."""

import math
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pipeline.metrics import localization
from pipeline.metrics.localization import BOX_THRESHOLDS, BoxScores, BoxTally, best_overlaps, boxes_at_levels

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


def labelled_boxes(region: Bools) -> list[tuple[int, int, int, int]]:
    found = ndimage.find_objects(ndimage.label(region, structure=np.ones((3, 3)))[0])
    return [(rows.start, rows.stop, columns.start, columns.stop) for rows, columns in found]


def overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> float:
    height = max(0, min(one[1], other[1]) - max(one[0], other[0]))
    width = max(0, min(one[3], other[3]) - max(one[2], other[2]))
    areas = sum((bottom - top) * (right - left) for top, bottom, left, right in (one, other))
    return height * width / (areas - height * width)


def reference(preds: Floats, target: Bools) -> list[float]:
    truth = labelled_boxes(target)
    return [
        max(
            (overlap(box, true) for box in labelled_boxes(preds >= np.float32(step / 100)) for true in truth), default=0
        )
        for step in range(100)
    ]


def random_case(seed: int, *, height: int, width: int) -> tuple[Floats, Bools]:
    """Make a map with smooth hills, ties, and the values 0, 1 and exact thresholds, and a mask of a few regions."""
    generator = np.random.default_rng(seed)
    preds = ndimage.gaussian_filter(generator.random((height, width)), 1.5)
    preds = ((preds - preds.min()) / np.ptp(preds)).astype(np.float32)
    if seed % 2:
        preds = (np.round(preds * 20) / 20).astype(np.float32)
    return preds, ndimage.gaussian_filter(generator.random((height, width)), 2) > 0.5


class TestBestOverlaps:
    @pytest.mark.parametrize("seed", range(6))
    @pytest.mark.parametrize(("height", "width"), [(23, 17), (1, 9), (9, 1)])
    def test_are_those_of_labelling_at_each_threshold(self, seed: int, height: int, width: int) -> None:
        preds, target = random_case(seed, height=height, width=width)
        assert best_overlaps(preds=preds, target=target).tolist() == reference(preds, target)

    @settings(max_examples=30, deadline=None)
    @given(
        st.integers(1, 6).flatmap(
            lambda width: st.lists(
                st.lists(
                    st.tuples(st.sampled_from([0.0, 0.29, 0.3, 0.5, 1.0]), st.booleans()),
                    min_size=width,
                    max_size=width,
                ),
                min_size=1,
                max_size=6,
            )
        )
    )
    def test_are_those_of_labelling_on_any_small_map(self, rows: list[list[tuple[float, bool]]]) -> None:
        preds = np.array([[value for value, _ in row] for row in rows], dtype=np.float32)
        target = np.array([[truth for _, truth in row] for row in rows])
        assert best_overlaps(preds=preds, target=target).tolist() == reference(preds, target)

    def test_do_not_depend_on_how_many_thresholds_are_held_at_once(self) -> None:
        preds, target = random_case(2, height=20, width=30)
        with mock.patch.object(localization, "MAX_RUNS", 50):
            parts = best_overlaps(preds=preds, target=target)
        assert parts.tolist() == best_overlaps(preds=preds, target=target).tolist()

    def test_so_many_thresholds_are_held_at_once_that_their_keys_fit_in_32_bits(self) -> None:
        held = []

        def note(levels: npt.NDArray[np.int32], *, first: int, last: int) -> localization.Boxes:
            held.append((first, last))
            return boxes_at_levels(levels[:1, :1], first=first, last=last)

        with mock.patch.multiple(localization, boxes_at_levels=note, BOX_THRESHOLDS=100_000):
            list(localization._in_parts(np.zeros((220, 100), dtype=np.int32)))
        assert [level for part in held for level in range(*part)] == list(range(100_000))
        assert max(last - first for first, last in held) * 221 * 101 < 2**31

    def test_corners_connect(self) -> None:
        preds = np.eye(4, dtype=np.float32)
        assert best_overlaps(preds=preds, target=np.ones((4, 4), dtype=np.bool_))[50] == 1.0

    def test_pixels_of_no_region_are_left_out_at_threshold_zero_too(self) -> None:
        preds = np.array([[0.5, -1.0, -1.0, -1.0]], dtype=np.float32)
        found = best_overlaps(preds=preds, target=np.array([[True, False, False, False]]))
        assert found[:51].tolist() == [1.0] * 51
        assert found[51:].tolist() == [0.0] * 49

    def test_are_zero_where_map_or_mask_is_empty(self) -> None:
        nothing = np.zeros((3, 3), dtype=np.bool_)
        assert best_overlaps(preds=np.ones((3, 3), dtype=np.float32), target=nothing).tolist() == [0.0] * 100
        found = best_overlaps(preds=np.zeros((3, 3), dtype=np.float32), target=~nothing)
        assert found.tolist() == [1.0] + [0.0] * 99

    def test_boxes_of_two_levels_by_hand(self) -> None:
        levels = np.array([[2, 1, 0], [0, 0, 0], [0, 1, 1]], dtype=np.int32)
        found = boxes_at_levels(levels, first=0, last=2)
        rows = zip(found.level, found.top, found.bottom, found.left, found.right, strict=True)
        assert sorted(tuple(int(value) for value in row) for row in rows) == [
            (0, 0, 1, 0, 2),
            (0, 2, 3, 1, 3),
            (1, 0, 1, 0, 1),
        ]


def tally(*overlaps: npt.NDArray[np.float64]) -> BoxScores:
    boxes_of_images = BoxTally()
    for each in overlaps:
        boxes_of_images.add(each)
    return boxes_of_images.scores()


class TestBoxTally:
    def test_the_best_threshold_is_one_for_all_images(self) -> None:
        early, late = np.zeros(BOX_THRESHOLDS), np.zeros(BOX_THRESHOLDS)
        early[:50], late[50:] = 0.6, 0.6
        found = tally(early, late)
        assert (found.iou_30, found.iou_50, found.iou_70) == (0.5, 0.5, 0.0)
        assert found.max_box_acc_v2 == pytest.approx(1 / 3)

    def test_an_overlap_exactly_on_the_mark_counts(self) -> None:
        found = tally(*(np.full(BOX_THRESHOLDS, shared / 10) for shared in (3, 5, 7)))
        assert [found.iou_30, found.iou_50, found.iou_70] == pytest.approx([1.0, 2 / 3, 1 / 3])

    def test_is_undefined_without_images(self) -> None:
        assert math.isnan(tally().max_box_acc_v2)
