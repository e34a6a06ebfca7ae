"""The class prior by expectation maximization, and image heads that hold under it."""

import pytest
import torch

from pipeline.adaptation.class_prior import estimate_prior
from pipeline.encoders.image_heads import IMAGE_HEADS, build_image_head
from pipeline.params.vocabulary import ImageHeadName

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
    found = estimate_prior(torch.tensor([[0.01, 0.99]] * 50), EVEN)
    assert float(found.min()) > 0
    assert float(found.sum()) == pytest.approx(1)


@pytest.mark.parametrize("name", list(IMAGE_HEADS))
def test_every_head_adds_to_its_logits_what_is_asked(name: ImageHeadName) -> None:
    torch.manual_seed(0)
    head = build_image_head(name, channels=8, classes=3).eval()
    features = torch.rand(2, 8, 5, 5)
    by = torch.tensor([0.5, -1.0, 0.0])
    with torch.no_grad():
        before = head(features)
        head.shift_logits(by)
        torch.testing.assert_close(head(features), before + by)
