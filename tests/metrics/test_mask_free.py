"""The correction and the threshold that no mask is looked at for: by hand, at the edges, and against brute force."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from pipeline.metrics import pixel_histogram
from pipeline.metrics.curves import best_dice_threshold, counts_at
from pipeline.metrics.mask_free import (
    Correction,
    count_unlabelled,
    counts_at_own_thresholds,
    expected_dice,
    fit_correction,
    mask_free_threshold,
    score_own_thresholds,
)
from pipeline.metrics.pixel_histogram import HistogramRows, PixelHistogram
from pipeline.metrics.reliability import pixel_calibration_error, reliability_bins

EMPTY = pixel_histogram.empty_histogram(device=torch.device("cpu"))
MIDDLES = (np.arange(1001) + 0.5) / 1001
AS_IT_IS = Correction(temperature=1.0, shift=0.0)


def histogram_of(counts: dict[int, int]) -> PixelHistogram:
    """Return a histogram with so many pixels in each bin, none of them known to be foreground."""
    background = torch.zeros(1001, dtype=torch.int64)
    for index, count in counts.items():
        background[index] = count
    return PixelHistogram(foreground=torch.zeros(1001, dtype=torch.int64), background=background)


def fit(histogram: PixelHistogram, *, share: float = 0.5, temperature: float = 1.0) -> Correction:
    correction = fit_correction(histogram, foreground_share=share, temperature=temperature)
    assert correction is not None
    return correction


def test_a_constant_map_is_shifted_to_the_presumed_share() -> None:
    correction = fit(histogram_of({200: 7}), share=0.75, temperature=2.0)
    assert correction.shift == pytest.approx(math.log(3) - float(logit(MIDDLES[200])) / 2)
    assert correction.values()[200].item() == pytest.approx(0.75)


def test_two_values_by_hand() -> None:
    # Logits x and y of half the pixels each are symmetric about 0 once their mean is taken away.
    low, high = (float(logit(MIDDLES[index])) for index in (100, 400))
    correction = fit(histogram_of({100: 5, 400: 5}), temperature=2.0)
    assert correction.shift == pytest.approx(-(low + high) / 4)
    assert correction.values()[[100, 400]].sum().item() == pytest.approx(1)


def test_expected_dice_by_hand() -> None:
    # 2 pixels of 0.9 and 3 of 0.2 or nearly so: 2.4 expected foreground pixels.
    high, low = MIDDLES[900], MIDDLES[200]
    expected = expected_dice(histogram_of({900: 2, 200: 3}), correction=AS_IT_IS)
    foreground = 2 * high + 3 * low
    assert expected[900].item() == pytest.approx(2 * 2 * high / (2 + foreground))
    assert expected[200].item() == pytest.approx(2 * foreground / (5 + foreground))
    assert expected[901].item() == 0
    assert mask_free_threshold(histogram_of({900: 2, 200: 3}), correction=AS_IT_IS) == 0.9


def test_without_pixels_there_is_none() -> None:
    assert fit_correction(EMPTY, foreground_share=0.5, temperature=2.0) is None


@pytest.mark.parametrize("index", [0, 300, 1000])
def test_a_constant_map_is_foreground_everywhere(index: int) -> None:
    histogram = histogram_of({index: 9})
    assert mask_free_threshold(histogram, correction=fit(histogram)) == index / 1000


@pytest.mark.parametrize("share", [1e-12, 0.5, 1 - 1e-12])
@pytest.mark.parametrize("temperature", [0.1, 10.0])
def test_every_share_is_reached(share: float, temperature: float) -> None:
    correction = fit(histogram_of({0: 1, 1000: 1}), share=share, temperature=temperature)
    assert correction.values()[[0, 1000]].mean().item() == pytest.approx(share, rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.integers(0, 1000), st.integers(1, 50), min_size=1, max_size=20),
    st.floats(0.05, 0.95),
    st.floats(0.2, 5),
)
def test_is_what_brute_force_finds(counts: dict[int, int], share: float, temperature: float) -> None:
    histogram = histogram_of(counts)
    correction = fit(histogram, share=share, temperature=temperature)
    pixels = np.repeat(sorted(counts), [counts[index] for index in sorted(counts)])
    said = expit(logit(MIDDLES[pixels]) / temperature + correction.shift)
    assert said.mean() == pytest.approx(share, abs=1e-6)
    expected = {
        index: 2 * said[pixels >= index].sum() / ((pixels >= index).sum() + said.sum()) for index in sorted(counts)
    }
    found = round(mask_free_threshold(histogram, correction=correction) * 1000)
    assert expected[found] == pytest.approx(max(expected.values()))


def test_finds_what_masks_would_and_calibrates_where_what_is_presumed_is_true() -> None:
    # Truth is drawn with the probability that a steeper and lower map then hides: half of the pixels are foreground.
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, size=(1, 200_000))
    truth = torch.from_numpy(rng.random(logits.shape) < expit(logits))
    maps = torch.from_numpy(expit(2 * logits - 3))
    counted = pixel_histogram.add_images(EMPTY, pixel_histogram.count_images(maps, target=truth))
    unlabelled = count_unlabelled(EMPTY, maps=maps)
    assert (int(unlabelled.foreground.sum()), int(unlabelled.background.sum())) == (0, 200_000)
    correction = fit(unlabelled, temperature=2.0)
    assert correction.shift == pytest.approx(1.5, abs=0.02)
    threshold = mask_free_threshold(unlabelled, correction=correction)
    assert threshold == pytest.approx(best_dice_threshold(counted), abs=0.02)
    assert threshold < 0.1
    assert pixel_calibration_error(reliability_bins(counted)) > 0.2
    assert pixel_calibration_error(reliability_bins(counted, values=correction.values())) < 0.01


def random_images(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(count, 300, generator=generator) ** torch.linspace(0.5, 4, count)[:, None]
    truth = torch.rand(count, 300, generator=generator) < maps
    return pixel_histogram.count_images(maps, target=truth)


def test_images_are_cut_as_if_each_were_alone() -> None:
    images = random_images(5)
    found = counts_at_own_thresholds(images, foreground_share=0.4, temperature=2.0)
    cuts = set()
    for index, (foreground, background) in enumerate(images):
        alone = PixelHistogram(foreground=foreground, background=background)
        threshold = mask_free_threshold(alone, correction=fit(alone, share=0.4, temperature=2.0))
        cuts.add(threshold)
        expected = counts_at(alone, threshold=threshold)
        for name in ("true_positive", "false_positive", "false_negative", "true_negative"):
            assert getattr(found, name)[index] == getattr(expected, name)
    assert len(cuts) > 2


def test_scores_at_own_thresholds_are_pooled_over_images_with_a_mask() -> None:
    # All of the first image is marked, and half of it is foreground; all of the second, which has none; no third mask.
    rows = HistogramRows()
    images = np.zeros((3, 2, 1001), dtype=np.int32)
    images[0, :, 300] = 5
    images[1, 1, 700] = 10
    rows.append(images)
    scores = score_own_thresholds(rows, foreground_share=0.5, temperature=2.0)
    assert math.isnan(scores.threshold)
    assert scores.dice == pytest.approx(2 * 5 / (2 * 5 + 15))
    assert scores.iou == pytest.approx(5 / 20)
    assert scores.background_iou == 0
    assert scores.false_positive_share == 1


def test_in_vain_is_what_is_marked_of_images_without_foreground_alone() -> None:
    # The first image is cut rightly, and half of it is background; all of the second is marked, and none should be.
    rows = HistogramRows()
    images = np.zeros((2, 2, 1001), dtype=np.int32)
    images[0, 0, 900] = images[0, 1, 100] = 5
    images[1, 1, 700] = 10
    rows.append(images)
    scores = score_own_thresholds(rows, foreground_share=0.5, temperature=2.0)
    assert (scores.dice, scores.background_iou) == pytest.approx((2 * 5 / (2 * 5 + 10), 5 / 15))
    assert scores.false_positive_share == 1


def test_without_images_there_are_no_scores_at_own_thresholds() -> None:
    scores = score_own_thresholds(HistogramRows(), foreground_share=0.5, temperature=2.0)
    assert all(math.isnan(getattr(scores, name)) for name in ("dice", "iou", "mean_iou", "false_positive_share"))
