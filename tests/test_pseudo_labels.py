"""Thresholding by hand, and draws that follow the CAM, never leave their label and repeat with the generator."""

from collections.abc import Callable

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from pipeline.labels import BACKGROUND, FOREGROUND, IGNORE
from pipeline.pseudo_labels import DrawnPixels, draw_pixels, threshold_cam

TENTHS = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]


def threshold(values: list[float], *, foreground: float = 0.75, background: float = 0.3) -> list[int]:
    """Threshold a map of one row."""
    cam = torch.tensor(values).view(1, 1, -1)
    labels = threshold_cam(cam, foreground_threshold=foreground, background_fraction=background)
    assert labels.dtype == torch.uint8
    assert labels.shape == cam.shape
    found: list[int] = labels.flatten().tolist()
    return found


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (TENTHS, [0, 0, 0, 255, 255, 255, 255, 255, 1, 1]),
        (TENTHS[::-1], [1, 1, 255, 255, 255, 255, 255, 0, 0, 0]),
        # The third lowest value is 0.1, and everything equal to it goes along.
        ([0, 0.1, 0.1, 0.1, 0.1, 0.5, 0.5, 0.5, 0.5, 1], [0, 0, 0, 0, 0, 255, 255, 255, 255, 1]),
        # The background share reaches the foreground, which wins.
        ([0, 1, 1, 1, 1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        ([0.4] * 10, [255] * 10),
        ([0.0] * 10, [255] * 10),
        ([1.0] * 10, [255] * 10),
        # No pixel reaches the threshold.
        ([value / 2 for value in TENTHS], [0, 0, 0] + [255] * 7),
    ],
)
def test_threshold_by_hand(values: list[float], expected: list[int]) -> None:
    assert threshold(values) == expected


def test_pixel_at_the_threshold_is_foreground() -> None:
    assert threshold([0, 0.25, 0.5, 1], foreground=0.5, background=0.25) == [0, 255, 1, 1]


@pytest.mark.parametrize(("fraction", "pixels"), [(0.29, 29), (0.3, 30), (0.999, 100), (0.001, 1), (0.07, 7)])
def test_background_share_is_rounded_to_pixels_and_never_empty(fraction: float, pixels: int) -> None:
    values = [value / 200 for value in range(100)]
    assert threshold(values, background=fraction).count(BACKGROUND) == pixels


def test_images_are_thresholded_each_by_itself_and_left_unchanged() -> None:
    cam = torch.tensor([[[0.0, 0.2], [0.9, 1.0]], [[0.5, 0.6], [0.7, 0.8]], [[0.3, 0.3], [0.3, 0.3]]])
    before = cam.clone()
    labels = threshold_cam(cam, foreground_threshold=0.75, background_fraction=0.25)
    assert labels.tolist() == [[[0, 255], [1, 1]], [[0, 255], [255, 1]], [[255, 255], [255, 255]]]
    assert torch.equal(cam, before)


def draw(labels: Tensor, cam: Tensor, *, foreground: int = 5, background: int = 5, seed: int = 0) -> DrawnPixels:
    return draw_pixels(
        labels,
        cam,
        foreground_pixels=foreground,
        background_pixels=background,
        generator=torch.Generator().manual_seed(seed),
    )


def as_labels(values: list[list[int]]) -> Tensor:
    """Return labels (B, 1, W)."""
    return torch.tensor(values, dtype=torch.uint8).unsqueeze(1)


def test_targets_are_the_labels_of_the_drawn_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    choices = torch.tensor([BACKGROUND, FOREGROUND, IGNORE], dtype=torch.uint8)
    labels = choices[torch.randint(0, 3, (4, 6, 9), generator=generator)]
    drawn = draw(labels, torch.rand(4, 6, 9, generator=generator), foreground=300, background=200)
    assert drawn.index.shape == drawn.target.shape == (4, 500)
    assert drawn.index.dtype == drawn.target.dtype == torch.int64
    assert torch.equal(labels.flatten(1).gather(1, drawn.index).long(), drawn.target)
    assert set(drawn.target[:, :300].flatten().tolist()) == {FOREGROUND}
    assert set(drawn.target[:, 300:].flatten().tolist()) == {BACKGROUND}


