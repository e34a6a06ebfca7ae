"""The synthetic images: the same on every call, exact masks, and a class that only the architecture tells."""

from functools import cache
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.params.types import PAINTED_CLASSES
from pipeline.params.vocabulary import Laboratory, Tissue
from pipeline.synthetic.tissues import RenderedImage, render_image

WITH_REGION = [(Tissue.COLON, 0), (Tissue.COLON, 1), (Tissue.COLON, 2), (Tissue.LYMPH_NODE, 1)]
SIZE = 128
IMAGES_PER_CLASS = 80


@cache
def rendered(tissue: Tissue, class_idx: int) -> tuple[RenderedImage, ...]:
    return tuple(
        render_image(tissue, class_idx=class_idx, size=SIZE, seed=11, index=index, classes=PAINTED_CLASSES[tissue])
        for index in range(IMAGES_PER_CLASS)
    )


@pytest.mark.parametrize("tissue", list(Tissue))
@pytest.mark.parametrize("class_idx", [0, 1])
@pytest.mark.parametrize("size", [64, 75, 256])
def test_same_arguments_give_the_same_image_of_the_asked_size(tissue: Tissue, class_idx: int, size: int) -> None:
    first, second = (render_image(tissue, class_idx=class_idx, size=size, seed=3, index=5) for _ in range(2))
    assert first.image.dtype == np.uint8
    assert first.image.shape == (size, size, 3)
    assert first.mask.dtype == np.bool_
    assert first.mask.shape == (size, size)
    assert first.image.tobytes() == second.image.tobytes()
    assert first.mask.tobytes() == second.mask.tobytes()


@pytest.mark.parametrize("tissue", list(Tissue))
def test_every_argument_changes_the_image(tissue: Tissue) -> None:
    images = {
        render_image(tissue, class_idx=class_idx, size=64, seed=seed, index=index).image.tobytes()
        for class_idx, seed, index in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1)]
    }
    assert len(images) == 5
    whole = render_image(tissue, class_idx=0, size=64, seed=0, index=0, classes=3 if tissue is Tissue.COLON else 2)
    assert (whole.image.tobytes() in images) == (tissue is Tissue.LYMPH_NODE)


# Mean red, green and blue of the four quarters of an image, in reading order.
AT_HOME = {
    Tissue.COLON: [[182.2, 80.3, 185.1], [186.1, 94.8, 191.7], [177.6, 81.5, 185.0], [177.6, 85.7, 186.9]],
    Tissue.LYMPH_NODE: [[105.5, 58.7, 138.1], [114.2, 60.3, 139.0], [96.9, 52.3, 132.4], [128.8, 72.6, 146.1]],
}


