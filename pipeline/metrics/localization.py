"""Scores of maps against masks that need no classes, boxes among them: for evaluation and `pixelcam score` alike.

Regions are connected over edges and corners, as in the published evaluator. Instead of labelling a map once per
threshold, all thresholds are labelled at once: a region is a set of runs (unbroken pixels of a row), and runs at one
threshold belong together where they touch from row to row. Smooth maps have few runs, so this is several times faster.
"""

import math
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from pipeline.metrics import curves, pixel_histogram
from pipeline.metrics.curves import PixelCounts, average_precision, average_precisions, pooled_area_under_roc
from pipeline.metrics.pixel_histogram import HistogramRows, PixelHistogram, add_images
from pipeline.metrics.reliability import (
    ReliabilityBin,
    mean_map_value,
    pixel_calibration_error,
    reliability_bins,
)
from pipeline.runtime.threads import in_threads

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


FIXED_THRESHOLD: Final = 0.5  # where no validation mask may be used: the middle of the scale, chosen by nobody's eyes
WORTH_A_THREAD: Final = 2**14  # pixels of an image; of fewer, threads would only wait for each other
CPU: Final = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class RegionScores:
    """Scores of the pooled pixels at or above one threshold; NaN where one is not defined.

    `false_positive_share` is the share of the pixels of images without region of interest that lie there.
    """

    threshold: float
    dice: float
    iou: float
    background_iou: float
    mean_iou: float
    false_positive_share: float


@dataclass(frozen=True, kw_only=True)
class LocalizationScores:
    """Scores of maps, fractions in [0, 1]; NaN where a score is not defined.

    `pxap` and `pixel_auroc` are pooled over pixels, `image_ap` is the mean of the images' exact average precisions.
    `regions` holds the scores at a threshold by what the threshold is: "validation", "half", and "oracle", which is
    chosen on these very masks and so is no result but a bound. `foreground_share_map` is the share of foreground that
    the maps say, and `reliability` and `pixel_ece` how far they are from it; see `pipeline.metrics.reliability`.
    """

    pxap: float
    pixel_auroc: float
    image_ap: float
    foreground_share: float
    foreground_share_map: float
    pixel_ece: float
    reliability: dict[str, ReliabilityBin]
    regions: dict[str, RegionScores]
    boxes: BoxScores
    images_without_roi: int


@dataclass(frozen=True, kw_only=True, eq=False)
class CountedMaps:
    """What a device found of a batch's maps, and what it takes to find the rest; all in main memory.

    Attributes:
        histograms: int64 (B, 2, 1001), as `count_images` gives them.
        aps: float64 (B,), average precisions; None where the processor is to find them.
        values: float32 (B, H, W), the maps; negative where a pixel does not count.
        truth: bool (B, H, W), region of interest that counts.
    """

    histograms: Tensor
    aps: NDArray[np.float64] | None
    values: NDArray[np.float32]
    truth: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class MapMeasures:
    """What is kept of a batch's maps.

    Attributes:
        histograms: int64 (B, 2, 1001); zeros without a mask.
        aps: float64 (B,), average precisions; NaN without region of interest or mask.
        overlaps: `best_overlaps` of the images that have an average precision.
    """

    histograms: Tensor
    aps: NDArray[np.float64]
    overlaps: list[NDArray[np.float64]]


def count_maps(maps: Tensor, *, target: Tensor, ignore: Tensor | None = None) -> CountedMaps:
    """Count the pixels of maps on their device, where a GPU finds average precisions too, and bring all to the CPU.

    Args:
        maps: floating point (B, H, W), values in [0, 1].
        target: bool (B, H, W), True is region of interest, on any device.
        ignore: bool (B, H, W), True is a pixel that does not count, likewise.

    Raises:
        PixelCAMError: a map value is NaN or outside [0, 1].
        ValueError: shapes or dtypes do not fit.
    """
    values, truth = maps.detach().float(), target.to(maps.device)
    skipped = None if ignore is None else ignore.to(maps.device)
    histograms = pixel_histogram.count_images(values, target=truth, ignore=skipped)
    if skipped is not None:
        values, truth = values.masked_fill(skipped, -1), truth & ~skipped
    found = average_precisions(preds=values.flatten(1), target=truth.flatten(1)) if values.is_cuda else None
    return CountedMaps(
        histograms=histograms,
        aps=None if found is None else found.cpu().numpy(),
        values=values.cpu().numpy(),
        truth=truth.cpu().numpy(),
    )


