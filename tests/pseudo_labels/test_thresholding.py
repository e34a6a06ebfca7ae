"""The rules by hand: ties, shares at their edges, Otsu against another implementation, and what erosion leaves."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from pipeline.params.config import ExtractionParams
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import BACKGROUND, FOREGROUND, IGNORE, ForegroundRule, Refinement
from pipeline.pseudo_labels.thresholding import make_pseudo_labels, name_foreground, threshold_cam

TENTHS = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]


def rule(
    name: ForegroundRule = ForegroundRule.THRESHOLD,
    *,
    threshold: float = 0.75,
    foreground: float = 0.2,
    background: float = 0.3,
    erosion: int = 0,
) -> ExtractionParams:
    return ExtractionParams(
        batch_size=1,
        refine=Refinement.NONE,
        foreground_rule=name,
        foreground_threshold=threshold,
        foreground_fraction=foreground,
        background_fraction=background,
        erosion=erosion,
    )


def label(values: list[float], **changes: Any) -> list[int]:  # noqa: ANN401 - as `rule`
    """Label a map of one row."""
    cam = torch.tensor(values).view(1, 1, -1)
    labels = make_pseudo_labels(cam, rule(**changes))
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
        # No pixel reaches the threshold.
        ([value / 2 for value in TENTHS], [0, 0, 0] + [255] * 7),
    ],
)
def test_threshold_by_hand(values: list[float], expected: list[int]) -> None:
    assert label(values) == expected


@pytest.mark.parametrize("erosion", [0, 1])
@pytest.mark.parametrize("name", list(ForegroundRule))
@pytest.mark.parametrize("values", [[0.4] * 10, [0.0] * 10, [1.0] * 10, [0.9], [0.0]])
def test_constant_map_is_ignored_by_every_rule(values: list[float], name: ForegroundRule, erosion: int) -> None:
    assert label(values, name=name, erosion=erosion) == [255] * len(values)


def test_pixel_at_the_threshold_is_foreground() -> None:
    assert label([0, 0.25, 0.5, 1], threshold=0.5, background=0.25) == [0, 255, 1, 1]


@pytest.mark.parametrize("name", list(ForegroundRule))
@pytest.mark.parametrize(("fraction", "pixels"), [(0.29, 29), (0.3, 30), (0.001, 1), (0.07, 7)])
def test_background_share_is_rounded_to_pixels_and_never_empty(
    name: ForegroundRule, fraction: float, pixels: int
) -> None:
    values = [value / 200 for value in range(100)]
    assert label(values, name=name, background=fraction).count(BACKGROUND) == pixels


def test_background_may_be_all_that_is_not_foreground() -> None:
    assert label([value / 200 for value in range(100)], background=0.999).count(BACKGROUND) == 100
    assert label(TENTHS, background=0.999) == [0] * 8 + [1] * 2


@pytest.mark.parametrize("name", list(ForegroundRule))
def test_images_are_labelled_each_by_itself_and_left_unchanged(name: ForegroundRule) -> None:
    cam = torch.tensor([[[0.0, 0.2], [0.9, 1.0]], [[0.5, 0.6], [0.7, 0.8]], [[0.3, 0.3], [0.3, 0.3]]])
    before = cam.clone()
    labels = make_pseudo_labels(cam, rule(name, background=0.25, foreground=0.25))
    expected = {
        ForegroundRule.THRESHOLD: [[[0, 255], [1, 1]], [[0, 255], [255, 1]], [[255, 255], [255, 255]]],
        ForegroundRule.OTSU: [[[0, 255], [1, 1]], [[0, 255], [1, 1]], [[255, 255], [255, 255]]],
        ForegroundRule.PERCENTILE: [[[0, 255], [255, 1]], [[0, 255], [255, 1]], [[255, 255], [255, 255]]],
    }
    assert labels.tolist() == expected[name]
    assert torch.equal(cam, before)
    assert torch.equal(
        labels, torch.cat([make_pseudo_labels(one[None], rule(name, background=0.25, foreground=0.25)) for one in cam])
    )


def percentile(values: list[float], *, foreground: float, background: float = 0.1) -> list[int]:
    return label(values, name=ForegroundRule.PERCENTILE, foreground=foreground, background=background)


@pytest.mark.parametrize(("fraction", "pixels"), [(0.29, 29), (0.3, 30), (0.001, 1), (0.07, 7), (0.995, 99)])
def test_percentile_is_rounded_to_pixels_and_neither_empty_nor_all(fraction: float, pixels: int) -> None:
    values = [value / 200 for value in range(100)]
    assert percentile(values, foreground=fraction, background=0.01) == [0] + [255] * (99 - pixels) + [1] * pixels


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (TENTHS, [0, 255, 255, 255, 255, 255, 255, 255, 1, 1]),
        (TENTHS[::-1], [1, 1, 255, 255, 255, 255, 255, 255, 255, 0]),
        # The second highest value is 0.8, and everything equal to it goes along.
        ([0, 0.1, 0.2, 0.3, 0.4, 0.8, 0.8, 0.8, 0.8, 1], [0, 255, 255, 255, 255, 1, 1, 1, 1, 1]),
        # All but one pixel share the highest value.
        ([0, 1, 1, 1, 1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        # Fewer pixels than the share are above zero; zeros are no foreground.
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 0.1], [0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
    ],
)
def test_percentile_by_hand(values: list[float], expected: list[int]) -> None:
    assert percentile(values, foreground=0.2) == expected


def test_foreground_share_wins_over_the_background_share() -> None:
    assert percentile(TENTHS, foreground=0.6, background=0.6) == [0] * 4 + [1] * 6


def otsu(values: list[float], *, background: float = 0.1) -> list[int]:
    return label(values, name=ForegroundRule.OTSU, background=background)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.2, 0.8], [0, 1]),
        ([0.8, 0.2, 0.8, 0.8], [1, 0, 1, 1]),
        # Neither where the values lie nor how far apart they are matters.
        ([0.10, 0.10, 0.101], [0, 0, 1]),
        # Two groups, split between them: 0.2 of 0.3 is between 0.1 and 0.3.
        ([0.0, 0.1, 0.1, 0.9, 1.0, 1.0], [0, 255, 255, 1, 1, 1]),
        # By hand, of the values 0, 1, 2, 3, 10: splits have n1 n2 (difference of means)^2 of 64, 121.5, 181.5, 289.
        ([0.0, 0.1, 0.2, 0.3, 1.0], [0, 255, 255, 255, 1]),
    ],
)
def test_otsu_by_hand(values: list[float], expected: list[int]) -> None:
    assert otsu(values) == expected


def smooth_maps() -> list[npt.NDArray[np.float32]]:
    """Return maps with one, two and many regions, of different contrast, in [0, 1]."""
    generator = np.random.default_rng(0)
    blurred = [ndimage.gaussian_filter(generator.random((37, 53)), sigma) for sigma in (0.5, 2, 4)]
    scaled = [(one - one.min()) / (one.max() - one.min()) for one in blurred]
    maps = [*scaled, scaled[2] ** 4, 0.3 + 0.2 * scaled[1], generator.beta(0.4, 2, (37, 53))]
    return [one.astype(np.float32) for one in maps]


def brute_force_otsu(cam: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Try every split of the histogram and keep the one with the greatest variance between the classes."""
    edges = np.linspace(cam.min(), cam.max(), 257)
    bins = np.digitize(cam, edges[1:-1])
    best, kept = -1.0, np.zeros(cam.shape, dtype=np.bool_)
    for split in range(255):
        above = bins > split
        if above.all() or not above.any():
            continue
        share = above.mean()
        variance = share * (1 - share) * (bins[above].mean() - bins[~above].mean()) ** 2
        if variance > best * (1 + 1e-12):
            best, kept = variance, above
    return kept


