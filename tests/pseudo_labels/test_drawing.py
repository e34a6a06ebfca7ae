"""Draws that follow the CAM or none, never leave their label and repeat with the generator; draws that are kept."""

from collections.abc import Callable

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from pipeline.params.vocabulary import BACKGROUND, FOREGROUND, IGNORE, Drawing
from pipeline.pseudo_labels.drawing import DrawnPixels, draw_pixels, keep_drawn


def draw(
    labels: Tensor,
    cam: Tensor,
    *,
    foreground: int = 5,
    background: int = 5,
    drawing: Drawing = Drawing.CAM,
    seed: int = 0,
) -> DrawnPixels:
    return draw_pixels(
        labels,
        cam,
        foreground_pixels=foreground,
        background_pixels=background,
        foreground_drawing=drawing,
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


@pytest.mark.parametrize("drawing", list(Drawing))
def test_foreground_is_drawn_uniformly_if_so_wanted_and_only_then(drawing: Drawing) -> None:
    labels, cam = as_labels([[1, 1, 1, 0]]), torch.tensor([[[0.5, 0.6, 1.0, 0.0]]])
    index = draw(labels, cam, foreground=20_000, drawing=drawing).index[0, :20_000]
    p_value = chisquare(torch.bincount(index, minlength=3).tolist()).pvalue
    assert (p_value > 0.01) if drawing is Drawing.UNIFORM else (p_value < 1e-6)


def test_label_that_an_image_lacks_is_ignored_in_that_image_alone() -> None:
    labels = as_labels([[0, 0, 255], [1, 1, 255], [255, 255, 255], [0, 255, 1]])
    drawn = draw(labels, torch.full((4, 1, 3), 0.5), foreground=2, background=1)
    assert drawn.target.tolist() == [[255, 255, 0], [1, 1, 255], [255, 255, 255], [1, 1, 0]]
    assert drawn.index.min() >= 0
    assert drawn.index.max() <= 2  # positions without a label are still within the map


def test_foreground_without_any_cam_is_not_drawn_by_it() -> None:
    labels, cam = as_labels([[1, 1, 0]]), torch.zeros(1, 1, 3)
    assert draw(labels, cam, foreground=2, background=1).target.tolist() == [[255, 255, 0]]
    # Drawn uniformly, it needs none.
    assert draw(labels, cam, foreground=2, background=1, drawing=Drawing.UNIFORM).target.tolist() == [[1, 1, 0]]


def test_draws_repeat_with_the_generator_and_move_on_with_it() -> None:
    labels, cam = as_labels([[0, 1] * 50]), torch.ones(1, 1, 100)
    first, again, other = draw(labels, cam), draw(labels, cam), draw(labels, cam, seed=1)
    assert torch.equal(first.index, again.index)
    assert not torch.equal(first.index, other.index)
    generator = torch.Generator().manual_seed(0)
    both = [
        draw_pixels(
            labels,
            cam,
            foreground_pixels=5,
            background_pixels=5,
            foreground_drawing=Drawing.CAM,
            generator=generator,
        ).index
        for _ in range(2)
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


def keep(
    labels: Tensor,
    cam: Tensor,
    *,
    foreground: int = 2,
    background: int = 3,
    drawing: Drawing = Drawing.CAM,
    seed: int = 0,
) -> Tensor:
    return keep_drawn(
        labels,
        cam,
        foreground_pixels=foreground,
        background_pixels=background,
        foreground_drawing=drawing,
        generator=torch.Generator().manual_seed(seed),
    )


@pytest.mark.parametrize("drawing", list(Drawing))
def test_as_many_different_pixels_are_kept_as_are_wanted_and_all_others_ignored(drawing: Drawing) -> None:
    generator = torch.Generator().manual_seed(0)
    choices = torch.tensor([BACKGROUND, FOREGROUND, IGNORE], dtype=torch.uint8)
    labels = choices[torch.randint(0, 3, (4, 6, 9), generator=generator)]
    before = labels.clone()
    kept = keep(labels, torch.rand(4, 6, 9, generator=generator), drawing=drawing)
    assert kept.shape == labels.shape
    assert kept.dtype == torch.uint8
    assert (kept == FOREGROUND).sum(dim=(1, 2)).tolist() == [2] * 4
    assert (kept == BACKGROUND).sum(dim=(1, 2)).tolist() == [3] * 4
    assert torch.equal(labels[kept != IGNORE], kept[kept != IGNORE])
    assert torch.equal(labels, before)


def test_where_there_are_too_few_pixels_all_are_kept() -> None:
    labels = as_labels([[0, 0, 1, 255], [0, 0, 0, 0], [1, 1, 1, 255], [255, 255, 255, 255]])
    kept = keep(labels, torch.ones(4, 1, 4), foreground=2, background=3)
    assert kept[0].tolist() == labels[0].tolist()
    assert sorted(kept[1].flatten().tolist()) == [0, 0, 0, 255]
    assert sorted(kept[2].flatten().tolist()) == [1, 1, 255, 255]
    assert kept[3].tolist() == labels[3].tolist()
    # More wanted than the image has pixels.
    assert keep(labels, torch.ones(4, 1, 4), foreground=9, background=9).tolist() == labels.tolist()


def test_foreground_without_any_cam_is_kept_only_if_drawn_uniformly() -> None:
    labels, cam = as_labels([[1, 1, 0]]), torch.tensor([[[0.0, 0.5, 0.0]]])
    assert keep(labels, cam).flatten().tolist() == [255, 1, 0]
    assert keep(labels, cam, drawing=Drawing.UNIFORM).flatten().tolist() == [1, 1, 0]


@pytest.mark.parametrize(("drawing", "weights"), [(Drawing.CAM, (0.1, 0.3, 0.6)), (Drawing.UNIFORM, (1.0, 1.0, 1.0))])
def test_pairs_are_kept_as_often_as_by_two_draws_without_replacement(
    drawing: Drawing, weights: tuple[float, float, float]
) -> None:
    images = 20_000
    cam = torch.tensor([0.1, 0.3, 0.6]).expand(images, 1, 3)
    kept = keep(torch.full((images, 1, 3), FOREGROUND, dtype=torch.uint8), cam, drawing=drawing).squeeze(1)
    left_out = torch.bincount((kept == IGNORE).int().argmax(dim=1), minlength=3).tolist()
    a, b, c = (weight / sum(weights) for weight in weights)
    # The chance of {i, j} in two draws: i first and j of the rest, or the other way round.
    expected = [images * (one * two / (1 - one) + two * one / (1 - two)) for one, two in ((b, c), (a, c), (a, b))]
    assert chisquare(left_out, expected).pvalue > 0.01


def test_what_is_kept_repeats_with_the_generator() -> None:
    labels, cam = as_labels([[0, 1] * 50]), torch.ones(1, 1, 100)
    assert torch.equal(keep(labels, cam), keep(labels, cam))
    assert not torch.equal(keep(labels, cam), keep(labels, cam, seed=1))


def test_a_drawn_pixel_carries_the_class_of_its_label() -> None:
    labels = as_labels([[3, 255, 0, 3], [255, 1, 1, 255], [0, 254, 255, 0]])
    drawn = draw(labels, torch.full((3, 1, 4), 0.5), foreground=2, background=1)
    assert drawn.target.tolist() == [[3, 3, 0], [1, 1, 255], [254, 254, 0]]
    assert torch.equal(drawn.index[1:, :2].clamp(1, 2), drawn.index[1:, :2]), "of no ignored pixel"


def test_kept_pixels_keep_their_class() -> None:
    labels = as_labels([[2, 2, 255, 0, 0, 2], [255, 1, 0, 255, 255, 255]])
    kept = keep_drawn(
        labels,
        torch.full((2, 1, 6), 0.5),
        foreground_pixels=3,
        background_pixels=2,
        foreground_drawing=Drawing.CAM,
        generator=torch.Generator().manual_seed(0),
    )
    assert torch.equal(kept, labels)
