"""Areas under curves over every distinct value, exact also where values are tied: average precision and AUROC."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.pixel_histogram import PixelHistogram


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
