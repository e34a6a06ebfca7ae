"""The published evaluator's scores, against its definitions one pixel at a time, and against OpenCV, which it uses."""

import math
import sys
from dataclasses import asdict

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.metrics.published import (
    PublishedTally,
    map_boxes,
    mask_boxes,
    published_thresholds,
    scale_boxes,
    shrink_labels,
    stretch,
)

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Box = tuple[int, int, int, int]
Case = tuple[Floats, Bools, Bools | None]

EDGES = ((-1, 0), (1, 0), (0, -1), (0, 1))
CORNERS = ((-1, -1), (-1, 1), (1, -1), (1, 1))


def awkward_cases() -> dict[str, list[Case]]:
    """Return maps whose values lie on thresholds, or beside them, or say nothing, with their masks."""
    generator = np.random.default_rng(7)
    shape = (9, 7)
    mask = generator.random(shape) < 0.4
    decimals = np.round(generator.random(shape) * 20) / 20
    ring = np.zeros(shape)
    ring[1:7, 1:6], ring[2:6, 2:5] = 0.9, 0.2
    edges = generator.choice(np.arange(0, 1, 0.001), shape)
    beside: Floats = np.asarray(np.nextafter(edges, generator.choice([0.0, 1.0], shape)), dtype=np.float64)
    noise, ignore = generator.random(shape), generator.random(shape) < 0.3
    return {
        "decimals": [(decimals, mask, None), (decimals.T.copy(), mask.T, None)],
        "decimals as float32": [(decimals.astype(np.float32).astype(np.float64), mask, None)],
        "thresholds and their neighbours": [(beside, mask, None)],
        "constant": [(np.full(shape, 0.35), mask, None)],
        "zeros": [(np.zeros(shape), mask, None)],
        "ones": [(np.ones(shape), mask, None)],
        "zeros and ones": [((noise > 0.5).astype(np.float64), mask, None)],
        "one pixel": [(np.array([[0.7]]), np.array([[True]]), None)],
        "all foreground": [(noise, np.ones(shape, dtype=np.bool_), None)],
        "no foreground in one": [(noise, mask, None), (decimals, np.zeros(shape, dtype=np.bool_), None)],
        "no foreground": [(noise, np.zeros(shape, dtype=np.bool_), None)],
        "a ring": [(ring, ring > 0.5, None)],
        "faint": [(noise * 0.004, mask, None), (noise[::-1] * 0.3 + 0.1, mask, None)],
        "ignored": [(noise, mask, ignore)],
        "masks of another size": [(noise, generator.random((17, 20)) < 0.3, None)],
    }


def regions_of(inside: Bools, neighbours: tuple[tuple[int, int], ...]) -> list[set[tuple[int, int]]]:
    """Return the connected pixels of an image, by filling them from any of them."""
    left = {(int(y), int(x)) for y, x in np.argwhere(inside)}
    found = []
    while left:
        region, waiting = set(), [min(left)]
        while waiting:
            y, x = waiting.pop()
            if (y, x) in left:
                left.remove((y, x))
                region.add((y, x))
                waiting += [(y + down, x + right) for down, right in neighbours]
        found.append(region)
    return found


def box_around(pixels: set[tuple[int, int]]) -> Box:
    rows, columns = [y for y, _ in pixels], [x for _, x in pixels]
    return min(columns), min(rows), max(columns), max(rows)


def boxes_by_filling(region: Bools) -> set[Box]:
    height, width = region.shape
    contours = regions_of(region, EDGES + CORNERS)
    for hole in regions_of(~region, EDGES):
        around = {(y + down, x + right) for y, x in hole for down, right in EDGES} - hole
        if all(0 <= y < height and 0 <= x < width for y, x in around):
            contours.append(around)
    boxes = {
        (left, top, min(right + 1, width - 1), min(bottom + 1, height - 1))
        for left, top, right, bottom in map(box_around, contours)
    }
    return boxes or {(0, 0, 0, 0)}


def iou(one: Box, other: Box) -> float:
    inside = [{(x, y) for x in range(box[0], box[2] + 1) for y in range(box[1], box[3] + 1)} for box in (one, other)]
    return len(inside[0] & inside[1]) / len(inside[0] | inside[1])


