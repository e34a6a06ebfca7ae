"""Stains are brought to a reference's, measured with other implementations; what has no tissue comes back as it is."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import rgb2lab
from torch import Tensor
from torchstain.numpy.normalizers import NumpyMacenkoNormalizer, NumpyReinhardNormalizer

from pipeline.evaluation.at_test_time import StainNormalization, _are_two_stains, fit_stain_normalization
from pipeline.params import vocabulary
from pipeline.params.errors import PixelCAMError

UInt8Array = npt.NDArray[np.uint8]
MACENKO, REINHARD = vocabulary.TestTime.MACENKO, vocabulary.TestTime.REINHARD
BOTH = pytest.mark.parametrize("method", [MACENKO, REINHARD])
HOME = ((0.65, 0.70, 0.29), (0.25, 0.92, 0.30))  # haematoxylin and eosin of one laboratory
AWAY = ((0.74, 0.62, 0.25), (0.32, 0.85, 0.42))  # and of another
SIDE = 64


def _stained(stains: Sequence[Sequence[float]], *, seed: int = 0, strength: Sequence[float] = (1.0, 1.0)) -> UInt8Array:
    """Return tissue, uint8 (64, 64, 3): nuclei on cytoplasm, thick and thin, glass beside it, in known stains."""
    generator = np.random.default_rng(seed)
    nuclei = generator.random((SIDE, SIDE)) < 0.3
    amounts = np.where(nuclei, np.array([[[1.0]], [[0.0]]]), np.array([[[0.0]], [[0.8]]]))
    amounts = amounts + generator.uniform(0, 0.1, (2, SIDE, SIDE))
    amounts *= generator.uniform(0.7, 1.7, (SIDE, SIDE))
    amounts[:, :6] = 0
    densities = np.einsum("syx,s,sc->yxc", amounts, np.array(strength), np.array(stains))
    image: UInt8Array = (240 * np.exp(-densities)).round().astype(np.uint8)
    return image


def _batch(*images: UInt8Array) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


def _array(images: Tensor) -> UInt8Array:
    """Return the only image of a batch, uint8 (H, W, 3)."""
    (image,) = images
    array: UInt8Array = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return array


def _lab(image: UInt8Array) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the mean and standard deviation of each channel of Lab, by scikit-image."""
    lab = rgb2lab(image).reshape(-1, 3)
    return lab.mean(axis=0), lab.std(axis=0)


@pytest.fixture(scope="module")
def home() -> UInt8Array:
    return _stained(HOME)


def test_reinhard_gives_the_mean_and_deviation_of_the_reference(home: UInt8Array) -> None:
    away = _stained(AWAY, seed=1, strength=(0.7, 0.8))
    found = _array(fit_stain_normalization(REINHARD, [home])(_batch(away)))
    assert found.min() > 0
    assert found.max() < 255, "clipped values have other statistics"
    for ours, wanted, before in zip(_lab(found), _lab(home), _lab(away), strict=True):
        # torchstain cuts values off at whole numbers, half a step of 255 on average.
        assert abs(ours - wanted).max() < 0.4
        assert abs(before - wanted).max() > 1.5


def test_macenko_stains_an_image_as_the_reference_is_stained(home: UInt8Array) -> None:
    normalization = fit_stain_normalization(MACENKO, [home])
    for known, found in zip(HOME, normalization.fitted.HERef.T, strict=True):
        unit = np.array(known) / np.linalg.norm(known)
        assert np.degrees(np.arccos(unit @ found.numpy())) < 0.5
    # The same tissue, from another laboratory that stains more strongly.
    away = _stained(AWAY, strength=(1.4, 1.4))
    found = _array(normalization(_batch(away))).astype(int)
    assert abs(away.astype(int) - home).mean() > 20
    assert abs(found - home).mean() < 1
    assert np.percentile(abs(found - home), 99) <= 2


@BOTH
def test_both_agree_with_torchstains_numpy_backend(method: vocabulary.TestTime, home: UInt8Array) -> None:
    reference = NumpyMacenkoNormalizer() if method is MACENKO else NumpyReinhardNormalizer()
    reference.fit(home)
    away = _stained(AWAY, seed=1, strength=(0.7, 1.3))
    expected = reference.normalize(away, stains=False)[0] if method is MACENKO else reference.normalize(away)
    found = _array(fit_stain_normalization(method, [home])(_batch(away)))
    # Its percentiles are interpolated, those of the torch backend are not.
    assert abs(found.astype(int) - expected.astype(int)).max() <= 2


def _without_tissue() -> dict[str, UInt8Array]:
    generator = np.random.default_rng(0)
    shape = (SIDE, SIDE, 3)
    speck = np.full(shape, 240, dtype=np.uint8)
    speck[0, :40] = _stained(HOME)[10, :40]  # 1 % of the pixels
    grey = np.repeat(generator.integers(20, 200, (SIDE, SIDE, 1)), 3, axis=2)
    return {
        "white": np.full(shape, 255),
        "black": np.zeros(shape),
        "pink": np.full(shape, (200, 120, 160)),
        "glass with noise": generator.integers(230, 250, shape),
        "a speck of tissue": speck,
        "grey": grey,
    }


@BOTH
@pytest.mark.parametrize("name", _without_tissue())
def test_what_gives_nothing_to_go_by_comes_back_as_it_is(
    method: vocabulary.TestTime, name: str, home: UInt8Array
) -> None:
    images = _batch(_without_tissue()[name].astype(np.uint8), _stained(AWAY, seed=1))
    found = fit_stain_normalization(method, [home])(images)
    assert torch.equal(found[0], images[0])
    assert not torch.equal(found[1], images[1])


