"""What is hidden from a teacher: cells, boxes and features as the formulas say, every draw from the generator."""

import math
from collections import Counter

import pytest
import torch
from torch import Tensor

from pipeline.training import teacher as regularization
from pipeline.training.teacher import cells_mask, drop_or_weigh, hide_cells, paste_boxes


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _images(count: int = 2, height: int = 5, width: int = 7) -> Tensor:
    return torch.rand(count, 3, height, width, generator=_generator(100))


def test_cells_are_drawn_whole_and_cut_at_the_border() -> None:
    mask = cells_mask(_images(), side=2, generator=_generator(3))
    drawn = torch.rand(2, 3, 4, generator=_generator(3)) < 0.5  # 5x7 pixels are 3x4 cells of 2, the last ones cut
    assert mask.shape == (2, 1, 5, 7)
    for image in range(2):
        assert 0 < int(drawn[image].sum()) < 12
        for y in range(5):
            for x in range(7):
                assert mask[image, 0, y, x] == drawn[image, y // 2, x // 2]


def test_half_of_the_cells_are_hidden() -> None:
    mask = cells_mask(torch.zeros(4, 3, 64, 64), side=1, generator=_generator())
    assert float(mask.float().mean()) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(("size", "expected"), [(224, [16, 32, 44, 56]), (112, [8, 16, 22, 28]), (2, [1, 1, 1, 1])])
def test_cells_grow_with_the_images(size: int, expected: list[int]) -> None:
    assert regularization._sides(size) == expected


def test_hidden_cells_have_the_mean_colour_and_the_others_are_as_they_were() -> None:
    images = _images(height=112, width=112)
    mean = images.mean(dim=(0, 2, 3), keepdim=True)
    sides: Counter[int] = Counter()
    untouched = 0
    for seed in range(100):
        found = hide_cells(images, _generator(seed))
        hidden = (found != images).any(dim=1, keepdim=True)
        assert torch.equal(found, torch.where(hidden, mean, images))
        untouched += not hidden.any()
        sides[next((side for side in (28, 22, 16, 8) if _is_made_of_cells(hidden, side)), 0)] += 1
    # Where nothing is hidden the largest size fits, too: 40 of 100 are expected there, 20 elsewhere.
    assert set(sides) == {28, 22, 16, 8}
    assert 8 <= untouched <= 34
    assert all(8 <= sides[side] <= 34 for side in (22, 16, 8)), sides


def _is_made_of_cells(mask: Tensor, side: int) -> bool:
    firsts = mask[:, :, ::side, ::side].repeat_interleave(side, dim=2).repeat_interleave(side, dim=3)
    return torch.equal(firsts[:, :, : mask.shape[2], : mask.shape[3]], mask)


def test_hiding_leaves_its_argument_alone_and_depends_on_the_generator() -> None:
    images = _images(height=64, width=64)
    before = images.clone()
    found = [hide_cells(images, _generator(seed)) for seed in (2, 2, 3)]
    assert torch.equal(images, before)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("seed", range(8))
def test_a_box_comes_from_the_partner_and_the_share_is_what_is_left(seed: int) -> None:
    images = _images(count=4, height=10, width=16)
    before = images.clone()
    mixed, partner, share = paste_boxes(images, _generator(seed))
    assert sorted(partner.tolist()) == [0, 1, 2, 3]
    inside = (mixed != images).any(dim=(0, 1))
    assert torch.equal(mixed, torch.where(inside, images[partner], images))
    assert float(share) == pytest.approx(1 - inside.float().mean().item())
    assert torch.equal(images, before)


@pytest.mark.parametrize(
    ("drawn", "rows", "columns", "expected"),
    [
        ((0.75, 0.5, 0.5), [3, 4, 5, 6], [4, 5, 6, 7, 8, 9, 10, 11], 1 - 32 / 160),
        ((0.75, 0.5, 0.0), [3, 4, 5, 6], [0, 1, 2, 3], 1 - 16 / 160),
        ((0.75, 0.95, 0.5), [7, 8, 9], [4, 5, 6, 7, 8, 9, 10, 11], 1 - 24 / 160),
    ],
)
def test_a_box_has_half_the_sides_where_three_quarters_are_kept(
    drawn: tuple[float, float, float],
    rows: list[int],
    columns: list[int],
    expected: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = torch.stack([torch.full((3, 10, 16), float(number)) for number in range(2)])
    monkeypatch.setattr(torch, "randperm", lambda *_, **__: torch.tensor([1, 0]))
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor(drawn))
    mixed, _, share = paste_boxes(images, _generator())
    pasted = mixed[0, 0] == 1
    assert pasted.any(dim=1).nonzero().flatten().tolist() == rows
    assert pasted.any(dim=0).nonzero().flatten().tolist() == columns
    assert float(share) == pytest.approx(expected)


def test_boxes_are_of_any_size_and_may_be_cut_by_the_border() -> None:
    images = torch.stack([torch.full((3, 32, 32), float(number)) for number in range(2)])
    shares = [float(paste_boxes(images, _generator(seed)).share) for seed in range(200)]
    assert min(shares) < 0.3
    assert max(shares) > 0.95
    # Beta(1, 1) alone has the mean 1/2; what the border cuts off makes it more.
    assert 0.5 < sum(shares) / len(shares) < 0.8


def test_an_image_alone_is_its_own_partner() -> None:
    images = _images(count=1)
    mixed, partner, _ = paste_boxes(images, _generator())
    assert torch.equal(mixed, images)
    assert partner.tolist() == [0]


def _seed_that(drops: bool) -> int:
    return next(seed for seed in range(99) if (float(torch.rand((), generator=_generator(seed))) < 0.75) is drops)


# Channel means: 1, 0.5, 0.95, -1; above 0.9 of the maximum lie the first and the third.
FEATURES = torch.tensor([[[[2.0, 1.0], [0.0, -1.0]], [[0.0, 0.0], [1.9, -1.0]]]])


def test_the_drop_mask_zeroes_where_attention_is_near_its_maximum() -> None:
    found = drop_or_weigh(FEATURES, _generator(_seed_that(drops=True)))
    assert found.tolist() == [[[[0, 1], [0, -1]], [[0, 0], [0, -1]]]]


def test_the_importance_map_is_the_sigmoid_of_attention() -> None:
    found = drop_or_weigh(FEATURES, _generator(_seed_that(drops=False)))
    weights = [1 / (1 + math.exp(-mean)) for mean in (1, 0.5, 0.95, -1)]
    expected = FEATURES * torch.tensor(weights).view(1, 1, 2, 2)
    torch.testing.assert_close(found, expected)


def test_each_image_has_a_maximum_of_its_own() -> None:
    features = torch.cat([FEATURES, FEATURES / 10])
    found = drop_or_weigh(features, _generator(_seed_that(drops=True)))
    assert torch.equal(found[1] == 0, found[0] == 0)


def test_three_of_four_batches_are_dropped_from() -> None:
    generator = _generator()
    dropped = sum(float(drop_or_weigh(FEATURES, generator)[0, 0, 0, 0]) == 0 for _ in range(400))
    assert dropped == pytest.approx(300, abs=30)


def test_precision_and_gradient_pass_through_the_filter() -> None:
    features = FEATURES.to(torch.bfloat16).requires_grad_()
    found = drop_or_weigh(features, _generator(_seed_that(drops=True)))
    assert found.dtype is torch.bfloat16
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert features.grad is not None
    assert features.grad.tolist() == [[[[0, 1], [0, 1]], [[0, 1], [0, 1]]]]
