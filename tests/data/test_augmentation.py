"""Random views: image, labels and CAM move together, by crops and the eight symmetries of a square alone."""

import math
from collections import Counter
from itertools import product

import pytest
import torch
from tiny import NO_AUGMENTATION
from torch import Tensor
from torch.nn.functional import interpolate

from pipeline.data.augmentation import Augmentation, change_stains, draw_stain_change
from pipeline.params.config import AugmentationParams
from pipeline.runtime.seeding import make_generator

GEOMETRY = NO_AUGMENTATION.model_copy(update={"flip": True, "rotate": True})
SIDE, SIZE = 7, 5


def _augmentation(params: AugmentationParams, seed: int, *, size: int = SIZE) -> Augmentation:
    return Augmentation(params, size=size, generator=make_generator(seed))


def _noise(*shape: int) -> Tensor:
    return torch.randint(256, shape, generator=make_generator(0), dtype=torch.uint8)


def smooth_image(side: int) -> Tensor:
    """Return tissue-like colours, float32 (3, side, side) in [0, 1]."""
    coarse = torch.rand(1, 3, 5, 5, generator=make_generator(0)) * 0.6 + 0.3
    return interpolate(coarse, size=(side, side), mode="bilinear", align_corners=False)[0]


def _positions() -> Tensor:
    """Return int64 (7, 7), each pixel its own number."""
    return torch.arange(SIDE * SIDE).reshape(SIDE, SIDE)


def _symmetries(view: Tensor) -> list[Tensor]:
    turned = [view.rot90(turns) for turns in range(4)]
    return turned + [view.T for view in turned]


