"""Scores of maps against masks that need no classes: what evaluation and `pixelcam score` have in common."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline import metrics, pixel_histogram
from pipeline.boxes import BoxScores, best_overlaps, box_scores
from pipeline.pixel_histogram import PixelHistogram
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
    """Maps and masks of any number of images, one pair of histograms (8 kB) each, however large they are.

    Attributes:
        foreground: an int32 (1001,) per image that was added, of the map over foreground pixels.
        background: likewise, over background pixels.
    """

    def __init__(self) -> None:
        self.foreground: list[NDArray[np.int32]] = []
        self.background: list[NDArray[np.int32]] = []
        self._aps: list[float] = []
        self._overlaps: list[NDArray[np.float64]] = []

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
        preds, target = preds.detach().float().cpu(), target.cpu()
        ignore = None if ignore is None else ignore.cpu()
        empty = pixel_histogram.empty_histogram(device=CPU)
        histogram = pixel_histogram.update_histogram(empty, preds=preds, target=target, ignore=ignore)
        self.foreground.append(histogram.foreground.int().numpy())
        self.background.append(histogram.background.int().numpy())
        values, truth = preds.numpy(), target.numpy()
        if ignore is None:
            ap = average_precision(preds=values, target=truth)
        else:
            counted = ~ignore.numpy()
            ap = average_precision(preds=values[counted], target=truth[counted])
            values, truth = np.where(counted, values, np.float32(-1)), truth & counted
        self._aps.append(ap)
        if truth.any():
            self._overlaps.append(best_overlaps(preds=values, target=truth))
        return ap

    def skip(self) -> float:
        """Take note of an image without a mask: none of its pixels counts."""
        nothing = np.zeros(pixel_histogram.STEPS + 1, dtype=np.int32)
        self.foreground.append(nothing)
        self.background.append(nothing)
        return float("nan")

    def histogram(self) -> PixelHistogram:
        """Return the pooled histogram of all images."""
        return _pool(self.foreground, self.background)

    def scores(self, thresholds: Mapping[str, float]) -> LocalizationScores:
        """Return the scores at named thresholds, multiples of 0.001 or NaN, and at the oracle's."""
        pooled = self.histogram()
        without_roi = [
            image
            for image, foreground in enumerate(self.foreground)
            if not foreground.any() and self.background[image].any()
        ]
        empty = _pool(
            [self.foreground[image] for image in without_roi], [self.background[image] for image in without_roi]
        )
        oracle = metrics.best_dice_threshold(pooled)
        foreground, background = (int(part.sum()) for part in (pooled.foreground, pooled.background))
        defined = [ap for ap in self._aps if not np.isnan(ap)]
        return LocalizationScores(
            pxap=pixel_histogram.pxap(pooled),
            pixel_auroc=pooled_area_under_roc(pooled),
            image_ap=sum(defined) / len(defined) if defined else float("nan"),
            foreground_share=foreground / (foreground + background) if foreground else float("nan"),
            regions={
                name: _region(pooled, empty, threshold=threshold)
                for name, threshold in {**thresholds, "half": FIXED_THRESHOLD, "oracle": oracle}.items()
            },
            boxes=box_scores(self._overlaps),
            images_without_roi=len(without_roi),
        )


def _pool(foreground: list[NDArray[np.int32]], background: list[NDArray[np.int32]]) -> PixelHistogram:
    start = np.zeros(pixel_histogram.STEPS + 1, dtype=np.int64)
    return PixelHistogram(
        foreground=torch.from_numpy(sum(foreground, start)), background=torch.from_numpy(sum(background, start))
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
