"""Scores of the classifier against scikit-learn and torchmetrics, and by hand where those have no answer."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.metrics import confusion_matrix as reference_confusion
from sklearn.metrics import f1_score, roc_auc_score
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from pipeline.metrics.classification import (
    auroc,
    calibration,
    confusion_matrix,
    expected_calibration_error,
    f1_per_class,
    fit_temperature,
    has_collapsed,
)


def random_logits(seed: int, *, classes: int, images: int = 60) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.arange(images) % classes
    logits = torch.randn(images, classes, generator=generator, dtype=torch.float64)
    return logits + torch.nn.functional.one_hot(target, classes), target


class TestAuroc:
    @pytest.mark.parametrize("seed", range(3))
    def test_of_two_classes_is_that_of_scikit_learn(self, seed: int) -> None:
        logits, target = random_logits(seed, classes=2)
        logits = (logits * 2).round()  # with ties
        expected = roc_auc_score(target, logits.softmax(dim=1)[:, 1])
        assert auroc(logits=logits, target=target) == pytest.approx(expected, abs=1e-9)

    @pytest.mark.parametrize("seed", range(3))
    def test_of_three_classes_is_that_of_scikit_learn(self, seed: int) -> None:
        logits, target = random_logits(seed, classes=3)
        expected = roc_auc_score(target, logits.softmax(dim=1), multi_class="ovr", average="macro")
        assert auroc(logits=logits, target=target) == pytest.approx(expected, abs=1e-9)

    def test_leaves_out_classes_without_images(self) -> None:
        logits, target = random_logits(0, classes=3)
        logits, target = logits[target != 2], target[target != 2]
        probabilities = logits.softmax(dim=1)
        expected = np.mean([roc_auc_score(target == index, probabilities[:, index]) for index in (0, 1)])
        assert auroc(logits=logits, target=target) == pytest.approx(expected)

    def test_sure_predictions_are_still_ranked(self) -> None:
        logits = torch.tensor([[0.0, 20.0], [0.0, 21.0]])  # both are 1 in float32
        assert auroc(logits=logits, target=torch.tensor([0, 1])) == 1.0

    def test_is_undefined_with_one_class_and_says_nothing(self) -> None:
        with np.errstate(all="raise"):
            assert math.isnan(auroc(logits=torch.zeros(3, 2), target=torch.ones(3, dtype=torch.int64)))
        assert math.isnan(auroc(logits=torch.zeros(3, 2), target=torch.zeros(3, dtype=torch.int64)))


class TestF1AndConfusion:
    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=20))
    def test_are_those_of_scikit_learn(self, pairs: list[tuple[int, int]]) -> None:
        target, preds = (torch.tensor(part) for part in zip(*pairs, strict=True))
        classes = ("a", "b", "c")
        expected = f1_score(target, preds, labels=[0, 1, 2], average=None, zero_division=np.nan)
        found = f1_per_class(preds=preds, target=target, classes=classes)
        assert list(found.values()) == pytest.approx(expected.tolist(), nan_ok=True)
        matrix = confusion_matrix(preds=preds, target=target, classes=classes)
        cells = [[matrix[true][predicted] for predicted in classes] for true in classes]
        assert cells == reference_confusion(target, preds, labels=[0, 1, 2]).tolist()

    def test_rows_are_true_classes(self) -> None:
        found = confusion_matrix(preds=torch.tensor([1, 1, 0]), target=torch.tensor([0, 1, 1]), classes=("a", "b"))
        assert found == {"a": {"a": 0, "b": 1}, "b": {"a": 1, "b": 1}}


class TestCalibration:
    @pytest.mark.parametrize("classes", [2, 3])
    @pytest.mark.parametrize("seed", range(3))
    def test_error_is_that_of_torchmetrics(self, seed: int, classes: int) -> None:
        logits, target = random_logits(seed, classes=classes, images=200)
        expected = multiclass_calibration_error(logits.softmax(dim=1), target, num_classes=classes, n_bins=15)
        assert expected_calibration_error(logits=logits, target=target) == pytest.approx(expected.item(), abs=1e-6)

    def test_error_by_hand(self) -> None:
        # Confidence 0.75 (right), 0.75 (wrong), 0.9 (right): |1.5 - 1| in one bin, |0.9 - 1| in another.
        odds = torch.tensor([3.0, 3.0, 9.0], dtype=torch.float64)
        logits = torch.stack([odds.log(), torch.zeros(3, dtype=torch.float64)], dim=1)
        found = expected_calibration_error(logits=logits, target=torch.tensor([0, 1, 0]))
        assert found == pytest.approx((0.5 + 0.1) / 3)

    def test_certainty_lies_in_the_last_bin(self) -> None:
        # Confidence 1 and 0.95 share the last bin: |1.95 - 1|, not |1 - 1| + |0.95 - 0|.
        logits = torch.tensor([[1000.0, 0.0], [math.log(19), 0.0]], dtype=torch.float64)
        assert expected_calibration_error(logits=logits, target=torch.tensor([1, 0])) == pytest.approx(0.95 / 2)

    def test_is_undefined_without_images(self) -> None:
        none = torch.zeros(0, dtype=torch.int64)
        assert math.isnan(expected_calibration_error(logits=torch.zeros(0, 2), target=none))
        assert math.isnan(fit_temperature(logits=torch.zeros(0, 2), target=none))

    @pytest.mark.parametrize("seed", range(3))
    def test_temperature_has_the_highest_likelihood(self, seed: int) -> None:
        logits, target = random_logits(seed, classes=3)
        logits = logits * 4

        def loss(inverse: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> float:
            return float(torch.nn.functional.cross_entropy(logits * float(inverse[0]), target))

        expected = 1 / minimize(loss, x0=[1.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-14}).x[0]
        assert fit_temperature(logits=logits, target=target) == pytest.approx(expected, rel=1e-4)

    def test_temperature_undoes_a_scale(self) -> None:
        logits, target = random_logits(4, classes=2)
        plain = fit_temperature(logits=logits, target=target)
        for scale in (3, 7, 20):
            found = fit_temperature(logits=logits * scale, target=target)
            assert found == pytest.approx(scale * plain, rel=2e-7)
        undone = calibration(logits=logits * 7, target=target, temperature=7.0)
        assert undone.ece_calibrated == pytest.approx(expected_calibration_error(logits=logits, target=target))
        assert undone.ece > undone.ece_calibrated

    def test_temperature_is_undefined_where_nothing_is_wrong(self) -> None:
        logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        temperature = fit_temperature(logits=logits, target=torch.tensor([0, 1]))
        assert math.isnan(temperature)
        found = calibration(logits=logits, target=torch.tensor([0, 1]), temperature=temperature)
        assert math.isnan(found.ece_calibrated)
        assert not math.isnan(found.ece)


class TestCollapse:
    @pytest.mark.parametrize(
        ("predicted", "true", "collapsed"),
        [
            ([0] * 20, [0] * 10 + [1] * 10, True),
            ([0] * 19 + [1], [0] * 16 + [1] * 4, True),  # 95 % against 80 %: both marks are met
            ([0] * 18 + [1] * 2, [0] * 10 + [1] * 10, False),  # 90 % only
            ([0] * 20, [0] * 18 + [1] * 2, False),  # 90 % truly are
            ([1] * 20, [0] * 20, True),
            ([0], [0], False),
            ([], [], False),
        ],
    )
    def test_by_hand(self, predicted: list[int], true: list[int], collapsed: bool) -> None:
        assert has_collapsed(preds=torch.tensor(predicted), target=torch.tensor(true)) is collapsed
