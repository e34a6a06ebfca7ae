"""Scores of maps against masks that need no classes: what evaluation and `pixelcam score` have in common."""

import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline import metrics, pixel_histogram
from pipeline.boxes import BoxScores, BoxTally, best_overlaps
from pipeline.histogram_rows import HistogramRows
from pipeline.pixel_histogram import PixelHistogram, add_images
from pipeline.ranking import average_precision, average_precisions, pooled_area_under_roc
from pipeline.shared_threads import in_threads

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
    chosen on these very masks and so is no result but a bound.
    """

    pxap: float
    pixel_auroc: float
    image_ap: float
    foreground_share: float
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
        oracle = metrics.best_dice_threshold(pooled)
        foreground, background = (int(part.sum()) for part in (pooled.foreground, pooled.background))
        return LocalizationScores(
            pxap=pixel_histogram.pxap(pooled),
            pixel_auroc=pooled_area_under_roc(pooled),
            image_ap=sum(self._aps) / len(self._aps) if self._aps else float("nan"),
            foreground_share=foreground / (foreground + background) if foreground else float("nan"),
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
    counts = metrics.counts_at(pooled, threshold=threshold)
    in_vain = metrics.counts_at(empty, threshold=threshold)
    negatives = in_vain.false_positive + in_vain.true_negative
    return RegionScores(
        threshold=threshold,
        dice=metrics.dice(counts).item(),
        iou=metrics.iou(counts).item(),
        background_iou=metrics.background_iou(counts).item(),
        mean_iou=metrics.mean_iou(counts).item(),
        false_positive_share=(in_vain.false_positive.double() / negatives).item(),
    )