class Reference:
    """The definitions, pixel by pixel and threshold by threshold."""

    def __init__(self, cases: list[Case], *, steps: int, stretched: bool) -> None:
        self.thresholds = [step * (1 / steps) for step in range(steps)]
        self.pixels: list[tuple[float, bool]] = []
        self.best: list[list[float]] = []
        for heat, original, ignore in cases:
            height, width = heat.shape
            factors = original.shape[0] / height, original.shape[1] / width
            low, high = float(heat.min()), float((heat - heat.min()).max())
            values, mask = np.zeros_like(heat), np.zeros(heat.shape, dtype=np.bool_)
            for y in range(height):
                for x in range(width):
                    values[y, x] = (heat[y, x] - low) / high if high else 0
                    mask[y, x] = original[int(y * factors[0]), int(x * factors[1])]
            values = values if stretched else heat
            for y in range(height):
                for x in range(width):
                    if mask[y, x] or ignore is None or not ignore[y, x]:
                        self.pixels.append((float(values[y, x]), bool(mask[y, x])))
            if original.any():
                self.best.append(self.overlaps(values, original))

    def overlaps(self, values: Floats, original: Bools) -> list[float]:
        height, width = values.shape
        scales = (width / original.shape[1], height / original.shape[0]) * 2
        regions = regions_of(original, EDGES + CORNERS)
        truth = [tuple(int(end * by) for end, by in zip(box_around(r), scales, strict=True)) for r in regions]
        levels = np.array([[int(value * 255) for value in row] for row in values])
        known: dict[int, float] = {}
        for threshold in self.thresholds:
            cut = int(threshold * levels.max())
            if cut not in known:
                known[cut] = max(iou(box, true) for box in boxes_by_filling(levels > cut) for true in truth)  # type: ignore[arg-type]
        return [known[int(threshold * levels.max())] for threshold in self.thresholds]

    def counts(self, threshold: float) -> tuple[int, int]:
        above = [true for value, true in self.pixels if value >= threshold]
        return sum(above), len(above) - sum(above)

    def pxap(self) -> float:
        foreground, area, before = sum(true for _, true in self.pixels), 0.0, 0
        for threshold in [1.0, *reversed(self.thresholds)]:
            right, wrong = self.counts(threshold)
            if right > before:
                area += right / (right + wrong) * (right - before) / foreground
            before = right
        return area if foreground else math.nan

    def region(self, threshold: float) -> tuple[float, float]:
        """Return Dice and mean IoU at a threshold."""
        right, wrong = self.counts(threshold)
        foreground = sum(true for _, true in self.pixels)
        background = len(self.pixels) - foreground
        missed, spared = foreground - right, background - wrong
        ious = [part / (part + wrong + missed) if part + wrong + missed else math.nan for part in (right, spared)]
        return 2 * right / (2 * right + wrong + missed), sum(ious) / 2

    def boxes(self) -> list[float]:
        """Return the shares of right images at IoU 0.3, 0.5 and 0.7, each at its best threshold."""
        return [
            max(sum(best[step] >= at for best in self.best) for step in range(len(self.thresholds))) / len(self.best)
            for at in (0.3, 0.5, 0.7)
        ]


@pytest.mark.parametrize("stretched", [False, True])
@pytest.mark.parametrize("steps", [1000, 100])
@pytest.mark.parametrize("name", awkward_cases())
def test_scores_are_those_of_the_definitions(name: str, steps: int, stretched: bool) -> None:
    cases = awkward_cases()[name]
    tally, reference = (
        PublishedTally(steps=steps, stretched=stretched),
        Reference(cases, steps=steps, stretched=stretched),
    )
    for heat, mask, ignore in cases:
        tally.add(heat, mask=mask, ignore=ignore)
    scores = tally.scores()
    assert scores.pxap == pytest.approx(reference.pxap(), abs=1e-9, nan_ok=True)
    assert (scores.images, scores.images - scores.images_without_roi) == (len(cases), len(reference.best))
    if not reference.best:
        assert all(math.isnan(value) for region in scores.regions.values() for value in asdict(region).values())
        assert math.isnan(scores.boxes.max_box_acc_v2)
        return
    shares = reference.boxes()
    found = [scores.boxes.iou_30, scores.boxes.iou_50, scores.boxes.iou_70]
    assert [*found, scores.boxes.max_box_acc_v2] == pytest.approx([*shares, sum(shares) / 3], abs=1e-9)
    for region in scores.regions.values():
        expected = reference.region(region.threshold)
        assert (region.dice, region.mean_iou) == pytest.approx(expected, abs=1e-9, nan_ok=True)
    best = np.max([reference.region(threshold)[1] for threshold in [2.0, 1.0, *reference.thresholds]])  # NaN wins
    assert scores.regions["best_mean_iou"].mean_iou == pytest.approx(best, abs=1e-9, nan_ok=True)