def measure_maps(counted: CountedMaps, *, has_mask: Tensor | None = None) -> MapMeasures:
    """Find on the CPU, an image to a thread, what is to be kept of maps; nothing of images that have no mask.

    Args:
        counted: of the maps.
        has_mask: bool (B,), False where the truth is unknown; None if all is known.
    """
    known = np.ones(len(counted.values), dtype=np.bool_) if has_mask is None else has_mask.cpu().numpy()
    scored = np.flatnonzero(known & counted.truth.any(axis=(1, 2))).tolist()

    def measure(index: int) -> tuple[float, NDArray[np.float64]]:
        values, truth = counted.values[index], counted.truth[index]
        counts = values >= 0
        ap = (
            average_precision(preds=values[counts], target=truth[counts]) if counted.aps is None else counted.aps[index]
        )
        return float(ap), best_overlaps(preds=values, target=truth)

    found = (
        in_threads(measure, scored)
        if math.prod(counted.values.shape[1:]) >= WORTH_A_THREAD
        else [*map(measure, scored)]
    )
    aps = np.full(len(known), np.nan)
    aps[scored] = [ap for ap, _ in found]
    histograms = counted.histograms if known.all() else counted.histograms * torch.from_numpy(known)[:, None, None]
    return MapMeasures(histograms=histograms, aps=aps, overlaps=[overlaps for _, overlaps in found])


class LocalizationTally:
    """Maps and masks of any number of images, counted and forgotten but for 8 bytes of each.

    Attributes:
        pooled: the histogram of all of them.
        rows: where the pair of histograms of each is kept, if anywhere.
    """

    def __init__(self, rows: HistogramRows | None = None) -> None:
        self.pooled = pixel_histogram.empty_histogram(device=CPU)
        self.rows = rows
        self._without_roi = pixel_histogram.empty_histogram(device=CPU)
        self._images_without_roi = 0
        self._aps = array("d")
        self._boxes = BoxTally()

    def add(self, measures: MapMeasures) -> None:
        """Count a batch of images."""
        images = measures.histograms
        foreground, background = images.any(dim=2).unbind(dim=1)
        without_roi = images[~foreground & background]
        self.pooled = add_images(self.pooled, images)
        self._without_roi = add_images(self._without_roi, without_roi)
        self._images_without_roi += len(without_roi)
        self._aps.extend(measures.aps[~np.isnan(measures.aps)].tolist())
        for overlaps in measures.overlaps:
            self._boxes.add(overlaps)
        if self.rows is not None:
            self.rows.append(images.int().numpy())

    def scores(self, thresholds: Mapping[str, float]) -> LocalizationScores:
        """Return the scores at named thresholds, multiples of 0.001 or NaN, and at the oracle's."""
        pooled = self.pooled
        oracle = curves.best_dice_threshold(pooled)
        foreground, background = (int(part.sum()) for part in (pooled.foreground, pooled.background))
        reliability = reliability_bins(pooled)
        return LocalizationScores(
            pxap=pixel_histogram.pxap(pooled),
            pixel_auroc=pooled_area_under_roc(pooled),
            image_ap=sum(self._aps) / len(self._aps) if self._aps else float("nan"),
            foreground_share=foreground / (foreground + background) if foreground else float("nan"),
            foreground_share_map=mean_map_value(pooled),
            pixel_ece=pixel_calibration_error(reliability),
            reliability=reliability,
            regions={
                name: _region(pooled, self._without_roi, threshold=threshold)
                for name, threshold in {**thresholds, "half": FIXED_THRESHOLD, "oracle": oracle}.items()
            },
            boxes=self._boxes.scores(),
            images_without_roi=self._images_without_roi,
        )


def _region(pooled: PixelHistogram, empty: PixelHistogram, *, threshold: float) -> RegionScores:
    """Score one threshold; `empty` holds the pixels of the images without region of interest."""
    if np.isnan(threshold):
        return RegionScores(**dict.fromkeys(RegionScores.__dataclass_fields__, float("nan")))
    counts = curves.counts_at(pooled, threshold=threshold)
    return score_region(counts, in_vain=curves.counts_at(empty, threshold=threshold), threshold=threshold)


def score_region(counts: PixelCounts, *, in_vain: PixelCounts, threshold: float) -> RegionScores:
    """Return the scores of pooled counts, int64 of shape (), however the pixels were cut.

    Args:
        counts: of all images.
        in_vain: of those without region of interest.
        threshold: what is said of the cut; NaN where it is not one for all.
    """
    negatives = in_vain.false_positive + in_vain.true_negative
    return RegionScores(
        threshold=threshold,
        dice=curves.dice(counts).item(),
        iou=curves.iou(counts).item(),
        background_iou=curves.background_iou(counts).item(),
        mean_iou=curves.mean_iou(counts).item(),
        false_positive_share=(in_vain.false_positive.double() / negatives).item(),
    )
