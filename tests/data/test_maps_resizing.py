"""Resizing against torch's own, and by hand."""

import pytest
import torch
from torch.nn.functional import interpolate

from pipeline.data.maps import resize_labels, resize_map

SIZES = [((4, 6), (8, 12)), ((7, 5), (3, 9)), ((5, 5), (5, 5)), ((1, 1), (3, 2)), ((224, 224), (14, 14))]


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_labels_are_those_of_the_nearest_centre(before: tuple[int, int], after: tuple[int, int]) -> None:
    labels = torch.randint(0, 256, (2, *before), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    expected = interpolate(labels.unsqueeze(1).float(), size=after, mode="nearest-exact").squeeze(1)
    found = resize_labels(labels, after)
    assert found.dtype == torch.uint8
    assert torch.equal(found.float(), expected)
    assert torch.equal(resize_labels(labels[0], after), found[0])


def test_labels_by_hand() -> None:
    labels = torch.tensor([[0, 1, 255]], dtype=torch.uint8)
    assert resize_labels(labels, (2, 6)).tolist() == [[0, 0, 1, 1, 255, 255]] * 2
    assert resize_labels(labels, (1, 1)).tolist() == [[1]]


@pytest.mark.parametrize("size", range(1, 300, 7))
def test_no_label_is_looked_for_outside(size: int) -> None:
    labels = torch.arange(199).expand(1, -1)
    found = resize_labels(labels, (1, size))[0]
    assert found.tolist() == sorted(found.tolist())
    assert int(found[0]) == 198 - int(found[-1])  # seen from both ends alike


def test_map_by_hand() -> None:
    assert resize_map(torch.tensor([[[0.0, 1.0]]]), (1, 4)).tolist() == [[[0, 0.25, 0.75, 1]]]


def test_map_of_the_right_size_is_returned_as_it_is() -> None:
    maps = torch.rand(2, 3, 5)
    assert resize_map(maps, maps.shape[-2:]) is maps


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_map_keeps_its_range(before: tuple[int, int], after: tuple[int, int]) -> None:
    maps = torch.rand(2, *before, generator=torch.Generator().manual_seed(0))
    found = resize_map(maps, after)
    assert found.shape == (2, *after)
    assert maps.min() <= found.min() + 1e-6  # a weighted mean of equal values may be rounded
    assert found.max() <= maps.max() + 1e-6