@pytest.mark.parametrize("cam", smooth_maps())
def test_otsu_maximizes_the_variance_between_the_classes(cam: npt.NDArray[np.float32]) -> None:
    found = make_pseudo_labels(torch.from_numpy(cam)[None], rule(ForegroundRule.OTSU))[0].numpy() == FOREGROUND
    assert 0 < found.mean() < 1
    assert np.array_equal(found, brute_force_otsu(cam))


def test_otsu_labels_a_batch_as_its_images() -> None:
    maps = torch.stack([torch.from_numpy(cam) for cam in smooth_maps()])
    alone = torch.cat([make_pseudo_labels(cam[None], rule(ForegroundRule.OTSU, erosion=1)) for cam in maps])
    assert torch.equal(make_pseudo_labels(maps, rule(ForegroundRule.OTSU, erosion=1)), alone)


def regions(rows: list[str]) -> Tensor:
    """Return a CAM (1, H, W): 1 where there is an F, 0 at B, 0.5 at a dot."""
    values = {"F": 1.0, "B": 0.0, ".": 0.5}
    return torch.tensor([[[values[letter] for letter in row] for row in rows]])


def drawn(labels: Tensor) -> list[str]:
    letters = {FOREGROUND: "F", BACKGROUND: "B", IGNORE: "."}
    return ["".join(letters[value] for value in row) for row in labels[0].tolist()]


def eroded(rows: list[str], pixels: int) -> list[str]:
    return drawn(make_pseudo_labels(regions(rows), rule(background=0.01, erosion=pixels)))


