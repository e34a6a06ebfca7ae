from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from slide_files import Picture, glass, stained, write_slide

from pipeline.evaluation import slide_windows
from pipeline.evaluation.slide_windows import Windows, lay_windows, map_windows
from pipeline.params.errors import PixelCAMError
from pipeline.params.slides import SlideParams, TissueParams
from pipeline.slides.heat import NOT_LOOKED_AT, Heat
from pipeline.slides.reading import Slide

SIZE = 64  # pixels of a window, at 1.0 micrometre per pixel where level 0 has 0.5


def params(**changes: object) -> SlideParams:
    tissue = TissueParams(mpp=8.0, smallest_speck=0.001, largest_hole=0.001)
    values = {"tissue": tissue, "window": 1, "overlap": 0.5, "map_stride": 8, "batch_size": 3, "smallest_region": 0.0}
    return SlideParams.model_validate(values | changes)


def darkness(windows: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """Return how dark each pixel of a map is: a model whose answer depends on nothing around a pixel."""
    count, size = windows.shape[:2]
    cell = size // side
    dark = 1 - windows.astype(np.float32).mean(axis=3) / 255
    return np.asarray(dark.reshape(count, side, cell, side, cell).mean(axis=(2, 4)), dtype=np.float32)


def to_the_right(windows: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """Return a map that rises from 0 at the left to 1 at the right of each window, whatever it shows."""
    rise = np.linspace(0, 1, side, dtype=np.float32)
    return np.broadcast_to(rise, (len(windows), side, side))


@pytest.fixture(scope="module")
def picture() -> Picture:
    return stained(glass(1000, 1400), 140, 200, 600, 900)


@pytest.fixture(scope="module")
def slide(picture: Picture, tmp_path_factory: pytest.TempPathFactory) -> Slide:
    return Slide(write_slide(tmp_path_factory.mktemp("slide") / "a.tif", picture))


@pytest.fixture(scope="module")
def tissue() -> NDArray[np.bool_]:
    mask = np.zeros((63, 88), dtype=np.bool_)  # at 8 micrometres, 16 pixels of level 0
    mask[9:46, 13:68] = True
    return mask


def lay(slide: Slide, tissue: NDArray[np.bool_], **changes: object) -> Windows:
    return lay_windows(slide, tissue, size=SIZE, mpp=1.0, params=params(**changes))


def heat_of(
    slide: Slide, windows: Windows, tissue: NDArray[np.bool_], folder: Path, look: slide_windows.Look = darkness
) -> Heat:
    return map_windows(slide, windows, tissue, look=look, batch_size=3, scratch=folder)


def test_windows_cover_the_tissue_and_nothing_far_from_it(slide: Slide, tissue: NDArray[np.bool_]) -> None:
    windows = lay(slide, tissue)
    assert (windows.side, windows.step, windows.stride, windows.window_step) == (8, 4, 16.0, 32)
    assert windows.shape == (63, 88)
    covered = np.zeros((200, 200), dtype=np.bool_)
    for row, columns in enumerate(windows.rows):
        for column in columns:
            covered[row * 4 : row * 4 + 8, column * 4 : column * 4 + 8] = True
    assert covered[:63, :88][tissue].all()
    assert covered.sum() < 1.6 * tissue.sum()


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.75])
def test_a_map_that_depends_on_pixels_alone_is_that_of_the_whole_slide(
    slide: Slide, tissue: NDArray[np.bool_], picture: Picture, tmp_path: Path, overlap: float
) -> None:
    heat = heat_of(slide, lay(slide, tissue, overlap=overlap), tissue, tmp_path)
    cells = 1 - picture[: 16 * 62, : 16 * 87].astype(np.float64).mean(axis=2) / 255
    expected = cells.reshape(62, 16, 87, 16).mean(axis=(1, 3))
    inside = tissue[:62, :87]
    assert (heat.values[~tissue] == NOT_LOOKED_AT).all()
    assert np.array_equal(heat.seen, tissue)
    assert np.abs(heat.probabilities[:62, :87] - expected)[inside].max() < 0.02
    assert (heat.stride, heat.mpp, heat.pixel_size) == (16.0, 0.5, 8.0)


def test_no_window_shows_its_border(slide: Slide, tissue: NDArray[np.bool_], tmp_path: Path) -> None:
    steps = []
    for overlap in (0.0, 0.5, 0.75):
        windows = lay(slide, tissue, overlap=overlap)
        heat = heat_of(slide, windows, tissue, tmp_path / str(overlap), to_the_right)
        steps.append(float(np.abs(np.diff(heat.probabilities[16:40, 20:60], axis=1)).max()))
    assert steps[0] == 1.0
    assert steps[1] < 0.25
    assert steps[2] < 0.1


def test_rows_that_are_there_are_not_looked_at_again(slide: Slide, tissue: NDArray[np.bool_], tmp_path: Path) -> None:
    windows = lay(slide, tissue)
    whole = heat_of(slide, windows, tissue, tmp_path / "whole")
    looked = 0

    def tiring(seen: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
        nonlocal looked
        looked += len(seen)
        if looked > 100:
            raise KeyboardInterrupt
        return darkness(seen, side)

    with pytest.raises(KeyboardInterrupt):
        heat_of(slide, windows, tissue, tmp_path / "cut", tiring)
    finished = {path.name for path in (tmp_path / "cut").iterdir()}
    done = sum(len(windows.rows[int(name[4:9])]) for name in finished)
    assert 0 < done <= 100
    looked = -len(windows)  # so that it does not tire
    again = heat_of(slide, windows, tissue, tmp_path / "cut", tiring)
    assert looked + len(windows) == len(windows) - done
    assert np.array_equal(again.values, whole.values)


def test_a_damaged_row_is_made_again(slide: Slide, tissue: NDArray[np.bool_], tmp_path: Path) -> None:
    windows = lay(slide, tissue)
    whole = heat_of(slide, windows, tissue, tmp_path)
    rows = sorted(tmp_path.iterdir())
    rows[2].write_bytes(rows[2].read_bytes()[:100])
    rows[3].write_bytes(b"")
    assert np.array_equal(heat_of(slide, windows, tissue, tmp_path).values, whole.values)


def test_neighbours_are_read_at_once(slide: Slide, tissue: NDArray[np.bool_], tmp_path: Path) -> None:
    windows = lay(slide, tissue)
    seen: list[NDArray[np.uint8]] = []

    def noting(found: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
        seen.append(found)
        return darkness(found, side)

    heat_of(slide, windows, tissue, tmp_path, noting)
    assert max(len(batch) for batch in seen) == 3
    row = next(i for i, columns in enumerate(windows.rows) if columns)
    column = windows.rows[row][1]
    alone = slide.read((column * 64, row * 64), size=(SIZE, SIZE), downsample=2.0)
    assert np.abs(seen[0][1].astype(int) - alone).max() <= 1


def test_a_window_must_be_whole_pixels_of_the_map(slide: Slide, tissue: NDArray[np.bool_]) -> None:
    with pytest.raises(PixelCAMError, match=r"slides\.map_stride: a window of 72 pixels"):
        lay_windows(slide, tissue, size=72, mpp=1.0, params=params(map_stride=16))


def test_runs_are_neighbours() -> None:
    assert slide_windows._runs((0, 1, 2, 5, 7, 8)) == [(0, 1, 2), (5,), (7, 8)]
    assert slide_windows._runs((4,)) == [(4,)]
