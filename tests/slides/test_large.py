"""A slide as large as they come is worked off in the memory of a few windows."""

import tracemalloc
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.slide_windows import lay_windows, map_windows
from pipeline.params.slides import SlideParams, TissueParams
from pipeline.slides.reading import Slide, UInt8Image

SIDE = 100_000  # pixels at 0.25 micrometres


class Imagined(Slide):
    """A slide without a file, all of one colour."""

    def __init__(self) -> None:
        self.path, self.size, self.mpp = Path("large.tif"), (SIDE, SIDE), 0.25

    def read(self, corner: tuple[float, float], *, size: tuple[int, int], downsample: float) -> UInt8Image:
        del corner, downsample
        return np.full((size[1], size[0], 3), 128, dtype=np.uint8)


def look(windows: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    return np.full((len(windows), side, side), windows.mean() / 256, dtype=np.float32)


def test_of_a_slide_no_more_than_some_windows_is_in_memory(tmp_path: Path) -> None:
    params = SlideParams(
        window=1,
        tissue=TissueParams(mpp=8.0, smallest_speck=0.01, largest_hole=0.01),
        overlap=0.0,
        map_stride=16,
        batch_size=8,
        smallest_region=0.0,
    )
    slide, tissue = Imagined(), np.zeros((SIDE // 32, SIDE // 32), dtype=np.bool_)
    tissue[400:1800, 600:2000] = True  # a fifth
    windows = lay_windows(slide, tissue, size=256, mpp=2.0, params=params)
    tracemalloc.start()
    heat = map_windows(slide, windows, tissue, look=look, batch_size=8, scratch=tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    whole = 3 * (SIDE * slide.mpp / 2.0) ** 2
    assert peak < whole / 20
    assert heat.values.shape == (782, 782)
    assert set(np.unique(heat.values)) == {127, 255}
    assert heat.seen.mean() > 0.19
