from pathlib import Path

import numpy as np
import pytest
from slide_files import glass, stained, write_slide

from pipeline.slides.nuclei import doubt_about_mpp, nucleus_diameter
from pipeline.slides.reading import Slide


def test_discs_have_their_diameter() -> None:
    rows, columns = np.mgrid[:512, :512] % 32 - 16
    picture = np.where((rows**2 + columns**2 < 36)[..., None], (90, 60, 150), (225, 140, 190)).astype(np.uint8)
    assert nucleus_diameter(picture) == pytest.approx(12, rel=0.25)


@pytest.mark.parametrize(("mpp", "doubted"), [(0.5, False), (2.0, True), (0.1, True)])
def test_a_wrong_mpp_is_doubted(tmp_path: Path, mpp: float, doubted: bool) -> None:
    path = write_slide(tmp_path / "a.tif", stained(glass(1024, 1024), 0, 0, 1024, 1024))
    with Slide(path, mpp=mpp) as slide:
        said = doubt_about_mpp(slide, np.array([[0, 0], [200, 200]]), side=600)
    assert bool(said) == doubted
    assert all("a.tif" in line and f"{mpp:g} micrometres per pixel" in line for line in said)
