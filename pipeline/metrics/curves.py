"""Scores as pure functions: counts of pixels, and areas under curves, exact also where values are tied.

Where a figure is not defined (no foreground pixel, no image) it is NaN, never a number that looks like a score.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.metrics.pixel_histogram import STEPS, PixelHistogram, at_least, thresholds


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


def average_precision(*, preds: NDArray[np.floating], target: NDArray[np.bool_]) -> float:
    """Return the sum over distinct values of precision times the recall gained there; NaN without a positive.

    Args:
        preds: any shape, higher is more likely positive; no NaN.
        target: the same shape, True is positive.
    """
    positives, negatives = _by_value(preds, target)
    if positives.sum() == 0:
        return float("nan")
    true_positive, false_positive = (part[::-1].cumsum()[::-1] for part in (positives, negatives))
    precision = true_positive / (true_positive + false_positive)  # each distinct value occurs, so never 0 / 0
    return float((precision * positives).sum() / positives.sum())


def average_precisions(*, preds: Tensor, target: Tensor) -> Tensor:
    """Return `average_precision` of each row, float64 (B,), all at once on their device, which must have float64.

    Args:
        preds: floating point (B, N); no NaN.
        target: bool (B, N), True is positive. A value that is not to count goes below all others, with False.
    """
    values, order = preds.sort(dim=1, descending=True)
    true_positive = target.gather(1, order).cumsum(dim=1)
    last = torch.ones_like(target)  # of equal values the last alone tells what all of them give
    last[:, :-1] = values[:, :-1] != values[:, 1:]
    before = torch.zeros_like(true_positive)
    before[:, 1:] = torch.where(last, true_positive, 0).cummax(dim=1).values[:, :-1]
    predicted = torch.arange(1, values.shape[1] + 1, device=values.device)
    gained = torch.where(last, true_positive - before, 0).double()
    return (gained * true_positive / predicted).sum(dim=1) / gained.sum(dim=1)  # 0 / 0 is NaN


def area_under_roc(*, preds: NDArray[np.floating], target: NDArray[np.bool_]) -> float:
    """Return the chance that a positive has a higher value than a negative, ties counting half.

    NaN without a positive or without a negative. Arguments as `average_precision`.
    """
    return _area_under_roc(*_by_value(preds, target))


def pooled_area_under_roc(histogram: PixelHistogram) -> float:
    """Return the AUROC of pooled pixels, exact for maps quantized to 0.001; NaN without foreground or background."""
    return _area_under_roc(histogram.foreground.cpu().numpy(), histogram.background.cpu().numpy())


def _area_under_roc(positives: NDArray[np.int64], negatives: NDArray[np.int64]) -> float:
    """Return the AUROC from the number of positives and of negatives at each value, ascending."""
    pairs = float(positives.sum()) * float(negatives.sum())
    if pairs == 0:
        return float("nan")
    lower = negatives.cumsum() - negatives
    return float((positives * (lower + negatives / 2)).sum() / pairs)


def _by_value(preds: NDArray[np.floating], target: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count positives and negatives at each distinct value, ascending."""
    if preds.shape != target.shape or target.dtype != np.bool_:
        raise ValueError(f"target must be bool {preds.shape} like preds, got {target.dtype} {target.shape}")
    values, truth = preds.ravel(), target.ravel()
    order = np.argsort(values)
    values, truth = values[order], truth[order]
    last = np.flatnonzero(np.append(values[1:] != values[:-1], [True] * bool(values.size)))
    counts = np.diff(last, prepend=-1)
    positives = np.diff(truth.cumsum(dtype=np.int64)[last], prepend=0)
    return positives, counts - positives
