"""The reliability of pixels: by hand, at the edges, and against scikit-learn and torchmetrics on the raw pixels."""

import math
from dataclasses import astuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pooling import update_histogram
from sklearn.calibration import calibration_curve
from torchmetrics.functional.classification import binary_calibration_error

from pipeline.metrics import pixel_histogram
from pipeline.metrics.pixel_histogram import PixelHistogram
from pipeline.metrics.reliability import (
    RELIABILITY_BINS,
    ReliabilityBin,
    mean_map_value,
    pixel_calibration_error,
    reliability_bins,
)

HALF_A_STEP = 0.0005
EMPTY = pixel_histogram.empty_histogram(device=torch.device("cpu"))


def pooled(values: list[float], truth: list[bool]) -> PixelHistogram:
    return update_histogram(EMPTY, preds=torch.tensor([values]), target=torch.tensor([truth]))


def test_by_hand() -> None:
    # Four pixels at 0.21, counted with 0.2105, one of them foreground; one at 1, which is not.
    histogram = pooled([0.21, 0.21, 0.21, 0.21, 1.0], [True, False, False, False, False])
    bins = reliability_bins(histogram)
    assert list(bins) == ["0.20", "0.95"]
    assert astuple(bins["0.20"]) == pytest.approx((0.2105, 0.25, 0.8))
    assert bins["0.95"] == ReliabilityBin(map=1.0, foreground=0.0, share=0.2)
    assert pixel_calibration_error(bins) == pytest.approx(0.8 * 0.0395 + 0.2 * 1.0)
    assert mean_map_value(histogram) == pytest.approx((4 * 0.2105 + 1.0) / 5)


def test_an_edge_belongs_to_the_bin_above_and_1_to_the_last() -> None:
    values = [0.0, 0.05, float(np.nextafter(np.float32(0.05), np.float32(0))), 0.95, 1.0]
    bins = reliability_bins(pooled(values, [False] * 5))
    assert {name: each.share for name, each in bins.items()} == pytest.approx({"0.00": 0.4, "0.05": 0.2, "0.95": 0.4})


def test_errors_of_one_bin_cancel_and_those_of_two_do_not() -> None:
    assert pixel_calibration_error(reliability_bins(pooled([0.5, 0.5], [True, False]))) == pytest.approx(HALF_A_STEP)
    assert pixel_calibration_error(reliability_bins(pooled([0.0, 1.0], [True, False]))) == pytest.approx(0.99975)


def test_without_pixels_nothing_is_said() -> None:
    assert reliability_bins(EMPTY) == {}
    assert math.isnan(pixel_calibration_error({}))
    assert math.isnan(mean_map_value(EMPTY))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 999), st.floats(0.1, 0.9), st.booleans()), min_size=1, max_size=60))
def test_is_that_of_the_raw_pixels_within_half_a_step(pixels: list[tuple[int, float, bool]]) -> None:
    values = torch.tensor([[(step + within) / 1000 for step, within, _ in pixels]])
    truth = torch.tensor([[each for _, _, each in pixels]])
    histogram = update_histogram(EMPTY, preds=values, target=truth)
    bins = reliability_bins(histogram)
    reference = binary_calibration_error(values, truth.int(), n_bins=RELIABILITY_BINS, norm="l1").item()
    assert pixel_calibration_error(bins) == pytest.approx(reference, abs=HALF_A_STEP + 1e-6)
    assert mean_map_value(histogram) == pytest.approx(values.mean().item(), abs=HALF_A_STEP + 1e-6)
    foreground, said = calibration_curve(truth[0].numpy(), values[0].numpy(), n_bins=RELIABILITY_BINS)
    assert [each.foreground for each in bins.values()] == pytest.approx(foreground.tolist())
    assert [each.map for each in bins.values()] == pytest.approx(said.tolist(), abs=HALF_A_STEP + 1e-6)
    assert sum(each.share for each in bins.values()) == pytest.approx(1)