BLOCK = [
    "........",
    ".FFFFF..",
    ".FFFFF..",
    ".FFFFF.B",
    ".FFFFF..",
    ".FFFFF..",
]


def test_erosion_takes_the_edge_of_a_region_but_not_at_the_border_of_the_image() -> None:
    # The lowest row stays: beyond it is no other pixel. A single pixel of background is all edge.
    assert eroded(BLOCK, 1) == ["........", "........", "..FFF...", "..FFF...", "..FFF...", "..FFF..."]
    assert eroded(BLOCK, 2) == ["........", "........", "........", "...F....", "...F....", "...F...."]


def test_erosion_larger_than_a_region_leaves_nothing_of_it() -> None:
    assert eroded(BLOCK, 3) == ["........"] * 6
    assert eroded(BLOCK, 100) == ["........"] * 6
    assert eroded(["FFFFFFFB"], 10**30) == ["........"]


def test_foreground_and_background_erode_each_other() -> None:
    assert eroded(["BBBFFF"] * 3, 1) == ["BB..FF"] * 3
    assert eroded(["BBBFFF"] * 3, 2) == ["B....F"] * 3
    assert eroded(["BBBFFF"] * 3, 3) == ["......"] * 3


def test_what_foreground_won_and_lost_at_its_edge_is_not_background() -> None:
    # The background share takes in all pixels of this map, foreground among them.
    labels = make_pseudo_labels(regions(["BBBFFF"]), rule(background=0.9, erosion=1))
    assert drawn(labels) == ["BB..FF"]


def test_diagonal_neighbours_count() -> None:
    assert eroded(["FFF", "FFF", "FFB"], 1) == ["FFF", "F..", "F.."]


def test_without_erosion_nothing_is_lost() -> None:
    assert eroded(BLOCK, 0) == BLOCK


@pytest.mark.parametrize("pixels", [1, 2, 5])
@pytest.mark.parametrize("name", list(ForegroundRule))
def test_every_rule_is_eroded_as_by_scipy(name: ForegroundRule, pixels: int) -> None:
    cam = torch.from_numpy(smooth_maps()[2])[None]
    whole = make_pseudo_labels(cam, rule(name, threshold=0.6))[0].numpy()
    found = make_pseudo_labels(cam, rule(name, threshold=0.6, erosion=pixels))[0].numpy()
    square = np.ones((2 * pixels + 1, 2 * pixels + 1), dtype=np.bool_)
    for value in (BACKGROUND, FOREGROUND):
        expected = ndimage.binary_erosion(whole == value, structure=square, border_value=1)
        assert (whole == value).sum() > expected.sum()
        assert np.array_equal(found == value, expected)


def test_a_map_in_memory_is_cut_by_hand() -> None:
    cam = np.array([[0.0, 0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8, 0.9]])
    labels = threshold_cam(cam, foreground_threshold=0.7, background_fraction=0.3)
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[0, 0, 0, 255, 255], [255, 255, 1, 1, 1]]
    assert (threshold_cam(cam * 0, foreground_threshold=0.7, background_fraction=0.3) == IGNORE).all()


@pytest.mark.parametrize(
    ("cam", "values", "message"),
    [
        (np.zeros((2, 2)), (1.0, 0.5), r"foreground_threshold must lie in \(0, 1\), got 1.0"),
        (np.zeros((2, 2)), (0.5, 1.4), r"background_fraction must lie in \(0, 1\), got 1.4"),
        (np.zeros((1, 2, 2)), (0.5, 0.5), r"cam must be one map \(H, W\) in \[0, 1\], got \(1, 2, 2\)"),
        (np.full((2, 2), np.nan), (0.5, 0.5), "cam must be one map"),
        (np.full((2, 2), 255), (0.5, 0.5), "from 255 to 255"),
    ],
)
def test_a_map_that_cannot_be_cut_is_refused(cam: npt.NDArray[Any], values: tuple[float, float], message: str) -> None:
    with pytest.raises(PixelCAMError, match=message):
        threshold_cam(cam, foreground_threshold=values[0], background_fraction=values[1])


def test_foreground_is_called_by_the_class_of_its_image() -> None:
    labels = torch.tensor([[[0, 1, 255]], [[1, 1, 0]], [[255, 0, 1]]], dtype=torch.uint8)
    found = name_foreground(labels, torch.tensor([0, 2, 253]))
    assert found.tolist() == [[[0, 1, 255]], [[3, 3, 0]], [[255, 0, 254]]]
    assert found.dtype == torch.uint8
    assert labels[1].tolist() == [[1, 1, 0]], "what is given stays as it is"