def test_image_labels_and_cam_move_together() -> None:
    positions = _positions()
    image = torch.stack([positions // SIDE, positions % SIDE, positions * 0], dim=2).to(torch.uint8)
    for seed in range(40):
        augmentation = _augmentation(GEOMETRY, seed)
        view = augmentation.geometry(image).long()
        labels = augmentation.geometry(positions.to(torch.uint8))
        cam = augmentation.geometry(positions.float() / 64)
        assert view.shape == (SIZE, SIZE, 3)
        assert torch.equal(view[..., 0] * SIDE + view[..., 1], labels.long())
        assert torch.equal(cam * 64, labels.float())


def test_views_are_crops_under_the_eight_symmetries_and_all_of_them_occur() -> None:
    positions = _positions()
    known = {
        tuple(view.flatten().tolist()): (top, left, symmetry)
        for top, left in product(range(3), repeat=2)
        for symmetry, view in enumerate(_symmetries(positions[top : top + SIZE, left : left + SIZE]))
    }
    assert len(known) == 72
    seen = [known[tuple(_augmentation(GEOMETRY, seed).geometry(positions).flatten().tolist())] for seed in range(400)]
    assert {symmetry for *_, symmetry in seen} == set(range(8))
    assert {(top, left) for top, left, _ in seen} == set(product(range(3), repeat=2))


def test_every_crop_is_equally_likely() -> None:
    positions = _positions()
    crops = [int(_augmentation(NO_AUGMENTATION, seed).geometry(positions)[0, 0]) for seed in range(1800)]
    counts = Counter(crops)
    assert set(counts) == {0, 1, 2, 7, 8, 9, 14, 15, 16}
    # 200 of each are expected, with a standard deviation of 13.
    assert all(140 < count < 260 for count in counts.values()), counts


def test_without_flip_and_rotation_only_the_crop_is_random() -> None:
    positions = _positions()
    for seed in range(20):
        view = _augmentation(NO_AUGMENTATION, seed).geometry(positions)
        top, left = divmod(int(view[0, 0]), SIDE)
        assert torch.equal(view, positions[top : top + SIZE, left : left + SIZE])


def test_flips_alone_never_turn() -> None:
    positions = _positions()
    params = NO_AUGMENTATION.model_copy(update={"flip": True})
    steps = {
        (int(view[1, 0] - view[0, 0]), int(view[0, 1] - view[0, 0]))
        for view in (_augmentation(params, seed).geometry(positions) for seed in range(40))
    }
    assert steps == {(7, 1), (7, -1), (-7, 1), (-7, -1)}


def test_an_image_of_the_wanted_size_is_not_cropped() -> None:
    positions = _positions()
    assert torch.equal(_augmentation(NO_AUGMENTATION, 3, size=SIDE).geometry(positions), positions)


def test_labels_are_never_interpolated() -> None:
    labels = torch.tensor([0, 1, 255], dtype=torch.uint8)[torch.randint(3, (9, 9), generator=make_generator(0))]
    for seed in range(20):
        assert set(_augmentation(GEOMETRY, seed).geometry(labels).flatten().tolist()) <= {0, 1, 255}


def test_the_draw_depends_on_the_generator_alone() -> None:
    image = _noise(SIDE, SIDE, 3)
    params = GEOMETRY.model_copy(update={"brightness": 0.5, "contrast": 0.5, "saturation": 0.5, "hue": 0.1})

    def view(seed: int) -> bytes:
        augmentation = _augmentation(params, seed)
        return augmentation.colours(augmentation.geometry(image).permute(2, 0, 1)).numpy().tobytes()

    before = torch.get_rng_state()
    assert [view(seed) for seed in range(5)] == [view(seed) for seed in range(5)]
    assert len({view(seed) for seed in range(5)}) == 5
    assert torch.equal(torch.get_rng_state(), before)


def test_zero_strengths_leave_colours_alone() -> None:
    image = _noise(3, 6, 4)
    assert torch.equal(_augmentation(NO_AUGMENTATION, 0).colours(image) * 255, image.float())


def _changed(image: list[list[list[int]]], seed: int, **strengths: float) -> list[list[list[int]]]:
    pixels = torch.tensor(image, dtype=torch.uint8).permute(2, 0, 1)
    changed = _augmentation(NO_AUGMENTATION.model_copy(update=strengths), seed).colours(pixels) * 255
    assert pixels.permute(1, 2, 0).tolist() == image, "the image itself must stay as it is"
    return changed.round().int().permute(1, 2, 0).tolist()


def test_brightness_multiplies_within_its_range() -> None:
    values = [_changed([[[50, 100, 200]]], seed, brightness=0.2)[0][0] for seed in range(100)]
    for red, green, blue in values:
        assert abs(green - 2 * red) <= 2
        assert abs(blue - 2 * green) <= 2
    greens = [green for _, green, _ in values]
    assert min(greens) >= 80
    assert max(greens) <= 120
    assert min(greens) < 85, "the lower end is never reached"
    assert max(greens) > 115, "the upper end is never reached"


def test_contrast_stretches_about_the_mean() -> None:
    for seed in range(30):
        (dark, *_), (bright, *_) = _changed([[[60] * 3, [140] * 3]], seed, contrast=0.5)[0]
        assert abs((100 - dark) - (bright - 100)) <= 1
        assert 20 <= bright - 100 <= 60


@pytest.mark.parametrize("strength", ["saturation", "hue"])
def test_saturation_and_hue_leave_grey_alone_and_change_colours(strength: str) -> None:
    image = [[[90, 90, 90], [200, 40, 120]]]
    changed = [_changed(image, seed, **{strength: 0.4})[0] for seed in range(10)]
    assert all(grey == [90, 90, 90] for grey, _ in changed)
    assert len({tuple(colour) for _, colour in changed}) > 5


def test_colours_are_changed_in_a_random_order() -> None:
    params = NO_AUGMENTATION.model_copy(update={"brightness": 1.0, "contrast": 1.0})
    orders = {tuple(_augmentation(params, seed)._colour_order) for seed in range(60)}
    assert len(orders) > 15
    image = torch.tensor([250, 10], dtype=torch.uint8).expand(3, 1, 2)
    augmentation = _augmentation(params, 0)
    augmentation._colours = [1.0, -0.5, 0.0, 0.0]  # twice as bright, half the contrast
    # Brightness first: 255, where it is clipped, and 20, of mean 137.5. Contrast first: 190 and 70, of mean 130.
    for order, expected in (([0, 1, 2, 3], [196, 79]), ([1, 0, 2, 3], [255, 140])):
        augmentation._colour_order = order
        changed = augmentation.colours(image)[:, 0] * 255
        assert (changed - torch.tensor(expected)).abs().max() <= 1


def test_stains_are_drawn_after_all_else_and_only_if_asked_for() -> None:
    params = GEOMETRY.model_copy(update={"brightness": 0.5, "contrast": 0.5, "saturation": 0.5, "hue": 0.1})
    image = _noise(3, SIDE, SIDE)
    for seed in range(10):
        generator, stained_generator = make_generator(seed), make_generator(seed)
        plain = Augmentation(params, size=SIZE, generator=generator)
        stained = Augmentation(params.model_copy(update={"stain": 0.3}), size=SIZE, generator=stained_generator)
        change = draw_stain_change(0.3, generator)
        assert torch.equal(stained_generator.get_state(), generator.get_state())
        assert torch.equal(stained.geometry(_positions()), plain.geometry(_positions()))
        assert torch.equal(stained.colours(image), plain.colours(change_stains(image, change)))
        assert not torch.equal(stained.colours(image), plain.colours(image))


def test_colours_of_tensors_are_those_of_pillow_but_for_its_rounding() -> None:
    params = GEOMETRY.model_copy(update={"brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.05})
    image = (smooth_image(48) * 255).to(torch.uint8)
    for seed in range(20):
        augmentation = _augmentation(params, seed)
        by_torch = augmentation._adjust(image.float() / 255)
        apart = (by_torch - augmentation.colours(image)).abs()
        assert apart.mean() < 0.01
        assert apart.max() < 0.06  # a step of hue, which has 256 values in Pillow, is up to 6 / 256 of a colour
        assert (by_torch - image / 255).abs().max() > 0.03


def test_blur_is_the_gaussian_that_was_drawn() -> None:
    blurred_alone = NO_AUGMENTATION.model_copy(update={"blur": 4.0})
    image = torch.zeros(3, 41, 41, dtype=torch.uint8)
    image[:, 20, 20] = 255
    drawn = set()
    for seed in range(20):
        spread = _augmentation(blurred_alone, seed, size=41).colours(image)[0].double()
        offsets = torch.arange(41, dtype=torch.float64) - 20
        assert spread.sum().item() == pytest.approx(1, abs=1e-5)
        variance = (spread.sum(dim=0) * offsets**2).sum().item()
        drawn.add(round(variance**0.5, 4))
        if variance > 1:  # else a pixel is too wide to show the shape
            top, beside = spread[20, 20].item(), spread[20, 22].item()
            assert beside / top == pytest.approx(math.exp(-(2**2) / (2 * variance)), rel=0.05)
    assert len(drawn) == 20
    assert max(drawn) < 4
    assert max(drawn) > 3
    assert min(drawn) < 1


def test_a_zoomed_view_is_a_smaller_crop_enlarged_and_labels_and_cam_go_with_it() -> None:
    params = NO_AUGMENTATION.model_copy(update={"zoom": 1.0})
    side, size = 96, 48
    ramp = torch.arange(side).float().expand(side, side) / side  # grows by 1 / side from pixel to pixel
    image = (ramp * 255).to(torch.uint8).unsqueeze(2).expand(side, side, 3)
    labels = torch.arange(side, dtype=torch.uint8).expand(side, side).contiguous()
    steps = set()
    for seed in range(60):
        augmentation = _augmentation(params, seed, size=size)
        cam, view, label = (augmentation.geometry(each) for each in (ramp, image, labels))
        assert cam.shape == label.shape == (size, size)
        assert view.shape == (size, size, 3)
        assert (view.dtype, label.dtype) == (torch.uint8, torch.uint8)
        step = float(cam[0, 30] - cam[0, 20]) / 10 * side  # pixels of the image to a pixel of the view
        steps.add(round(step * size))
        assert ((view[..., 0].float() / 255 - cam).abs() < 1.5 / 255).all()
        assert ((label.float() / side - cam).abs() <= 1 / side).all()
    assert min(steps) in (24, 25)  # the side of the crop: half of the view's at the most
    assert max(steps) in (47, 48)


def test_blur_and_zoom_change_nothing_else_that_is_drawn() -> None:
    params = GEOMETRY.model_copy(update={"brightness": 0.5, "stain": 0.2})
    image = (smooth_image(SIZE) * 255).to(torch.uint8)
    for seed in range(10):
        plain = _augmentation(params, seed)
        # So weak that nothing comes of them, but drawn.
        both = _augmentation(params.model_copy(update={"blur": 1e-3, "zoom": 1e-3}), seed)
        assert torch.equal(both.geometry(_positions()), plain.geometry(_positions()))
        assert torch.equal(both.colours(image), plain.colours(image))
