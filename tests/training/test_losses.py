"""The pixel loss against torch's own interpolation and cross-entropy, values and gradients."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate

from pipeline.params.vocabulary import IGNORE
from pipeline.training.losses import logits_at_pixels, partial_cross_entropy


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def at_pixels_of_enlarged(pixel_logits: Tensor, index: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarge the whole map and pick the pixels: what `logits_at_pixels` equals."""
    enlarged = interpolate(pixel_logits, size=size, mode="bilinear", align_corners=False).flatten(2)
    return enlarged.gather(2, index.unsqueeze(1).expand(-1, pixel_logits.shape[1], -1)).transpose(1, 2)


@pytest.mark.parametrize(
    ("grid", "size"),
    [
        ((4, 6), (64, 96)),
        ((3, 5), (50, 31)),
        ((1, 1), (8, 8)),
        ((1, 4), (9, 16)),
        ((5, 7), (5, 7)),
        ((14, 14), (224, 224)),
        ((9, 10), (4, 3)),
    ],
)
def test_equals_interpolation_of_the_whole_map_at_every_pixel(grid: tuple[int, int], size: tuple[int, int]) -> None:
    every = torch.arange(size[0] * size[1]).expand(2, -1)
    logits = rand(2, 2, *grid).requires_grad_()
    again = logits.detach().clone().requires_grad_()
    found = logits_at_pixels(logits, every, size=size)
    expected = at_pixels_of_enlarged(again, every, size)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    weights = rand(*found.shape, seed=1)
    torch.autograd.backward((found * weights).sum())
    torch.autograd.backward((expected * weights).sum())
    torch.testing.assert_close(logits.grad, again.grad, rtol=1e-4, atol=1e-4)


def test_pixels_may_repeat_and_differ_between_images() -> None:
    logits = rand(2, 2, 3, 4).requires_grad_()
    again = logits.detach().clone().requires_grad_()
    index = torch.tensor([[0, 0, 0, 99], [5, 50, 99, 5]])
    found = logits_at_pixels(logits, index, size=(10, 10))
    torch.testing.assert_close(found, at_pixels_of_enlarged(again, index, (10, 10)))
    torch.autograd.backward(found.sum())
    torch.autograd.backward(at_pixels_of_enlarged(again, index, (10, 10)).sum())
    torch.testing.assert_close(logits.grad, again.grad)


def test_by_hand() -> None:
    # A map of 1x2 at size 1x4: pixel centres lie at -0.25, 0.25, 0.75, 1.25 of the cells' centres.
    logits = torch.tensor([[[[0.0, 8.0]], [[1.0, 1.0]]]])
    found = logits_at_pixels(logits, torch.tensor([[0, 1, 2, 3]]), size=(1, 4))
    assert found.tolist() == [[[0, 1], [2, 1], [6, 1], [8, 1]]]


def test_partial_cross_entropy_by_hand() -> None:
    log3 = float(torch.tensor(3.0).log())
    logits = torch.tensor([[[0.0, log3], [0.0, log3], [50.0, -50.0]]])  # probabilities 1/4, 3/4
    target = torch.tensor([[1, 0, IGNORE]])
    expected = (float(torch.tensor(4 / 3).log()) + float(torch.tensor(4.0).log())) / 2
    assert float(partial_cross_entropy(logits, target)) == pytest.approx(expected)


def test_partial_cross_entropy_is_that_of_the_labelled_pixels() -> None:
    logits = rand(3, 40, 2).requires_grad_()
    again = logits.detach().clone().requires_grad_()
    target = torch.randint(0, 3, (3, 40), generator=torch.Generator().manual_seed(0))
    target[target == 2] = IGNORE
    labelled = target != IGNORE
    found = partial_cross_entropy(logits, target)
    expected = cross_entropy(again[labelled], target[labelled])
    torch.testing.assert_close(found, expected)
    torch.autograd.backward(found)
    torch.autograd.backward(expected)
    torch.testing.assert_close(logits.grad, again.grad)
    assert logits.grad is not None
    assert not logits.grad[~labelled].any()


def test_nothing_labelled_gives_zero_and_a_zero_gradient() -> None:
    logits = rand(2, 5, 2).requires_grad_()
    loss = partial_cross_entropy(logits, torch.full((2, 5), IGNORE))
    torch.autograd.backward(loss)
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_half_precision_is_scored_in_full() -> None:
    logits = rand(1, 2000, 2).bfloat16()
    target = torch.zeros(1, 2000, dtype=torch.int64)
    loss = partial_cross_entropy(logits, target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, cross_entropy(logits[0].float(), target[0]))
