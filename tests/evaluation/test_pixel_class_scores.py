"""Scores of pixels by class: which pixels count and as what, with and without maps of classes, by hand."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from pipeline.data.maps import EvaluationBatch, Localization
from pipeline.evaluation.domain_scores import Resampling
from pipeline.evaluation.localizers import EvaluationDomain, evaluate_domain, localize
from pipeline.metrics.scores import Evaluation, Fitted, ModelName, Threshold, ThresholdSource

CPU = torch.device("cpu")
CLASSES = ("benign", "malignant", "adenoma")


class Said:
    """Says of images what their pixels hold: red the first class's map, green the second's, blue the third's.

    The image head says the last class.
    """

    def __init__(self, *, with_classes: bool) -> None:
        self.with_classes = with_classes

    def __call__(self, images: Tensor, class_idx: Tensor) -> Localization:
        del class_idx
        logits = torch.tensor([[0.0, 0.0, 1.0]]).expand(len(images), 3)
        return Localization(logits, images.sum(dim=1), images if self.with_classes else None)


def batch_of(
    maps: Sequence[Sequence[Sequence[float]]],
    *,
    class_idx: Sequence[int],
    masks: Sequence[Sequence[int]],
    has_mask: Sequence[bool] | None = None,
    ignore: Sequence[Sequence[int]] | None = None,
    start: int = 0,
) -> EvaluationBatch:
    """Make a batch of 2x2 images from four values of each class's map, and four mask pixels, each."""
    count = len(maps)
    return EvaluationBatch(
        image_ids=tuple(f"{start + number}.png" for number in range(count)),
        images=torch.tensor(maps).view(count, 3, 2, 2),
        class_idx=torch.tensor(class_idx),
        masks=torch.tensor(masks, dtype=torch.bool).view(count, 2, 2),
        has_mask=torch.tensor(has_mask or [True] * count),
        ignore=None if ignore is None else torch.tensor(ignore, dtype=torch.bool).view(count, 2, 2),
    )


def evaluate(
    *batches: EvaluationBatch, with_classes: bool = True, background_class_idx: int | None = None
) -> Evaluation:
    (found,) = evaluate_domain(
        {ModelName.PIXELCAM: Said(with_classes=with_classes)},
        EvaluationDomain(name="colon", classes=CLASSES, batches=batches, background_class_idx=background_class_idx),
        fitted={ModelName.PIXELCAM: Fitted(Threshold(0.5, ThresholdSource.VALIDATION), math.nan)},
        map_size=2,
        resampling=Resampling(100, 0),
        device=CPU,
    )
    return found


def known(values: dict[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in values.items()}


# Pixel by pixel: benign found, benign too weak alone but not with others, adenoma where it is malignant, nothing.
FIRST = batch_of(
    [
        [[0.6, 0.3, 0.0, 0.1], [0.0, 0.2, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]],
        [[0.0, 0.0, 0.0, 0.0], [0.2, 0.9, 0.0, 0.0], [0.4, 0.0, 0.2, 0.0]],
    ],
    class_idx=[0, 1],
    masks=[[1, 1, 0, 0], [1, 1, 1, 0]],
)


def test_each_pixel_has_the_class_whose_map_is_highest_where_all_together_reach_the_threshold() -> None:
    scores = evaluate(FIRST).scores
    # Of benign pixels both are found. Of three malignant ones one is found, one called adenoma, one background.
    # Three background pixels are background, which the third malignant one is taken for as well.
    assert known(scores.class_iou) == {"benign": 1.0, "malignant": 1 / 3, "adenoma": None, "background": 3 / 4}
    assert scores.mean_iou_over_classes == pytest.approx((1 + 1 / 3 + 3 / 4) / 3)


def test_without_maps_of_classes_a_pixel_has_the_class_of_its_image() -> None:
    found = evaluate(FIRST, with_classes=False)
    assert known(found.scores.class_iou) == {"benign": 0.0, "malignant": 0.0, "adenoma": None, "background": 3 / 4}
    assert found.scores.mean_iou_over_classes == 1 / 4
    assert math.isnan(found.scores.accuracy_by_pixels)
    assert found.images["by_pixels_idx"].tolist() == [-1, -1]


def test_pixels_to_be_ignored_and_images_without_a_mask_count_nowhere() -> None:
    third = batch_of(
        [[[0.0] * 4, [0.0] * 4, [0.9, 0.9, 0.1, 0.9]], [[0.9] * 4, [0.0] * 4, [0.0] * 4]],
        class_idx=[2, 2],
        masks=[[1, 0, 0, 0], [1, 1, 1, 1]],
        has_mask=[True, False],
        ignore=[[0, 1, 0, 0], [0, 0, 0, 0]],
        start=2,
    )
    scores = evaluate(FIRST, third).scores
    # One adenoma pixel is found, and one of background taken for it, beside the one that truly is malignant.
    assert known(scores.class_iou) == {"benign": 1.0, "malignant": 1 / 3, "adenoma": 1 / 3, "background": 4 / 6}


def test_the_two_ways_to_count_agree_on_maps_that_are_of_the_image_heads_class() -> None:
    batch = batch_of(
        [[[0.0] * 4, [0.0] * 4, [0.6, 0.5, 0.4, 0.1]], [[0.0] * 4, [0.0] * 4, [0.9, 0.2, 0.9, 0.9]]],
        class_idx=[2, 1],
        masks=[[1, 0, 1, 0], [1, 1, 0, 0]],
        ignore=[[0, 0, 0, 1], [0, 0, 1, 0]],
    )
    one, other = (evaluate(batch, with_classes=with_classes).scores for with_classes in (True, False))
    assert known(one.class_iou) == known(other.class_iou)
    assert known(one.class_iou) == {"benign": None, "malignant": 0.0, "adenoma": 1 / 5, "background": 0.0}


def test_images_are_classified_by_the_sum_over_their_pixels() -> None:
    found = evaluate(FIRST)
    assert found.images["by_pixels_idx"].tolist() == [0, 1]
    assert (found.scores.accuracy_by_pixels, found.scores.accuracy) == (1.0, 0.0)
    sums = batch_of([[[0.7, 0.0, 0.0, 0.0], [0.3] * 4, [0.0] * 4]], class_idx=[0], masks=[[1, 0, 0, 0]])
    assert evaluate(sums).scores.accuracy_by_pixels == 0.0, "one strong pixel of benign against four of malignant"


def test_an_image_without_pixels_is_of_the_class_that_has_none() -> None:
    nothing = batch_of(
        [[[0.1] * 4, [0.3] * 4, [0.0] * 4], [[0.1] * 4, [0.3] * 4, [0.1] * 4]],
        class_idx=[0, 0],
        masks=[[0] * 4, [0] * 4],
    )
    found = evaluate(nothing, background_class_idx=0)
    assert found.images["by_pixels_idx"].tolist() == [0, 1], "0.4 is below the threshold, 0.5 is not"
    assert found.scores.accuracy_by_pixels == 0.5
    assert math.isnan(found.scores.mean_iou_over_classes)


def test_maps_of_classes_are_brought_to_the_size_of_the_scores() -> None:
    found = localize(Said(with_classes=True), FIRST, map_size=4, device=CPU)
    assert found.class_maps is not None
    assert found.class_maps.shape == (2, 3, 4, 4)
    torch.testing.assert_close(found.class_maps.sum(dim=1), found.maps)
    assert found.class_maps[0, 0, 0].tolist() == pytest.approx([0.6, 0.525, 0.375, 0.3])
