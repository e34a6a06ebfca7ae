"""Stains are taken apart, changed and put together as scikit-image does it."""

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from skimage.color import hed2rgb, rgb2hed

from pipeline.data import augmentation
from pipeline.data.augmentation import StainChange, draw_stain_change
from pipeline.runtime.seeding import make_generator

NO_CHANGE = StainChange((1, 1, 1), (0, 0, 0))
UNIT = -math.log(1e-6)  # what scikit-image divides optical densities by


def change_stains(image: npt.NDArray[np.uint8], change: StainChange) -> npt.NDArray[np.uint8]:
    """Do so to an image, uint8 (H, W, 3)."""
    changed = augmentation.change_stains(torch.from_numpy(image).permute(2, 0, 1), change)
    return changed.permute(1, 2, 0).numpy()


def _stained(*, least: float) -> npt.NDArray[np.uint8]:
    """Return an image, uint8 (40, 30, 3), of random amounts of all three stains."""
    amounts = np.random.default_rng(0).uniform(least, 0.9, (40, 30, 3))
    image: npt.NDArray[np.uint8] = (hed2rgb(amounts / UNIT) * 255).round().astype(np.uint8)
    return image


@pytest.mark.parametrize(
    "change",
    [
        StainChange((0.8, 1.2, 1.1), (0.0, 0.0, 0.0)),
        StainChange((1.0, 1.0, 1.0), (0.9, -0.4, 0.7)),
        StainChange((1.3, 0.6, 0.9), (-0.3, 0.8, -0.5)),
    ],
)
def test_the_stains_are_those_of_scikit_image(change: StainChange) -> None:
    image = _stained(least=0.2)  # more than what scikit-image, which knows no negative amounts, cuts off
    amounts = rgb2hed(image) * UNIT
    assert amounts.min() > 0.1
    expected = hed2rgb((amounts * change.scales + 0.1 * np.array(change.shifts)) / UNIT) * 255
    assert abs(change_stains(image, change) - expected).max() <= 0.51
    assert abs(image - expected).max() > 5


def test_haematoxylin_alone_is_changed_by_its_own_scale_and_shift() -> None:
    def pure(amount: float) -> list[int]:
        return [round(255 * math.exp(-amount * density)) for density in (0.65, 0.70, 0.29)]

    assert pure(1) == [133, 127, 191]
    image = np.array([[pure(1)]], dtype=np.uint8)
    found = change_stains(image, StainChange((1.5, 0.9, 1.1), (2.0, 0.0, 0.0)))
    assert abs(found.astype(int) - [[pure(1.7)]]).max() <= 1


def test_no_change_gives_the_image_back_but_for_black() -> None:
    image = np.arange(256 * 3).reshape(16, 16, 3).astype(np.uint8)
    assert np.array_equal(change_stains(image, NO_CHANGE), image.clip(min=1))


def test_glass_stays_glass_unless_a_shift_stains_it() -> None:
    glass = np.full((2, 2, 3), 255, dtype=np.uint8)
    assert np.array_equal(change_stains(glass, StainChange((2, 0, 1.5), (0, 0, 0))), glass)
    assert np.array_equal(change_stains(glass, StainChange((1, 1, 1), (-1, -1, -1))), glass)
    assert (change_stains(glass, StainChange((1, 1, 1), (1, 0, 0))) < glass).all()


def test_the_image_itself_stays_as_it_is_and_extremes_stay_values() -> None:
    image = np.repeat(np.array([[0, 128, 200, 255]], dtype=np.uint8)[..., None], 3, axis=2)
    before = image.copy()
    # Twice the stain takes its share of light twice: 128 * 128 / 255 is 64.3, and 200 * 200 / 255 is 156.9.
    for scale, expected in ((2, [0, 64, 157, 255]), (0, [255] * 4)):
        found = change_stains(image, StainChange((scale,) * 3, (0, 0, 0)))
        assert found.dtype == np.uint8
        assert found.tolist() == [[[value] * 3 for value in expected]]
    assert np.array_equal(image, before)


def test_draws_fill_their_range_and_follow_the_generator_alone() -> None:
    before = torch.get_rng_state()
    draws = [draw_stain_change(0.2, make_generator(seed)) for seed in range(200)]
    assert torch.equal(torch.get_rng_state(), before)
    assert draws[0] == draw_stain_change(0.2, make_generator(0))
    scales, shifts = np.array([draw.scales for draw in draws]), np.array([draw.shifts for draw in draws])
    for values, middle in ((scales, 1.0), (shifts, 0.0)):
        assert abs(values - middle).max() <= 0.2
        assert (values.min(axis=0) < middle - 0.18).all()
        assert (values.max(axis=0) > middle + 0.18).all()
    assert abs(np.corrcoef(np.hstack([scales, shifts]).T) - np.eye(6)).max() < 0.3, "the six are drawn on their own"