def test_one_stain_alone_is_nothing_for_macenko(home: UInt8Array) -> None:
    images = _batch(_stained((HOME[0], HOME[0]), seed=1))
    assert torch.equal(fit_stain_normalization(MACENKO, [home])(images), images)


def test_one_pixel_of_tissue_is_nothing_for_macenko(home: UInt8Array) -> None:
    image = np.full((4, 4, 3), 240, dtype=np.uint8)
    image[1, 2] = (120, 80, 150)
    assert torch.equal(fit_stain_normalization(MACENKO, [home])(_batch(image)), _batch(image))


def test_stains_that_tissue_is_not_made_of_are_refused() -> None:
    haematoxylin, eosin = (torch.tensor(stain) / torch.tensor(stain).norm() for stain in HOME)
    shares = torch.linspace(0, 1, 1000)
    densities = torch.outer(haematoxylin, shares) + torch.outer(eosin, 1 - shares)
    strengths = torch.ones(2)
    for edge, right in ((0.01, True), (0.1, False)):
        # Both lie between the true stains, so that this share of the tissue at either end is beyond them.
        within = [edge * haematoxylin + (1 - edge) * eosin, edge * eosin + (1 - edge) * haematoxylin]
        stains = torch.stack([stain / stain.norm() for stain in within], dim=1)
        assert _are_two_stains(stains, strengths, densities) is right
    true = torch.stack([haematoxylin, eosin], dim=1)
    assert _are_two_stains(true, strengths, densities)
    assert not _are_two_stains(true, torch.tensor([1.0, 0.1]), densities)
    assert not _are_two_stains(true * torch.nan, strengths, densities)
    assert not _are_two_stains(torch.stack([haematoxylin, haematoxylin], dim=1), strengths, densities)


@BOTH
def test_little_tissue_beside_glass_is_normalized(method: vocabulary.TestTime, home: UInt8Array) -> None:
    image = np.full((SIDE, SIDE, 3), 240, dtype=np.uint8)
    image[:6] = _stained(AWAY)[10:16]
    found = _array(fit_stain_normalization(method, [home])(_batch(image)))
    assert abs(found.astype(int) - image)[:6].mean() > 5


@BOTH
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), values=st.lists(st.integers(0, 255), min_size=1, max_size=6))
def test_any_image_stays_an_image(method: vocabulary.TestTime, seed: int, values: list[int]) -> None:
    normalization = _fitted(method)
    chosen = np.random.default_rng(seed).choice(np.array(values, dtype=np.uint8), (16, 16, 3))
    found = normalization(_batch(chosen))
    assert found.isfinite().all()
    assert found.min() >= 0
    assert found.max() <= 1


FITTED: dict[vocabulary.TestTime, StainNormalization] = {}


def _fitted(method: vocabulary.TestTime) -> StainNormalization:
    if method not in FITTED:
        FITTED[method] = fit_stain_normalization(method, [_stained(HOME)])
    return FITTED[method]


@BOTH
def test_an_image_is_normalized_alike_in_any_company_and_nothing_is_left_behind(method: vocabulary.TestTime) -> None:
    images = _batch(_stained(AWAY, seed=1), _stained(HOME, seed=2), _stained(AWAY, seed=3, strength=(0.5, 0.5)))
    before, state = images.clone(), torch.get_rng_state()
    normalization = _fitted(method)
    together = normalization(images)
    for number in (2, 0, 1):
        assert torch.equal(normalization(images[number : number + 1])[0], together[number])
    assert torch.equal(fit_stain_normalization(method, [_stained(HOME)])(images), together)
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert together.dtype == torch.float32
    assert len(normalization(images[:0])) == 0


@BOTH
def test_the_reference_is_the_image_nearest_to_the_mean_colour(method: vocabulary.TestTime) -> None:
    light, middle, dark = (_stained(HOME, seed=seed, strength=(s, s)) for seed, s in enumerate((0.6, 1.0, 1.5)))
    colours = np.array([image.mean(axis=(0, 1)) for image in (dark, light, middle)])
    assert np.linalg.norm(colours - colours.mean(axis=0), axis=1).argmin() == 2
    assert fit_stain_normalization(method, [dark, light, middle]).reference == 2
    assert fit_stain_normalization(method, [middle, middle]).reference == 0
    # Two thirds of these have this colour, so that it is nearest to the mean, but they hold no tissue.
    plain = np.full_like(middle, middle.mean(axis=(0, 1)).round().astype(np.uint8))
    assert fit_stain_normalization(method, [plain, dark, plain, plain, light, plain]).reference in (1, 4)


@BOTH
def test_without_any_tissue_there_is_no_reference(method: vocabulary.TestTime) -> None:
    white = np.full((8, 8, 3), 255, dtype=np.uint8)
    for images in ([white, white], []):
        with pytest.raises(PixelCAMError, match=rf"evaluate_ood\.test_time: '{method}' .*none of {len(images)} has"):
            fit_stain_normalization(method, images)


def test_other_options_normalize_nothing(home: UInt8Array) -> None:
    with pytest.raises(ValueError, match="'batch_norm' normalizes no stain"):
        fit_stain_normalization(vocabulary.TestTime.BATCH_NORM, [home])