def quarters(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Return the mean colour of each quarter: (2, 2, 3)."""
    return np.asarray(image.reshape(2, 32, 2, 32, 3).mean(axis=(1, 3)))


@pytest.mark.parametrize("tissue", list(Tissue))
def test_images_of_the_first_laboratory_stay_as_they_were(tissue: Tissue) -> None:
    image = render_image(tissue, class_idx=1, size=64, seed=3, index=5, laboratory=Laboratory.HOME).image
    np.testing.assert_allclose(quarters(image), np.reshape(AT_HOME[tissue], (2, 2, 3)), atol=0.2)


@pytest.mark.parametrize("tissue", list(Tissue))
def test_another_laboratory_shows_the_same_tissue_in_other_colours(tissue: Tissue) -> None:
    home, away = (
        render_image(tissue, class_idx=1, size=256, seed=3, index=5, laboratory=laboratory) for laboratory in Laboratory
    )
    assert np.array_equal(home.mask, away.mask)
    hues = []
    for image in (home.image, away.image):
        red, green, blue = image.reshape(-1, 3).mean(axis=0) - image.mean()
        hues.append(np.degrees(np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue)))
    assert 15 < abs(hues[1] - hues[0]) < 180  # degrees


def test_normal_lymph_node_has_no_region_of_interest() -> None:
    assert not any(image.mask.any() for image in rendered(Tissue.LYMPH_NODE, 0))


@pytest.mark.parametrize(("tissue", "class_idx"), WITH_REGION)
def test_region_takes_a_moderate_share_of_every_image(tissue: Tissue, class_idx: int) -> None:
    shares = [float(image.mask.mean()) for image in rendered(tissue, class_idx)]
    assert min(shares) > 0.10
    assert max(shares) < 0.75
    assert 0.30 < float(np.mean(shares)) < 0.55


def test_share_of_glands_does_not_tell_the_class() -> None:
    shares = [[image.mask.mean() for image in rendered(Tissue.COLON, class_idx)] for class_idx in (0, 1, 2)]
    target = np.repeat([0, 1], IMAGES_PER_CLASS)
    for one, other in combinations(shares, 2):
        assert 0.3 < roc_auc_score(target, np.concatenate([one, other])) < 0.7


@pytest.mark.parametrize(("tissue", "class_idx"), WITH_REGION)
def test_no_colour_threshold_finds_the_region(tissue: Tissue, class_idx: int) -> None:
    images = rendered(tissue, class_idx)
    colours = np.stack([image.image for image in images]).reshape(-1, 3)[::7].astype(np.float64)
    mask = np.stack([image.mask for image in images]).ravel()[::7]
    saturation = colours.max(axis=1) - colours.min(axis=1)
    for values in (*colours.T, colours.mean(axis=1), saturation):
        assert 0.28 < roc_auc_score(mask, values) < 0.72


@pytest.mark.parametrize(("tissue", "class_idx"), WITH_REGION)
def test_nuclei_stand_inside_and_outside_the_region(tissue: Tissue, class_idx: int) -> None:
    for index in range(6):
        image = render_image(tissue, class_idx=class_idx, size=256, seed=11, index=index)
        red = image.image[..., 0].astype(np.float64)  # haematoxylin takes the red light, eosin hardly any
        smooth = ndimage.gaussian_filter(red, 1.0)
        centres = (smooth == ndimage.minimum_filter(smooth, 7)) & (smooth < np.median(red))
        assert (centres & image.mask).sum() >= 20
        assert (centres & ~image.mask).sum() >= 20


@pytest.mark.parametrize(("tissue", "class_idx"), WITH_REGION)
def test_masks_are_in_place(tissue: Tissue, class_idx: int) -> None:
    """Inside and outside differ in colour on average; shifting the masks blurs the step at the outline."""

    def step(shift: int) -> float:
        total = 0.0
        for image in rendered(tissue, class_idx):
            colours = image.image.astype(np.float64)
            mask = np.roll(image.mask, shift, axis=(0, 1))
            inner = mask & ~ndimage.binary_erosion(mask, iterations=2, border_value=1)
            outer = ~mask & ndimage.binary_dilation(mask, iterations=2)
            total += float(np.linalg.norm(colours[inner].mean(axis=0) - colours[outer].mean(axis=0)))
        return total

    assert step(0) > 1.3 * step(8)
    assert step(0) > 1.3 * step(-8)


def joint_histograms(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Return the shares of 8 x 8 x 8 colours: (N, 512)."""
    bins = (images // 32).astype(np.intp)
    codes = (bins[..., 0] * 64 + bins[..., 1] * 8 + bins[..., 2]).reshape(len(images), -1)
    return np.stack([np.bincount(code, minlength=512) / code.size for code in codes])


def channel_histograms(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Return the shares of 32 levels of each channel: (N, 96)."""
    levels = (images // 8).reshape(len(images), -1, 3)
    return np.stack(
        [np.concatenate([np.bincount(image[:, i], minlength=32) / len(image) for i in range(3)]) for image in levels]
    )


@pytest.mark.parametrize(
    ("tissue", "classes"),
    [(tissue, pair) for tissue in Tissue for pair in combinations(range(PAINTED_CLASSES[tissue]), 2)],
)
def test_colour_histograms_do_not_tell_the_class(tissue: Tissue, classes: tuple[int, int]) -> None:
    images = np.stack([image.image for class_idx in classes for image in rendered(tissue, class_idx)])
    target = np.repeat([0, 1], IMAGES_PER_CLASS)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    for histograms in (joint_histograms(images), channel_histograms(images)):
        shares = np.sqrt(histograms)
        for classifier in (
            make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300)),
            RandomForestClassifier(200, random_state=0),
        ):
            # An adenoma's crowded nuclei blur into other tones than a crypt's: a little is told.
            assert cross_val_score(classifier, shares, target, cv=folds).mean() < (0.72 if 2 in classes else 0.65)