def test_a_map_cut_at_a_half_is_cut_one_step_above_it() -> None:
    tally = PublishedTally(steps=1000, stretched=False)
    tally.add(np.array([[0.5005, 0.9]]), mask=np.array([[True, True]]), ignore=None)
    half = tally.scores().regions["half"]
    assert half.reported_threshold == 0.5
    assert [half.threshold, half.dice] == pytest.approx([0.501, 2 / 3], abs=1e-9)


def test_values_of_one_are_a_point_of_their_own() -> None:
    tally = PublishedTally(steps=1000, stretched=False)
    tally.add(np.array([[1.0, 0.9995]]), mask=np.array([[True, False]]), ignore=None)
    nothing = PublishedTally(steps=1000, stretched=False)
    nothing.add(np.array([[0.2, 0.3]]), mask=np.array([[False, False]]), ignore=None)
    full = PublishedTally(steps=1000, stretched=False)
    full.add(np.array([[0.2, 0.3]]), mask=np.array([[True, True]]), ignore=None)
    with np.errstate(all="raise"):  # what is undefined is NaN, and nothing is said
        assert tally.scores().pxap == 1.0
        assert np.isnan(nothing.scores().pxap)
        assert full.scores().pxap == 1.0


def test_thresholds_are_multiples_of_the_rounded_step() -> None:
    assert published_thresholds(1000)[9] == 9 * 0.001 > 0.009
    assert [len(published_thresholds(steps)) for steps in (100, 1000)] == [100, 1000]


def test_a_map_is_stretched_by_its_own_ends_and_a_constant_one_vanishes() -> None:
    assert stretch(np.array([[0.2, 0.3, 0.4]])).tolist() == [[0, pytest.approx(0.5), 1]]
    assert stretch(np.array([[0.7, 0.7]])).tolist() == [[0, 0]]


def test_boxes_of_a_mask_are_scaled_with_fractions_cut_off() -> None:
    mask = np.zeros((10, 10), dtype=np.bool_)
    mask[2:5, 3:9] = True
    boxes = mask_boxes(mask)
    assert boxes.tolist() == [[3, 2, 8, 4]]
    assert scale_boxes(boxes, old=(10, 10), new=(20, 7)).tolist() == [[2, 4, 5, 8]]


class TestAgainstOpenCV:
    """OpenCV is no dependency; where it is installed it says what the published evaluator would be told."""

    @pytest.fixture(autouse=True)
    def _opencv(self) -> None:
        pytest.importorskip("cv2")

    def test_boxes_are_those_of_its_contours(self) -> None:
        cv2 = sys.modules["cv2"]
        generator = np.random.default_rng(3)
        for _ in range(60):
            height, width = generator.integers(1, 30, 2)
            levels = generator.integers(0, 4, (height, width)).astype(np.uint8)
            _, cut = cv2.threshold(levels[..., None], 1, 255, cv2.THRESH_BINARY)
            contours = cv2.findContours(cut, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
            boxes = sorted(
                (x, y, min(x + w, width - 1), min(y + h, height - 1)) for x, y, w, h in map(cv2.boundingRect, contours)
            )
            assert sorted(map(tuple, map_boxes(levels, above=1).tolist())) == (boxes or [(0, 0, 0, 0)])

    def test_masks_shrink_and_grow_alike(self) -> None:
        cv2 = sys.modules["cv2"]
        generator = np.random.default_rng(4)
        for _ in range(60):
            old, new = generator.integers(1, 300, 2), generator.integers(1, 300, 2)
            mask = generator.random(tuple(old)) < 0.5
            expected = cv2.resize(mask.astype(np.float32), (int(new[1]), int(new[0])), interpolation=cv2.INTER_NEAREST)
            assert np.array_equal(shrink_labels(mask, (int(new[0]), int(new[1]))), expected > 0.5)
