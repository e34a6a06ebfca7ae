"""Pixels told apart by image class: their pooled confusion, the IoU of each class, and images classified by pixels.

A pixel class is 0 for background, or 1 + the index of an image class.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.metrics.curves import PixelCounts

Counts = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassReading:
    """What is kept of the maps of classes, in main memory.

    Attributes:
        best: int64 (B, H, W), the index of the class whose map is highest at each pixel; of equal ones the first.
        sums: float64 (B, K), each class's map summed over all pixels.
        highest: float32 (B,), the highest value of the map of all classes together.
    """

    best: NDArray[np.int64]
    sums: NDArray[np.float64]
    highest: NDArray[np.float32]


def read_classes(class_maps: Tensor, *, maps: Tensor) -> ClassReading:
    """Read what is kept of maps of classes, float (B, K, H, W), and of the map of all together, float (B, H, W)."""
    return ClassReading(
        best=class_maps.argmax(dim=1).cpu().numpy(),
        sums=class_maps.sum(dim=(2, 3), dtype=torch.float64).cpu().numpy(),
        highest=maps.amax(dim=(1, 2)).cpu().numpy(),
    )


def count_confusion(*, preds: NDArray[np.int64], target: NDArray[np.int64], classes: int) -> Counts:
    """Count pixels by true and predicted pixel class.

    Args:
        preds: pixel classes (N,).
        target: pixel classes (N,).
        classes: how many image classes there are, K.

    Returns:
        int64 (1 + K, 1 + K), the true pixel class before the predicted one.
    """
    cells = np.bincount(target * (1 + classes) + preds, minlength=(1 + classes) ** 2)
    return cells.reshape(1 + classes, 1 + classes)


def confusion_of_images(
    counts: PixelCounts, *, preds: NDArray[np.int64], target: NDArray[np.int64], classes: int
) -> Counts:
    """Return what `count_confusion` gives where all foreground of an image is of one class, from counts of pixels.

    Args:
        counts: pixels of each image by truth and prediction, all (B,).
        preds: the image class (B,) that predicted foreground is taken for.
        target: the image class (B,) that foreground truly is of.
        classes: how many image classes there are, K.
    """
    cells = np.zeros((1 + classes) ** 2, dtype=np.int64)
    row = (1 + target) * (1 + classes)  # of the true class; background's is 0
    for cell, pixels in (
        (row + 1 + preds, counts.true_positive),
        (row, counts.false_negative),
        (1 + preds, counts.false_positive),
        (np.zeros_like(row), counts.true_negative),
    ):
        np.add.at(cells, cell, pixels.numpy())
    return cells.reshape(1 + classes, 1 + classes)


def class_ious(confusion: Counts) -> NDArray[np.float64]:
    """Return TP / (TP + FP + FN) of each pixel class, float64 (1 + K,); NaN where no pixel truly is of it."""
    true, shared = confusion.sum(axis=1), confusion.diagonal()
    either = true + confusion.sum(axis=0) - shared
    return np.where(true > 0, shared / np.maximum(either, 1), np.nan)


def mean_iou_over_classes(confusion: Counts) -> float:
    """Return the mean of the IoU of background and of the classes that have pixels; NaN without any foreground."""
    return float(np.nanmean(class_ious(confusion))) if confusion[1:].any() else float("nan")


def classify_by_pixels(
    reading: ClassReading, *, threshold: float, background_class_idx: int | None
) -> NDArray[np.int64]:
    """Return the image class that the pixels of each image speak for, int64 (B,).

    It is the class with the greatest sum over all pixels, of equal ones the first. A class without region of interest
    has no pixels of its own: an image is of it when no pixel reaches the threshold, and never else.

    Args:
        reading: of the maps of classes.
        threshold: where maps become regions.
        background_class_idx: the class whose images hold no region of interest, if there is one.
    """
    sums = reading.sums.copy()
    if background_class_idx is not None:
        empty = reading.highest < np.float32(threshold)
        sums[:, background_class_idx] = np.where(empty, np.inf, -np.inf)
    return np.asarray(sums.argmax(axis=1), dtype=np.int64)
