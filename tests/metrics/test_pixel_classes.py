"""Pixels by class: IoU by hand and against scikit-learn, and which class an image's pixels speak for."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, jaccard_score

from pipeline.metrics.curves import PixelCounts
from pipeline.metrics.pixel_classes import (
    ClassReading,
    class_ious,
    classify_by_pixels,
    confusion_of_images,
    count_confusion,
    mean_iou_over_classes,
    read_classes,
)


def reading(sums: list[list[float]], highest: list[float]) -> ClassReading:
    return ClassReading(
        best=np.zeros((len(sums), 1, 1), dtype=np.int64),
        sums=np.array(sums, dtype=np.float64),
        highest=np.array(highest, dtype=np.float32),
    )


def test_confusion_and_iou_are_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    target, preds = generator.integers(0, 4, 500), generator.integers(0, 4, 500)
    found = count_confusion(preds=preds, target=target, classes=3)
    assert found.tolist() == confusion_matrix(target, preds, labels=range(4)).tolist()
    expected = jaccard_score(target, preds, labels=range(4), average=None)
    assert class_ious(found).tolist() == pytest.approx(expected.tolist())
    assert mean_iou_over_classes(found) == pytest.approx(jaccard_score(target, preds, average="macro"))


def test_iou_of_six_pixels_by_hand() -> None:
    preds, target = np.array([0, 0, 1, 1, 2, 1]), np.array([0, 1, 1, 2, 2, 0])
    found = count_confusion(preds=preds, target=target, classes=2)
    assert found.tolist() == [[1, 1, 0], [1, 1, 0], [0, 1, 1]]
    assert class_ious(found).tolist() == [1 / 3, 1 / 4, 1 / 2]
    assert mean_iou_over_classes(found) == pytest.approx(13 / 36)


def test_a_class_without_pixels_has_no_iou_and_what_is_taken_for_it_is_missing_elsewhere() -> None:
    found = count_confusion(preds=np.array([0, 2, 1, 2]), target=np.array([0, 0, 1, 1]), classes=2)
    assert class_ious(found)[:2].tolist() == [1 / 2, 1 / 2]
    assert math.isnan(class_ious(found)[2])
    assert mean_iou_over_classes(found) == 1 / 2


def test_images_of_one_class_each_are_counted_as_their_pixels_are() -> None:
    generator = np.random.default_rng(0)
    true, predicted = generator.random((5, 60)) < 0.4, generator.random((5, 60)) < 0.5
    of_image, taken_for = np.array([0, 2, 1, 2, 0]), np.array([0, 1, 1, 2, 2])
    counts = PixelCounts(
        true_positive=torch.from_numpy((true & predicted).sum(axis=1)),
        false_positive=torch.from_numpy((~true & predicted).sum(axis=1)),
        false_negative=torch.from_numpy((true & ~predicted).sum(axis=1)),
        true_negative=torch.from_numpy((~true & ~predicted).sum(axis=1)),
    )
    found = confusion_of_images(counts, preds=taken_for, target=of_image, classes=3)
    pixels = count_confusion(
        preds=np.where(predicted, 1 + taken_for[:, None], 0).ravel(),
        target=np.where(true, 1 + of_image[:, None], 0).ravel(),
        classes=3,
    )
    assert found.tolist() == pixels.tolist()


@pytest.mark.parametrize("target", [[], [0, 0]])
def test_without_foreground_there_is_no_mean(target: list[int]) -> None:
    pixels = np.array(target, dtype=np.int64)
    assert math.isnan(mean_iou_over_classes(count_confusion(preds=pixels, target=pixels, classes=2)))


def test_an_image_is_of_the_class_with_the_greatest_sum_of_equal_ones_the_first() -> None:
    found = classify_by_pixels(
        reading([[1, 3, 2], [2, 1, 2], [0, 0, 0]], [0.1, 0.9, 0.0]), threshold=0.5, background_class_idx=None
    )
    assert found.tolist() == [1, 0, 0]
    assert found.dtype == np.int64


def test_an_image_is_of_the_class_without_region_when_no_pixel_reaches_the_threshold_and_never_else() -> None:
    said = reading([[1, 3, 2]] * 3, [0.29, 0.3, 0.9])  # of float32, where 0.3 is another number than in float64
    assert classify_by_pixels(said, threshold=0.3, background_class_idx=0).tolist() == [0, 1, 1]
    assert classify_by_pixels(said, threshold=0.3, background_class_idx=1).tolist() == [1, 2, 2]


def test_what_is_kept_of_maps_by_hand() -> None:
    class_maps = torch.tensor([[[[0.25, 0.5]], [[0.25, 0.125]]]])  # of equal ones the first
    found = read_classes(class_maps, maps=class_maps.sum(dim=1))
    assert found.best.tolist() == [[[0, 0]]]
    assert found.sums.tolist() == [[0.75, 0.375]]
    assert found.highest.tolist() == [0.625]
    assert read_classes(class_maps.flip(1), maps=class_maps.sum(dim=1)).best.tolist() == [[[0, 1]]]
