"""Metrics against numbers worked out by hand and scikit-learn; what is undefined stays undefined."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pooling import update_histogram
from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score, jaccard_score
from torch import Tensor

from pipeline.metrics import curves, pixel_histogram
from pipeline.metrics.pixel_histogram import PixelHistogram
from pipeline.params.errors import PixelCAMError

CPU = torch.device("cpu")


def histogram_of(values: list[float], truth: list[int], ignore: list[int] | None = None) -> PixelHistogram:
    return update_histogram(
        pixel_histogram.empty_histogram(device=CPU),
        preds=torch.tensor(values, dtype=torch.float32),
        target=torch.tensor(truth, dtype=torch.bool),
        ignore=None if ignore is None else torch.tensor(ignore, dtype=torch.bool),
    )


def counts_of_images(
    *, preds: Tensor, target: Tensor, threshold: float, ignore: Tensor | None = None
) -> curves.PixelCounts:
    images = pixel_histogram.count_images(preds, target=target, ignore=ignore)
    histogram = PixelHistogram(foreground=images[:, 0], background=images[:, 1])
    return curves.counts_at(histogram, threshold=threshold)


def random_maps(seed: int, *, images: int = 3, size: int = 17) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(images, size, size, generator=generator) < 0.3
    noise = torch.rand(images, size, size, generator=generator)
    return (0.6 * noise + 0.4 * target * torch.rand(1, generator=generator)).clamp(0, 1), target


class TestHistogram:
    def test_a_value_on_a_threshold_lies_in_the_bin_its_decimal_says(self) -> None:
        decimals = [f"0.{step:03d}" for step in range(1000)] + ["1.000"]
        for step, decimal in enumerate(decimals):
            assert histogram_of([float(decimal)], [1]).foreground.nonzero().item() == step

    def test_values_next_to_a_threshold_lie_on_their_side_of_it(self) -> None:
        below = np.nextafter(np.float32(0.3), np.float32(0)).item()
        above = np.nextafter(np.float32(0.3), np.float32(1)).item()
        assert histogram_of([below, above], [0, 0]).background.nonzero().flatten().tolist() == [299, 300]

    def test_every_threshold_and_its_neighbours_are_binned_as_a_search_does(self) -> None:
        edges = pixel_histogram.thresholds().float()
        below, above = (torch.nextafter(edges, torch.tensor(end)) for end in (-1.0, 2.0))
        noise = torch.rand(100_000, generator=torch.Generator().manual_seed(0))
        values = torch.cat([edges, below[1:], above[:-1], noise])
        found = histogram_of(values.tolist(), [1] * len(values)).foreground
        assert torch.equal(found, torch.bincount(torch.bucketize(values, edges, right=True) - 1, minlength=1001))

    @pytest.mark.parametrize("piece", [10, 300, 600, 2**19])
    @pytest.mark.parametrize("with_ignore", [True, False])
    def test_each_image_has_its_own_pair(self, piece: int, with_ignore: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        preds, target = random_maps(0, images=20)  # of 289 pixels, and together more bins than fit in 16 bits
        ignore = preds < 0.2 if with_ignore else None
        monkeypatch.setattr(pixel_histogram, "PIECE", piece)
        found = pixel_histogram.count_images(preds, target=target, ignore=ignore)
        assert (found.shape, found.dtype) == ((20, 2, 1001), torch.int64)
        edges = np.append(pixel_histogram.thresholds().float().numpy(), np.float32(2))
        counts = torch.ones_like(target) if ignore is None else ~ignore
        for image, pair in enumerate(found):
            for truth, histogram in zip((True, False), pair, strict=True):
                pixels = preds[image][(target[image] == truth) & counts[image]].numpy()
                assert histogram.tolist() == np.histogram(pixels, bins=edges)[0].tolist()

    def test_no_image_has_no_pair(self) -> None:
        assert pixel_histogram.count_images(torch.zeros(0, 4, 4), target=torch.zeros(0, 4, 4) > 0).shape[0] == 0

    def test_pieces_are_pooled(self, monkeypatch: pytest.MonkeyPatch) -> None:
        preds, target = random_maps(0)
        arguments = {"preds": preds, "target": target, "ignore": preds < 0.1}
        empty = pixel_histogram.empty_histogram(device=CPU)
        whole = update_histogram(empty, **arguments)
        monkeypatch.setattr(pixel_histogram, "PIECE", 10)
        pieces = update_histogram(empty, **arguments)
        assert torch.equal(pieces.foreground, whole.foreground)
        assert torch.equal(pieces.background, whole.background)

    @pytest.mark.parametrize("with_ignore", [True, False])
    def test_counted_at_once_as_on_a_gpu_or_in_pieces_is_the_same(self, with_ignore: bool) -> None:
        preds, target = (each.flatten(1) for each in random_maps(1, images=4))
        ignore = preds < 0.2 if with_ignore else None
        at_once = pixel_histogram._count_at_once(preds, target, ignore)
        assert torch.equal(at_once, pixel_histogram.count_images(preds, target=target, ignore=ignore))
        with pytest.raises(PixelCAMError, match="in \\[0, 1\\]"):
            pixel_histogram._count_at_once(preds + 1, target, ignore)

    def test_of_maps_even_a_single_value_is_checked_and_none_is_fine(self) -> None:
        pixel_histogram.check_map_values(torch.zeros(0), slack=0)
        pixel_histogram.check_map_values(torch.tensor([1.25]), slack=0.25)
        for value in (1.5, -0.5, math.nan):
            with pytest.raises(PixelCAMError, match="map values"):
                pixel_histogram.check_map_values(torch.tensor([value]), slack=0.25)

    def test_only_one_lies_in_the_last_bin(self) -> None:
        almost = np.nextafter(np.float32(1), np.float32(0)).item()
        assert histogram_of([almost, 1.0], [1, 1]).foreground[-2:].tolist() == [1, 1]

    def test_float64_maps_are_binned_alike(self) -> None:
        values = torch.arange(1001, dtype=torch.float64) / 1000
        target = torch.ones(1001, dtype=torch.bool)
        histogram = update_histogram(pixel_histogram.empty_histogram(device=CPU), preds=values, target=target)
        assert histogram.foreground.tolist() == [1] * 1001

    def test_updates_add_up_and_leave_what_was_given(self) -> None:
        preds, target = random_maps(0)
        first = update_histogram(pixel_histogram.empty_histogram(device=CPU), preds=preds[:2], target=target[:2])
        before = first.foreground.clone()
        both = update_histogram(first, preds=preds[2:], target=target[2:])
        at_once = update_histogram(pixel_histogram.empty_histogram(device=CPU), preds=preds, target=target)
        assert torch.equal(first.foreground, before)
        assert torch.equal(both.foreground, at_once.foreground)
        assert torch.equal(both.background, at_once.background)
        assert both.foreground.dtype == torch.int64
        assert int(both.foreground.sum() + both.background.sum()) == preds.numel()

    def test_ignored_pixels_do_not_count(self) -> None:
        histogram = histogram_of([0.2, 0.4, 0.6, 0.8], [0, 1, 0, 1], ignore=[0, 0, 1, 1])
        assert histogram.foreground.nonzero().flatten().tolist() == [400]
        assert histogram.background.nonzero().flatten().tolist() == [200]

    def test_nothing_is_counted_where_all_is_ignored(self) -> None:
        assert int(histogram_of([0.2], [1], ignore=[1]).foreground.sum()) == 0

    @pytest.mark.parametrize("value", [-0.001, 1.001, math.nan, math.inf])
    def test_values_outside_the_scale_are_refused(self, value: float) -> None:
        with pytest.raises(PixelCAMError, match=r"\[0, 1\]"):
            histogram_of([0.5, value], [0, 1])

    def test_a_mask_that_is_not_bool_is_refused(self) -> None:
        empty = pixel_histogram.empty_histogram(device=CPU)
        with pytest.raises(ValueError, match="target must be bool"):
            update_histogram(empty, preds=torch.zeros(2), target=torch.zeros(2))

    def test_maps_of_whole_numbers_are_refused(self) -> None:
        ones = torch.ones(1, 2, 2, dtype=torch.int64)
        with pytest.raises(ValueError, match="floating point"):
            pixel_histogram.count_images(ones, target=ones > 0)

    def test_a_mask_of_another_shape_is_refused(self) -> None:
        empty = pixel_histogram.empty_histogram(device=CPU)
        with pytest.raises(ValueError, match="target must be bool"):
            update_histogram(empty, preds=torch.zeros(2, 2), target=torch.zeros(2, dtype=torch.bool))


class TestPxap:
    def test_by_hand(self) -> None:
        # At 0.9: precision 1, recall 1/2. At 0.5: nothing gained. At 0.2: precision 2/3, recall 1.
        assert pixel_histogram.pxap(histogram_of([0.9, 0.5, 0.2, 0.1], [1, 0, 1, 0])) == pytest.approx(
            0.5 + 0.5 * 2 / 3
        )

    @pytest.mark.parametrize("seed", range(5))
    def test_is_average_precision_on_quantized_maps(self, seed: int) -> None:
        preds, target = random_maps(seed)
        quantized = (preds * 1000).floor() / 1000
        histogram = update_histogram(pixel_histogram.empty_histogram(device=CPU), preds=quantized, target=target)
        expected = average_precision_score(target.flatten().numpy(), quantized.flatten().numpy())
        assert pixel_histogram.pxap(histogram) == pytest.approx(expected, abs=1e-12)

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 1000), st.booleans()), min_size=1, max_size=40))
    def test_is_average_precision_on_any_pixels(self, pixels: list[tuple[int, bool]]) -> None:
        values = [step / 1000 for step, _ in pixels]
        truth = [int(foreground) for _, foreground in pixels]
        result = pixel_histogram.pxap(histogram_of(values, truth))
        if sum(truth) == 0:
            assert math.isnan(result)
        else:
            assert result == pytest.approx(average_precision_score(truth, values), abs=1e-12)

    @pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
    def test_a_constant_map_scores_the_share_of_foreground(self, value: float) -> None:
        assert pixel_histogram.pxap(histogram_of([value] * 4, [1, 0, 0, 0])) == 0.25

    def test_a_perfect_map_scores_one(self) -> None:
        assert pixel_histogram.pxap(histogram_of([1.0, 1.0, 0.0], [1, 1, 0])) == 1.0

    def test_is_undefined_without_foreground(self) -> None:
        assert math.isnan(pixel_histogram.pxap(histogram_of([0.1, 0.9], [0, 0])))

    def test_is_undefined_without_pixels(self) -> None:
        assert math.isnan(pixel_histogram.pxap(pixel_histogram.empty_histogram(device=CPU)))


class TestCurve:
    def test_by_hand(self) -> None:
        curve = curves.precision_recall_curve(histogram_of([0.9, 0.5, 0.2, 0.1], [1, 0, 1, 0]))
        at = {round(t, 3): i for i, t in enumerate(curve.thresholds.tolist())}
        assert curve.precision[at[0.0]].item() == 0.5
        assert curve.recall[at[0.0]].item() == 1.0
        assert curve.precision[at[0.2]].item() == pytest.approx(2 / 3)
        assert curve.recall[at[0.201]].item() == 0.5
        assert curve.precision[at[0.9]].item() == 1.0
        assert math.isnan(curve.precision[at[0.901]].item())
        assert curve.recall[at[0.901]].item() == 0.0

    def test_recall_is_undefined_without_foreground(self) -> None:
        curve = curves.precision_recall_curve(histogram_of([0.5], [0]))
        assert bool(curve.recall.isnan().all())


class TestDiceAndIoU:
    def test_by_hand(self) -> None:
        # At 0.5: TP 1 (0.9), FP 1 (0.5), FN 1 (0.2), TN 1 (0.1).
        counts = curves.counts_at(histogram_of([0.9, 0.5, 0.2, 0.1], [1, 0, 1, 0]), threshold=0.5)
        assert [int(part) for part in vars(counts).values()] == [1, 1, 1, 1]
        assert curves.dice(counts).item() == 0.5
        assert curves.iou(counts).item() == pytest.approx(1 / 3)

    @pytest.mark.parametrize("threshold", [0.0, 0.3, 0.4, 1.0])
    def test_per_image_agrees_with_scikit_learn(self, threshold: float) -> None:
        preds, target = random_maps(7)
        counts = counts_of_images(preds=preds, target=target, threshold=threshold)
        for index in range(len(preds)):
            positive = (preds[index].double() >= threshold).flatten().numpy()
            truth = target[index].flatten().numpy()
            assert curves.dice(counts)[index].item() == pytest.approx(f1_score(truth, positive))
            assert curves.iou(counts)[index].item() == pytest.approx(jaccard_score(truth, positive))

    @pytest.mark.parametrize("threshold", [0.0, 0.25, 0.3, 0.7, 1.0])
    def test_images_add_up_to_the_pool(self, threshold: float) -> None:
        preds, target = random_maps(3)
        preds[0, 0, :3] = torch.tensor([0.0, 0.3, 1.0])
        ignore = torch.rand(preds.shape, generator=torch.Generator().manual_seed(1)) < 0.2
        histogram = update_histogram(
            pixel_histogram.empty_histogram(device=CPU), preds=preds, target=target, ignore=ignore
        )
        pooled = curves.counts_at(histogram, threshold=threshold)
        images = counts_of_images(preds=preds, target=target, threshold=threshold, ignore=ignore)
        assert images.true_positive.sum() == pooled.true_positive
        assert images.false_positive.sum() == pooled.false_positive
        assert images.false_negative.sum() == pooled.false_negative
        assert images.true_negative.sum() == pooled.true_negative

    @pytest.mark.parametrize("threshold", [0.0, 0.3, 1.0])
    def test_iou_of_both_sides_agrees_with_scikit_learn(self, threshold: float) -> None:
        preds, target = random_maps(5)
        counts = counts_of_images(preds=preds, target=target, threshold=threshold)
        for index in range(len(preds)):
            positive = (preds[index].double() >= threshold).flatten().numpy()
            truth = target[index].flatten().numpy()
            both = jaccard_score(truth, positive, average=None, labels=[False, True])
            assert curves.background_iou(counts)[index].item() == pytest.approx(both[0])
            assert curves.mean_iou(counts)[index].item() == pytest.approx(both.mean())

    def test_mean_iou_is_undefined_where_one_side_is(self) -> None:
        preds = torch.tensor([[[0.9, 0.1]], [[0.9, 0.1]]])
        target = torch.tensor([[[False, False]], [[True, True]]])
        counts = counts_of_images(preds=preds, target=target, threshold=0.5)
        assert curves.background_iou(counts)[0].item() == 0.5
        assert bool(curves.background_iou(counts)[1].isnan())
        assert bool(curves.mean_iou(counts).isnan().all())

    def test_are_undefined_without_foreground_whatever_is_predicted(self) -> None:
        preds = torch.tensor([[[0.9, 0.9]], [[0.1, 0.1]]])
        counts = counts_of_images(preds=preds, target=torch.zeros(2, 1, 2, dtype=torch.bool), threshold=0.5)
        assert counts.false_positive.tolist() == [2, 0]
        assert bool(curves.dice(counts).isnan().all())
        assert bool(curves.iou(counts).isnan().all())

    def test_are_zero_where_all_foreground_is_missed(self) -> None:
        counts = curves.counts_at(histogram_of([0.1, 0.9], [1, 0]), threshold=1.0)
        assert curves.dice(counts).item() == 0.0
        assert curves.iou(counts).item() == 0.0

    @pytest.mark.parametrize("threshold", [-0.001, 1.001, 0.0005, math.pi / 10])
    def test_a_threshold_off_the_grid_is_refused(self, threshold: float) -> None:
        with pytest.raises(ValueError, match="threshold must be a multiple"):
            curves.counts_at(pixel_histogram.empty_histogram(device=CPU), threshold=threshold)


class TestBestDiceThreshold:
    def test_by_hand(self) -> None:
        # Cuts: all, 2 of 4 right: Dice 2/3. Above 0.1: 4/5, the best. Above 0.2: 1/2.
        threshold = curves.best_dice_threshold(histogram_of([0.9, 0.5, 0.2, 0.1], [1, 0, 1, 0]))
        assert threshold == 0.15  # the median of 0.101, ..., 0.2, rounded down

    def test_is_the_middle_for_a_map_of_two_values(self) -> None:
        assert curves.best_dice_threshold(histogram_of([0.0, 1.0], [0, 1])) == 0.5

    @pytest.mark.parametrize("seed", range(3))
    def test_no_other_threshold_is_better(self, seed: int) -> None:
        preds, target = random_maps(seed)
        histogram = update_histogram(pixel_histogram.empty_histogram(device=CPU), preds=preds, target=target)
        best = curves.dice(curves.counts_at(histogram, threshold=curves.best_dice_threshold(histogram))).item()
        truth = target.flatten().numpy()
        every = [f1_score(truth, (preds >= step / 1000).flatten().numpy()) for step in range(0, 1001, 25)]
        assert best >= max(every) - 1e-12

    def test_is_undefined_without_foreground(self) -> None:
        assert math.isnan(curves.best_dice_threshold(histogram_of([0.5], [0])))


class TestClassification:
    def test_accuracy_by_hand(self) -> None:
        assert curves.accuracy(preds=torch.tensor([0, 1, 1, 0]), target=torch.tensor([0, 1, 0, 0])) == 0.75

    @pytest.mark.parametrize("seed", range(3))
    def test_balanced_accuracy_agrees_with_scikit_learn(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        target = torch.cat([torch.zeros(20), torch.ones(5), torch.full((3,), 2)]).long()
        preds = torch.randint(0, 3, target.shape, generator=generator)
        expected = balanced_accuracy_score(target.numpy(), preds.numpy())
        assert curves.balanced_accuracy(preds=preds, target=target) == pytest.approx(expected)

    def test_balanced_accuracy_leaves_out_classes_without_images(self) -> None:
        assert curves.balanced_accuracy(preds=torch.tensor([0, 1, 2]), target=torch.tensor([0, 0, 2])) == 0.75

    def test_are_undefined_without_images(self) -> None:
        none = torch.zeros(0, dtype=torch.int64)
        assert math.isnan(curves.accuracy(preds=none, target=none))
        assert math.isnan(curves.balanced_accuracy(preds=none, target=none))
        shares = curves.predicted_class_shares(preds=none, classes=["benign", "malignant"])
        assert list(shares) == ["benign", "malignant"]
        assert all(math.isnan(share) for share in shares.values())

    def test_shapes_must_agree(self) -> None:
        with pytest.raises(ValueError, match="one shape"):
            curves.accuracy(preds=torch.tensor([0, 1]), target=torch.tensor([0]))

    def test_predicted_classes_are_named_in_order(self) -> None:
        shares = curves.predicted_class_shares(preds=torch.tensor([1, 1, 0, 1]), classes=["benign", "malignant", "x"])
        assert list(shares.items()) == [("benign", 0.25), ("malignant", 0.75), ("x", 0.0)]

    def test_a_class_without_name_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"0\.\.1"):
            curves.predicted_class_shares(preds=torch.tensor([2]), classes=["benign", "malignant"])
