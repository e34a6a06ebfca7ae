"""Boxes around connected regions, and how well those of a thresholded map fit those of a mask: MaxBoxAccV2.

Regions are connected over edges and corners, as in the published evaluator. Instead of labelling a map once per
threshold, all thresholds are labelled at once: a region is a set of runs (unbroken pixels of a row), and runs at one
threshold belong together where they touch from row to row. Smooth maps have few runs, so this is several times faster.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

BOX_THRESHOLDS: Final = 100  # 0, 0.01, ..., 0.99
BOX_IOUS: Final = (0.3, 0.5, 0.7)
MAX_RUNS: Final = 2_000_000  # held at once, about 100 bytes each

IntArray = NDArray[np.int32]  # half the time of int64 where arrays are sorted


@dataclass(frozen=True, kw_only=True, eq=False)
class Boxes:
    """Boxes, int32 (N,) each: rows `top` to `bottom` and columns `left` to `right`, ends excluded, at a threshold."""

    level: IntArray
    top: IntArray
    bottom: IntArray
    left: IntArray
    right: IntArray


@dataclass(frozen=True, kw_only=True)
class BoxScores:
    """The share of images whose best box has at least an IoU, at the best threshold; `max_box_acc_v2` is their mean."""

    max_box_acc_v2: float
    iou_30: float
    iou_50: float
    iou_70: float


def best_overlaps(*, preds: NDArray[np.float32], target: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the highest IoU between any box of the map and any box of the mask, at each threshold: float64 (100,).

    Boxes surround the connected regions of the map where it is at least the threshold, and those of the mask.

    Args:
        preds: (H, W) in [0, 1]; negative where a pixel belongs to no region at any threshold.
        target: (H, W), True is region of interest; without any, all overlaps are 0.
    """
    best = np.zeros(BOX_THRESHOLDS)
    thresholds = (np.arange(BOX_THRESHOLDS) / BOX_THRESHOLDS).astype(np.float32)
    levels = np.searchsorted(thresholds, preds, side="right").astype(np.int32)
    truth = boxes_at_levels(target.astype(np.int32), first=0, last=1)
    for found in _in_parts(levels):
        for overlap in _overlaps(found, truth):
            np.maximum.at(best, found.level, overlap)
    return best


class BoxTally:
    """MaxBoxAccV2 of any number of images, counted one by one.

    Source: MaxBoxAccV2, "Evaluation for Weakly Supervised Object Localization: Protocol, Metrics, and Datasets".
    """

    def __init__(self) -> None:
        self._hits = np.zeros((len(BOX_IOUS), BOX_THRESHOLDS), dtype=np.int64)
        self._images = 0

    def add(self, overlaps: NDArray[np.float64]) -> None:
        """Count an image that has a region of interest, by its `best_overlaps`."""
        self._hits += overlaps >= np.array(BOX_IOUS)[:, None]
        self._images += 1

    def scores(self) -> BoxScores:
        """Return the scores; NaN without images."""
        shares = [int(row.max()) / self._images if self._images else float("nan") for row in self._hits]
        return BoxScores(max_box_acc_v2=sum(shares) / len(shares), iou_30=shares[0], iou_50=shares[1], iou_70=shares[2])


def boxes_at_levels(levels: IntArray, *, first: int, last: int) -> Boxes:
    """Return the boxes of the connected regions `levels > level` for each level in `first`..`last` - 1.

    Args:
        levels: int32 (H, W), none negative.
        first: the lowest level.
        last: the level to stop before; with many levels keep (last - first) * (H + 1) * (W + 1) below 2**31.
    """
    height, width = levels.shape
    padded = np.pad((levels - first).clip(0, last - first), ((0, 0), (1, 1)))
    before, after = padded[:, :-1], padded[:, 1:]  # (H, W + 1): to the left and to the right of each border
    row, level = width + 1, (height + 1) * (width + 1)  # a row beneath the last, so that levels do not touch
    starts = _crossings(low=before, high=after, per_level=level)
    ends = _crossings(low=after, high=before, per_level=level)  # sorted alike, so that the pairs are runs
    region, regions = _join(starts, ends, row=row)
    bounds = {
        "top": np.full(regions, height, dtype=np.int32),
        "bottom": np.zeros(regions, dtype=np.int32),
        "left": np.full(regions, width, dtype=np.int32),
        "right": np.zeros(regions, dtype=np.int32),
    }
    rows = starts % level // row
    np.minimum.at(bounds["top"], region, rows)
    np.maximum.at(bounds["bottom"], region, rows + 1)
    np.minimum.at(bounds["left"], region, starts % row)
    np.maximum.at(bounds["right"], region, ends % row)
    of_region = np.zeros(regions, dtype=np.int32)
    of_region[region] = starts // level + first
    return Boxes(level=of_region, **bounds)


def _in_parts(levels: IntArray) -> Iterator[Boxes]:
    """Yield the boxes of all thresholds, as many thresholds at a time as memory allows."""
    runs = int(np.diff(levels, axis=1, prepend=0).clip(0).sum())
    keys = BOX_THRESHOLDS * (levels.shape[0] + 1) * (levels.shape[1] + 1)
    parts = min(BOX_THRESHOLDS, 1 + max(runs // MAX_RUNS, keys // 2**30))  # 2**30: parts differ in size by a level
    for part in np.array_split(np.arange(BOX_THRESHOLDS), parts):
        yield boxes_at_levels(levels, first=int(part[0]), last=int(part[-1]) + 1)


def _crossings(*, low: IntArray, high: IntArray, per_level: int) -> IntArray:
    """Return, sorted, level * per_level + position for every position and every level from `low` up to `high`."""
    where = np.flatnonzero(high > low)
    base = low.ravel()[where]
    count = high.ravel()[where] - base
    within = np.arange(count.sum()) - np.repeat(count.cumsum() - count, count)
    keys: IntArray = ((np.repeat(base, count) + within) * per_level + np.repeat(where, count)).astype(np.int32)
    keys.sort()
    return keys


def _join(starts: IntArray, ends: IntArray, *, row: int) -> tuple[NDArray[np.int32], int]:
    """Return the region that each run belongs to, int32 (N,), and how many regions there are."""
    # In the row beneath, the runs that touch: they end no sooner than this one starts, and start no later than it ends.
    lowest = np.searchsorted(ends, starts + row, side="left")
    touching = (np.searchsorted(starts, ends + row, side="right") - lowest).clip(0)
    above = np.repeat(np.arange(len(starts)), touching)
    beneath = np.arange(touching.sum()) + np.repeat(lowest - touching.cumsum() + touching, touching)
    graph = coo_array((np.ones(len(above), dtype=np.int8), (above, beneath)), shape=(len(starts), len(starts)))
    regions, region = connected_components(graph, directed=False)
    return region, int(regions)


def _overlaps(found: Boxes, truth: Boxes) -> Iterator[NDArray[np.float64]]:
    """Yield for each true box its IoU with every found box; one at a time, since masks and maps may be noise."""
    areas = (found.bottom - found.top).astype(np.float64) * (found.right - found.left)
    for top, bottom, left, right in zip(truth.top, truth.bottom, truth.left, truth.right, strict=True):
        height = (np.minimum(found.bottom, bottom) - np.maximum(found.top, top)).clip(0)
        width = (np.minimum(found.right, right) - np.maximum(found.left, left)).clip(0)
        shared = height.astype(np.float64) * width
        yield shared / (areas + (bottom - top) * (right - left) - shared)
