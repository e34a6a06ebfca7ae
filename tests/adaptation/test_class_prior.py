"""The class prior by expectation maximization."""

import pytest
import torch

from pipeline.adaptation.class_prior import estimate_prior

EVEN = torch.tensor([0.5, 0.5])


def _images(share: float, *, count: int = 4000) -> torch.Tensor:
    """Return what an ideal classifier, of an even prior, says of images of which a share is of class 1."""
    generator = torch.Generator().manual_seed(0)
    is_second = torch.rand(count, generator=generator) < share
    values = torch.randn(count, generator=generator, dtype=torch.float64) + is_second.double() * 2
    second = torch.sigmoid(2 * values - 2)
    return torch.stack([1 - second, second], dim=1)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_the_prior_of_a_domain_is_found_where_an_average_of_predictions_is_not(share: float) -> None:
    probabilities = _images(share)
    found = float(estimate_prior(probabilities, EVEN)[1])
    assert found == pytest.approx(share, abs=0.03)
    assert abs(float(probabilities.mean(dim=0)[1]) - share) > abs(found - share) or share == 0.5


def test_a_prior_is_never_0() -> None:
    found = estimate_prior(torch.tensor([[0.0, 1.0]] * 50), EVEN)
    assert float(found.min()) > 0
    assert float(found.sum()) == pytest.approx(1)
