"""The bins of a reliability diagram: by hand, at the edges, and with the calibration error of the logits."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.metrics.classification import calibration_bins, expected_calibration_error


def test_bins_by_hand() -> None:
    bins = calibration_bins(confidence=np.array([0.9, 0.62, 0.64, 0.91]), correct=np.array([True, True, False, True]))
    np.testing.assert_allclose(bins.confidence, [0.63, 0.905])
    np.testing.assert_allclose(bins.accuracy, [0.5, 1.0])
    np.testing.assert_allclose(bins.share, [0.5, 0.5])
    assert bins.error == pytest.approx(0.5 * 0.13 + 0.5 * 0.095)


def test_an_edge_belongs_to_the_bin_below_and_1_to_the_last() -> None:
    edge = 14 / 15
    bins = calibration_bins(confidence=np.array([edge, np.nextafter(edge, 1), 1.0]), correct=np.array([True] * 3))
    np.testing.assert_allclose(bins.share, [1 / 3, 2 / 3])


def test_without_images_there_is_no_error() -> None:
    bins = calibration_bins(confidence=np.array([]), correct=np.array([], dtype=np.bool_))
    assert len(bins.share) == 0
    assert math.isnan(bins.error)


@settings(max_examples=50, deadline=None)
@given(
    logits=st.lists(
        st.tuples(*[st.floats(-20, 20, allow_nan=False)] * 3, st.integers(0, 2)),
        min_size=1,
        max_size=40,
    )
)
def test_the_error_is_that_of_the_evaluation(logits: list[tuple[float, float, float, int]]) -> None:
    given_logits = torch.tensor([row[:3] for row in logits], dtype=torch.float64)
    target = torch.tensor([row[3] for row in logits])
    confidence, predicted = given_logits.softmax(dim=1).max(dim=1)
    bins = calibration_bins(confidence=confidence.numpy(), correct=(predicted == target).numpy())
    assert bins.share.sum() == pytest.approx(1)
    assert bins.error == pytest.approx(expected_calibration_error(logits=given_logits, target=target), abs=1e-12)
