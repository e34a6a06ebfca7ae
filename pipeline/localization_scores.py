"""Scores of maps against masks that need no classes: what evaluation and `pixelcam score` have in common."""

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from pipeline import metrics, pixel_histogram
from pipeline.boxes import BoxScores, BoxTally, best_overlaps
from pipeline.histogram_rows import HistogramRows
from pipeline.pixel_histogram import PixelHistogram, add_histograms
from pipeline.ranking import average_precision, pooled_area_under_roc

FIXED_THRESHOLD: Final = 0.5  # where no validation mask may be used: the middle of the scale, chosen by nobody's eyes
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

    def add(self, *, preds: Tensor, target: Tensor, ignore: Tensor | None = None) -> float:
        """Count an image, and return its average precision; NaN without foreground.

        Args:
            preds: floating point (H, W), map values in [0, 1].
            target: bool (H, W), True is region of interest.
            ignore: bool (H, W), True is a pixel that does not count.

        Raises:
            PixelCAMError: a map value is NaN or outside [0, 1].
            ValueError: shapes or dtypes do not fit.
        """
        preds = preds.detach().float()
        self._count(_histogram_of(preds, target=target, ignore=ignore))
        preds, target = preds.cpu(), target.cpu()
        ignore = None if ignore is None else ignore.cpu()
        values, truth = preds.numpy(), target.numpy()
        if ignore is None:
            ap = average_precision(preds=values, target=truth)
        else:
            counted = ~ignore.numpy()
            ap = average_precision(preds=values[counted], target=truth[counted])
            values, truth = np.where(counted, values, np.float32(-1)), truth & counted
        if truth.any():
            self._aps.append(ap)
            self._boxes.add(best_overlaps(preds=values, target=truth))
        return ap

    def skip(self) -> float:
        """Take note of an image without a mask: none of its pixels counts."""
        self._count(pixel_histogram.empty_histogram(device=CPU))
        return float("nan")

    def extend(self, others: "LocalizationTally") -> None:
        """Count the images of another tally after its own."""
        self.pooled = add_histograms(self.pooled, others.pooled)
        if self.rows is not None and others.rows is not None:
            self.rows.extend(others.rows)
        self._without_roi = add_histograms(self._without_roi, others._without_roi)
        self._images_without_roi += others._images_without_roi
        self._aps.extend(others._aps)
        self._boxes.extend(others._boxes)

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

    def _count(self, histogram: PixelHistogram) -> None:
        """Count an image by its histogram."""
        self.pooled = add_histograms(self.pooled, histogram)
        if not histogram.foreground.any() and histogram.background.any():
            self._without_roi = add_histograms(self._without_roi, histogram)
            self._images_without_roi += 1
        if self.rows is not None:
            self.rows.append(torch.stack([histogram.foreground, histogram.background]).int().numpy())


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


def _histogram_of(preds: Tensor, *, target: Tensor, ignore: Tensor | None) -> PixelHistogram:
    """Count the pixels of an image on the device of its map, and return them on the CPU."""
    device = preds.device
    counted = pixel_histogram.update_histogram(
        pixel_histogram.empty_histogram(device=device),
        preds=preds,
        target=target.to(device),
        ignore=None if ignore is None else ignore.to(device),
    )
    return PixelHistogram(foreground=counted.foreground.cpu(), background=counted.background.cpu())
