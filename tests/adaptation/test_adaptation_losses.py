"""Losses without labels, against values computed by hand."""

import math

import pytest
import torch
from torch import Tensor

from pipeline.adaptation.losses import (
    NO_LABEL,
    UNLEARN,
    entropy,
    labelled_cross_entropy,
    marginal_entropy,
    mean_entropy,
    unlearning_loss,
)


def _logits(*probabilities: tuple[float, ...]) -> Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log()


def test_entropy_is_log_k_of_the_unsure_and_0_of_the_sure() -> None:
    found = entropy(torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
    assert found.tolist() == pytest.approx([math.log(2), 0.0])


def test_entropy_of_a_sure_prediction_has_a_finite_gradient() -> None:
    probabilities = torch.tensor([[1.0, 0.0]], requires_grad=True)
    entropy(probabilities).sum().backward()  # type: ignore[no-untyped-call]
    assert probabilities.grad is not None
    assert probabilities.grad.isfinite().all()


def test_two_images_of_two_classes_are_sure_and_evenly_divided() -> None:
    logits = _logits((0.999, 0.001), (0.001, 0.999))
    assert float(mean_entropy(logits)) < 0.01
    assert float(marginal_entropy(logits)) == pytest.approx(math.log(2))


def test_images_of_one_class_are_not_divided() -> None:
    logits = _logits((0.9, 0.1), (0.9, 0.1))
    assert float(marginal_entropy(logits)) == pytest.approx(float(mean_entropy(logits)))


def test_cross_entropy_passes_over_images_without_a_label_and_those_that_unlearn() -> None:
    logits = _logits((0.8, 0.2), (0.5, 0.5), (0.1, 0.9))
    labels = torch.tensor([0, NO_LABEL, UNLEARN - 1])
    assert float(labelled_cross_entropy(logits, labels)) == pytest.approx(-math.log(0.8))


def test_unlearning_lowers_the_probability_of_the_class_that_is_named() -> None:
    logits = _logits((0.8, 0.2), (0.25, 0.75))
    assert float(unlearning_loss(logits, torch.tensor([0, UNLEARN - 1]))) == pytest.approx(-math.log(0.25))
    assert float(unlearning_loss(logits, torch.tensor([UNLEARN, UNLEARN - 1]))) == pytest.approx(
        (-math.log(0.2) - math.log(0.25)) / 2
    )


def test_unlearning_what_is_certain_has_a_gradient_of_one() -> None:
    logits = torch.tensor([[100.0, -100.0]], requires_grad=True)
    loss = unlearning_loss(logits, torch.tensor([UNLEARN]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 200
    assert logits.grad is not None
    assert logits.grad.tolist() == [[1, -1]]


@pytest.mark.parametrize("loss", [labelled_cross_entropy, unlearning_loss])
def test_a_batch_without_such_an_image_costs_nothing(loss: object) -> None:
    logits = torch.zeros(2, 2, requires_grad=True)
    found = loss(logits, torch.tensor([NO_LABEL, NO_LABEL]))  # type: ignore[operator]
    found.backward()
    assert found.item() == 0
    assert logits.grad is not None
    assert logits.grad.abs().max() == 0
