from pathlib import Path

import numpy as np
import pytest
from slide_files import Picture, glass, stained, write_slide

from pipeline.params.errors import PixelCAMError
from pipeline.params.slides import TissueParams
from pipeline.slides.reading import Slide
from pipeline.slides.tissue import find_tissue, segment_tissue, tissue_area

PARAMS = TissueParams(mpp=8.0, smallest_speck=0.01, largest_hole=0.01)  # 156 pixels
INKS = {"blue": (40, 60, 190), "green": (30, 120, 60), "black": (20, 20, 20)}


def pink(height: int, width: int) -> Picture:
    rng = np.random.default_rng(0)
    picture = glass(height, width).astype(int)
    picture[20:60, 20:80] = (210, 150, 190)
    return np.clip(picture + rng.integers(-4, 5, picture.shape), 0, 255).astype(np.uint8)


def test_tissue_is_what_is_stained() -> None:
    tissue = segment_tissue(pink(100, 100), PARAMS)
    expected = np.zeros((100, 100), dtype=np.bool_)
    expected[20:60, 20:80] = True
    assert np.array_equal(tissue, expected)
    assert tissue_area(tissue, mpp=8.0) == pytest.approx(2400 * 64 / 1e6)


def test_small_holes_are_filled_and_large_ones_are_not() -> None:
    picture = pink(100, 100)
    picture[30:34, 30:34] = 243
    picture[35:55, 50:70] = 243
    tissue = segment_tissue(picture, PARAMS)
    assert tissue[32, 32]
    assert not tissue[45, 60]


def test_specks_are_no_tissue() -> None:
    picture = pink(100, 100)
    picture[80:86, 80:86] = (210, 150, 190)
    assert not segment_tissue(picture, PARAMS)[70:].any()


@pytest.mark.parametrize("ink", INKS)
def test_ink_is_no_tissue(ink: str) -> None:
    picture = pink(100, 100)
    picture[70:95, 10:90] = INKS[ink]
    tissue = segment_tissue(picture, PARAMS)
    assert not tissue[70:95].any()
    assert tissue[25:55, 25:75].all()


@pytest.mark.parametrize("ink", [None, *INKS])
def test_a_slide_of_glass_or_ink_alone_is_refused(tmp_path: Path, ink: str | None) -> None:
    rng = np.random.default_rng(0)
    picture = glass(2048, 2048)
    picture -= rng.integers(0, 5, picture.shape, dtype=np.uint8)
    if ink is not None:
        picture[500:1500, 500:1500] = INKS[ink]
    with (
        Slide(write_slide(tmp_path / "a.tif", picture)) as slide,
        pytest.raises(PixelCAMError, match="shows no tissue"),
    ):
        find_tissue(slide, PARAMS)


def test_a_slide_is_looked_at_as_coarsely_as_asked(tmp_path: Path) -> None:
    picture = stained(glass(1600, 2000), 320, 480, 640, 800)
    with Slide(write_slide(tmp_path / "a.tif", picture)) as slide:
        tissue = find_tissue(slide, PARAMS)
    assert tissue.shape == (100, 125)
    assert tissue[22:58, 32:78].all()
    assert tissue.sum() == pytest.approx(40 * 50, rel=0.1)
