"""Scores as pure functions: figures come from whole numbers of pixels and images.

Where a figure is not defined (no foreground pixel, no image) it is NaN, never a number that looks like a score.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.pixel_histogram import STEPS, PixelHistogram, at_least, thresholds


@dataclass(frozen=True, kw_only=True, eq=False)
class PixelCounts:
    """Pixels by truth and prediction: int64 tensors of one shape, an entry per image or per threshold."""

    true_positive: Tensor
    false_positive: Tensor
    false_negative: Tensor
    true_negative: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class PrecisionRecallCurve:
    """Float64 tensors (1001,), thresholds ascending; precision is NaN where nothing is predicted foreground."""

    thresholds: Tensor
    precision: Tensor
    recall: Tensor


def counts_by_threshold(histogram: PixelHistogram) -> PixelCounts:
    """Return pixel counts at each of the 1,001 thresholds, ascending; int64 (1001,) or (B, 1001) on the CPU."""
    true_positive = at_least(histogram.foreground.cpu())
    false_positive = at_least(histogram.background.cpu())
    return PixelCounts(
        true_positive=true_positive,
        false_positive=false_positive,
        false_negative=true_positive[..., :1] - true_positive,
        true_negative=false_positive[..., :1] - false_positive,
    )


def counts_at(histogram: PixelHistogram, *, threshold: float) -> PixelCounts:
    """Return pixel counts at one threshold, int64 of shape (), or of images (B,), on the CPU.

    Raises:
        ValueError: `threshold` is not a multiple of 0.001 in [0, 1].
    """
    index = round(threshold * STEPS)
    if not 0 <= index <= STEPS or abs(threshold * STEPS - index) > 1e-6:
        raise ValueError(f"threshold must be a multiple of {1 / STEPS} in [0, 1], got {threshold}")
    counts = counts_by_threshold(histogram)
    return PixelCounts(
        true_positive=counts.true_positive[..., index],
        false_positive=counts.false_positive[..., index],
        false_negative=counts.false_negative[..., index],
        true_negative=counts.true_negative[..., index],
    )


def precision(counts: PixelCounts) -> Tensor:
    """Return TP / (TP + FP) as float64; NaN where nothing is predicted foreground."""
    return _ratio(counts.true_positive, counts.true_positive + counts.false_positive)


def recall(counts: PixelCounts) -> Tensor:
    """Return TP / (TP + FN) as float64; NaN without foreground."""
    return _ratio(counts.true_positive, counts.true_positive + counts.false_negative)


def dice(counts: PixelCounts) -> Tensor:
    """Return the foreground's Dice coefficient, 2 TP / (2 TP + FP + FN), as float64; NaN without foreground."""
    return _ratio(
        2 * counts.true_positive, 2 * counts.true_positive + counts.false_positive + counts.false_negative
    ).where(_has_foreground(counts), torch.nan)


def iou(counts: PixelCounts) -> Tensor:
    """Return the foreground's intersection over union, TP / (TP + FP + FN), as float64; NaN without foreground."""
    return _ratio(counts.true_positive, counts.true_positive + counts.false_positive + counts.false_negative).where(
        _has_foreground(counts), torch.nan
    )


def background_iou(counts: PixelCounts) -> Tensor:
    """Return the background's intersection over union, TN / (TN + FN + FP), as float64; NaN without background."""
    has_background = (counts.true_negative + counts.false_positive).cpu() > 0
    return _ratio(counts.true_negative, counts.true_negative + counts.false_negative + counts.false_positive).where(
        has_background, torch.nan
    )


def mean_iou(counts: PixelCounts) -> Tensor:
    """Return the mean of the foreground's and the background's IoU as float64; NaN where one of them is."""
    return (iou(counts) + background_iou(counts)) / 2


def precision_recall_curve(histogram: PixelHistogram) -> PrecisionRecallCurve:
    """Return the pooled precision-recall curve at all thresholds; recall is NaN throughout without foreground."""
    counts = counts_by_threshold(histogram)
    return PrecisionRecallCurve(thresholds=thresholds(), precision=precision(counts), recall=recall(counts))


def best_dice_threshold(histogram: PixelHistogram) -> float:
    """Return the threshold with the highest pooled Dice; of equally good ones the median; NaN without foreground."""
    by_threshold = dice(counts_by_threshold(histogram))
    if by_threshold.isnan().any():
        return float("nan")
    best = (by_threshold == by_threshold.max()).nonzero().flatten()
    return int(best[(len(best) - 1) // 2]) / STEPS


def accuracy(*, preds: Tensor, target: Tensor) -> float:
    """Return the share of images classified rightly; NaN without images. Both int64 (N,), class indices."""
    _check_classes(preds=preds, target=target)
    return (preds == target).sum().item() / len(target) if len(target) else float("nan")


def balanced_accuracy(*, preds: Tensor, target: Tensor) -> float:
    """Return the mean over the classes that occur in `target` of the share classified rightly; NaN without images.

    Args:
        preds: int64 (N,), predicted class indices.
        target: int64 (N,), true class indices.
    """
    _check_classes(preds=preds, target=target)
    present = sorted(set(target.tolist()))
    shares = [accuracy(preds=preds[target == index], target=target[target == index]) for index in present]
    return sum(shares) / len(shares) if shares else float("nan")


def predicted_class_shares(*, preds: Tensor, classes: Sequence[str]) -> dict[str, float]:
    """Return the share of images predicted as each class, in the order of `classes`; NaN without images.

    Raises:
        ValueError: a predicted index (int64 (N,)) has no name.
    """
    if len(preds) == 0:
        return dict.fromkeys(classes, float("nan"))
    if int(preds.min()) < 0 or int(preds.max()) >= len(classes):
        raise ValueError(f"class indices must lie in 0..{len(classes) - 1}, got {int(preds.min())}..{int(preds.max())}")
    return {name: (preds == index).sum().item() / len(preds) for index, name in enumerate(classes)}


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Divide whole numbers as float64 (on the CPU, since not every device has it); 0 / 0 is NaN."""
    return numerator.cpu().double() / denominator.cpu().double()


def _has_foreground(counts: PixelCounts) -> Tensor:
    return (counts.true_positive + counts.false_negative).cpu() > 0


def _check_classes(*, preds: Tensor, target: Tensor) -> None:
    if preds.shape != target.shape or target.ndim != 1:
        raise ValueError(
            f"preds and target must be of one shape (N,), got {tuple(preds.shape)} and {tuple(target.shape)}"
        )
