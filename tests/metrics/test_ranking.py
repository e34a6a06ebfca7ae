"""Areas under curves against scikit-learn and torchmetrics, on ties, on values at thresholds and at both ends."""

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pooling import update_histogram
from sklearn.metrics import average_precision_score, roc_auc_score
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from pipeline.metrics import pixel_histogram
from pipeline.metrics.curves import area_under_roc, average_precision, average_precisions, pooled_area_under_roc

Pixels = list[tuple[float, bool]]
VALUES = st.one_of(st.sampled_from([0.0, 0.3, 0.5, 0.999, 1.0]), st.floats(0, 1, width=32))
PIXELS = st.lists(st.tuples(VALUES, st.booleans()), min_size=1, max_size=40)


def arrays(pixels: Pixels) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    return np.array([value for value, _ in pixels], dtype=np.float32), np.array([truth for _, truth in pixels])


@settings(max_examples=80, deadline=None)
@given(PIXELS)
def test_average_precision_is_that_of_scikit_learn_and_torchmetrics(pixels: Pixels) -> None:
    preds, target = arrays(pixels)
    found = average_precision(preds=preds, target=target)
    if not target.any():
        assert math.isnan(found)
        return
    assert found == pytest.approx(average_precision_score(target, preds), abs=1e-9)
    reference = binary_average_precision(torch.from_numpy(preds), torch.from_numpy(target).int())
    assert found == pytest.approx(reference.item(), abs=1e-6)


@settings(max_examples=80, deadline=None)
@given(PIXELS)
def test_auroc_is_that_of_scikit_learn_and_torchmetrics(pixels: Pixels) -> None:
    preds, target = arrays(pixels)
    found = area_under_roc(preds=preds, target=target)
    if target.all() or not target.any():
        assert math.isnan(found)
        return
    assert found == pytest.approx(roc_auc_score(target, preds), abs=1e-9)
    reference = binary_auroc(torch.from_numpy(preds), torch.from_numpy(target).int())
    assert found == pytest.approx(reference.item(), abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1000), st.booleans()), min_size=1, max_size=40))
def test_pooled_auroc_is_exact_on_maps_of_whole_steps(pixels: list[tuple[int, bool]]) -> None:
    preds, target = arrays([(step / 1000, truth) for step, truth in pixels])
    histogram = update_histogram(
        pixel_histogram.empty_histogram(device=torch.device("cpu")),
        preds=torch.from_numpy(preds),
        target=torch.from_numpy(target),
    )
    expected = area_under_roc(preds=preds, target=target)
    assert pooled_area_under_roc(histogram) == pytest.approx(expected, abs=1e-12, nan_ok=True)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.lists(st.tuples(VALUES, st.booleans()), min_size=12, max_size=12), min_size=1, max_size=4))
def test_rows_at_once_have_the_average_precision_of_each(images: list[Pixels]) -> None:
    preds, target = (np.stack(part) for part in zip(*map(arrays, images), strict=True))
    found = average_precisions(preds=torch.from_numpy(preds), target=torch.from_numpy(target))
    assert found.dtype == torch.float64
    expected = [average_precision(preds=values, target=truth) for values, truth in zip(preds, target, strict=True)]
    assert found.tolist() == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_rows_at_once_by_scikit_learn_tied_constant_ignored_and_without_foreground() -> None:
    generator = np.random.default_rng(0)
    preds = generator.integers(0, 30, (4, 3000)).astype(np.float32) / 29
    target = generator.random((4, 3000)) < 0.3
    ignored = generator.random(3000) < 0.4
    preds[1] = 0.3
    target[2] = False
    kept = average_precision_score(target[3][~ignored], preds[3][~ignored])
    preds[3][ignored], target[3][ignored] = -1, False
    found = average_precisions(preds=torch.from_numpy(preds), target=torch.from_numpy(target))
    assert found[0].item() == pytest.approx(average_precision_score(target[0], preds[0]), abs=1e-12)
    assert found[1].item() == pytest.approx(target[1].mean(), abs=1e-12)
    assert math.isnan(found[2].item())
    assert found[3].item() == pytest.approx(kept, abs=1e-12)


def test_by_hand() -> None:
    preds, target = np.array([[0.9, 0.5], [0.2, 0.1]]), np.array([[True, False], [True, False]])
    assert average_precision(preds=preds, target=target) == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert area_under_roc(preds=preds, target=target) == 0.75


def test_one_foreground_pixel_among_equals() -> None:
    preds, target = np.full(10, 0.3), np.arange(10) == 4
    assert average_precision(preds=preds, target=target) == pytest.approx(0.1)
    assert area_under_roc(preds=preds, target=target) == 0.5


def test_large_images_do_not_overflow() -> None:
    target = np.arange(100_000) % 2 == 0
    assert area_under_roc(preds=target.astype(np.float32), target=target) == 1.0
    assert average_precision(preds=target.astype(np.float32), target=target) == 1.0


def test_are_undefined_without_pixels() -> None:
    preds, target = np.zeros(0), np.zeros(0, dtype=np.bool_)
    assert math.isnan(average_precision(preds=preds, target=target))
    assert math.isnan(area_under_roc(preds=preds, target=target))


def test_a_target_of_another_shape_or_type_is_refused() -> None:
    with pytest.raises(ValueError, match="target must be bool"):
        average_precision(preds=np.zeros(2), target=np.zeros(3, dtype=np.bool_))
    with pytest.raises(ValueError, match="target must be bool"):
        area_under_roc(preds=np.zeros(2), target=np.zeros(2))  # type: ignore[arg-type]