def test_foreground_is_drawn_in_proportion_to_its_cam_and_background_uniformly() -> None:
    labels = as_labels([[1, 1, 255, 1, 0, 0, 255, 0]])
    cam = torch.tensor([[[0.5, 0.6, 0.99, 1.0, 0.0, 0.1, 0.2, 0.4]]])
    drawn = draw(labels, cam, foreground=20_000, background=20_000)
    counts = torch.bincount(drawn.index[0, :20_000], minlength=8).tolist()
    assert chisquare([counts[0], counts[1], counts[3]], [20_000 * w / 2.1 for w in (0.5, 0.6, 1.0)]).pvalue > 0.01
    counts = torch.bincount(drawn.index[0, 20_000:], minlength=8).tolist()
    assert chisquare([counts[4], counts[5], counts[7]]).pvalue > 0.01


def test_uniform_foreground_would_be_told_apart() -> None:
    labels = as_labels([[1, 1, 1]])
    counts = torch.bincount(draw(labels, torch.tensor([[[0.5, 0.6, 1.0]]]), foreground=20_000).index[0, :20_000])
    assert chisquare(counts.tolist()).pvalue < 1e-6


def test_label_that_an_image_lacks_is_ignored_in_that_image_alone() -> None:
    labels = as_labels([[0, 0, 255], [1, 1, 255], [255, 255, 255], [0, 255, 1]])
    drawn = draw(labels, torch.full((4, 1, 3), 0.5), foreground=2, background=1)
    assert drawn.target.tolist() == [[255, 255, 0], [1, 1, 255], [255, 255, 255], [1, 1, 0]]
    assert drawn.index.min() >= 0
    assert drawn.index.max() <= 2  # positions without a label are still within the map


def test_foreground_without_any_cam_is_not_drawn() -> None:
    drawn = draw(as_labels([[1, 1, 0]]), torch.zeros(1, 1, 3), foreground=2, background=1)
    assert drawn.target.tolist() == [[255, 255, 0]]


def test_draws_repeat_with_the_generator_and_move_on_with_it() -> None:
    labels, cam = as_labels([[0, 1] * 50]), torch.ones(1, 1, 100)
    first, again, other = draw(labels, cam), draw(labels, cam), draw(labels, cam, seed=1)
    assert torch.equal(first.index, again.index)
    assert not torch.equal(first.index, other.index)
    generator = torch.Generator().manual_seed(0)
    both = [
        draw_pixels(labels, cam, foreground_pixels=5, background_pixels=5, generator=generator).index for _ in range(2)
    ]
    assert torch.equal(both[0], first.index)
    assert not torch.equal(both[0], both[1])


def test_draws_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    draw(as_labels([[0, 1]]), torch.ones(1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)


def fixed_rand(value: float) -> Callable[..., Tensor]:
    def rand(*shape: int, dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> Tensor:
        assert generator is not None
        return torch.full(shape, value, dtype=dtype, device=device)

    return rand


@pytest.mark.parametrize(("extreme", "index"), [(0.0, 1), (1 - 2**-53, 50_000)])
@pytest.mark.parametrize("weight", [1.0, 0.1, 1e-30])
def test_no_pixel_of_weight_zero_is_drawn_at_the_ends(
    extreme: float, index: int, weight: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In single precision the last sum and the largest draw would round onto each other.
    labels = torch.full((1, 1, 50_002), FOREGROUND, dtype=torch.uint8)
    labels[..., [0, -1]] = IGNORE
    monkeypatch.setattr(torch, "rand", fixed_rand(extreme))
    drawn = draw(labels, torch.full((1, 1, 50_002), weight), foreground=1, background=1)
    assert drawn.index[0, 0] == index
    assert drawn.target[0, 0] == FOREGROUND


def test_no_pixel_of_weight_zero_is_drawn_between_others(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = as_labels([[1, 255, 1, 255]])
    monkeypatch.setattr(torch, "rand", fixed_rand(0.5))  # where the sum stands still
    assert draw(labels, torch.ones(1, 1, 4)).index[0, 0] == 2


def test_faint_pixel_beside_a_strong_one_is_drawn_by_its_own_share(monkeypatch: pytest.MonkeyPatch) -> None:
    # In single precision several faint pixels would share one sum, and only the first of them could be drawn.
    cam = torch.full((1, 1, 1001), 2.0**-26)
    cam[..., 0] = 1
    point = 1 + 503.5 * 2.0**-26  # within the 504th faint pixel
    monkeypatch.setattr(torch, "rand", fixed_rand(point / (1 + 1000 * 2.0**-26)))
    assert draw(torch.full((1, 1, 1001), FOREGROUND, dtype=torch.uint8), cam).index[0, 0] == 504
