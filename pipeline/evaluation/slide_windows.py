"""A model moved over a slide in overlapping windows, whose maps are blended to one heatmap.

What each row of windows gave is a file, so that a run that was killed goes on where it was; and of the slide no more
than a row of windows is in memory.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.params.errors import PixelCAMError
from pipeline.params.slides import SlideParams
from pipeline.runtime.console import progress_bar
from pipeline.runtime.files import replacing_file
from pipeline.runtime.threads import prefetch
from pipeline.slides.grid import lay_grid
from pipeline.slides.heat import CERTAIN, NOT_LOOKED_AT, Heat, quantize
from pipeline.slides.reading import Slide
from pipeline.slides.tissue import BoolMap

Look = Callable[[NDArray[np.uint8], int], NDArray[np.float32]]
LEAST_WEIGHT: Final = 1e-3  # of a window's outermost pixels, which alone see the rim of the tissue


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Where windows lie, on a lattice that the heatmap shares.

    Attributes:
        size: side of a window in its own pixels.
        downsample: pixels of level 0 for one of a window.
        side: of a window in pixels of the heatmap.
        step: from one window to the next, likewise.
        rows: for each row of windows the columns that show tissue.
        shape: height and width of the heatmap.
    """

    size: int
    downsample: float
    side: int
    step: int
    rows: tuple[tuple[int, ...], ...]
    shape: tuple[int, int]

    @property
    def stride(self) -> float:
        """Pixels of level 0 for one of the heatmap."""
        return self.downsample * self.size / self.side

    @property
    def window_step(self) -> int:
        """From one window to the next, in a window's own pixels."""
        return self.step * self.size // self.side

    def __len__(self) -> int:
        return sum(len(columns) for columns in self.rows)


def lay_windows(slide: Slide, tissue: BoolMap, *, size: int, mpp: float, params: SlideParams) -> Windows:
    """Cover the tissue of a slide with windows of `size` pixels at `mpp` micrometres per pixel.

    Raises:
        PixelCAMError: a window is no whole number of pixels of the map.
    """
    if size % params.map_stride:
        raise PixelCAMError(
            f"slides.map_stride: a window of {size} pixels is no multiple of {params.map_stride}; lower it"
        )
    downsample, side = mpp / slide.mpp, size // params.map_stride
    step = max(1, round(side * (1 - params.overlap)))
    stride = downsample * params.map_stride
    corners = lay_grid(tissue, scale=params.tissue.mpp / slide.mpp, side=side * stride, step=step * stride, least=0.0)
    places = np.rint(corners / (step * stride)).astype(int)
    rows: list[list[int]] = [[] for _ in range(int(places[:, 1].max()) + 1)]
    for column, row in places.tolist():
        rows[row].append(column)
    shape = tuple(int(np.ceil(extent / stride)) for extent in reversed(slide.size))
    return Windows(
        size=size,
        downsample=downsample,
        side=side,
        step=step,
        rows=tuple(tuple(columns) for columns in rows),
        shape=(shape[0], shape[1]),
    )


def map_windows(slide: Slide, windows: Windows, tissue: BoolMap, *, look: Look, batch_size: int, scratch: Path) -> Heat:
    """Return the heatmap of a slide.

    Args:
        slide: is read while the model looks at what was read before.
        windows: where to look.
        tissue: bool (h, w) of the whole slide; elsewhere the heatmap says that nothing was looked at.
        look: makes of windows, uint8 (n, size, size, 3), probabilities, float32 (n, side, side); its second argument is
            `side`.
        batch_size: windows at a time.
        scratch: a folder for the rows of windows; those that are there are not made again.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    missing = [
        row
        for row, columns in enumerate(windows.rows)
        if columns and _read_row(_row_file(scratch, row), len(columns), windows.side) is None
    ]
    done = len(windows) - sum(len(windows.rows[row]) for row in missing)
    maps: list[NDArray[np.float32]] = []  # of the row in work
    with progress_bar(label=f"windows of {slide.path.name}", total=len(windows), done=done) as bar:
        for row, batch in _read_windows(slide, windows, missing, batch_size):
            maps.append(look(batch, windows.side))
            bar.update(len(batch))
            if sum(map(len, maps)) == len(windows.rows[row]):
                _write_row(_row_file(scratch, row), np.concatenate(maps))
                maps.clear()
    return Heat(_blend(windows, tissue, scratch), windows.stride, slide.mpp)


def _row_file(scratch: Path, row: int) -> Path:
    return scratch / f"row_{row:05d}.npy"


def _read_row(path: Path, count: int, side: int) -> NDArray[np.uint8] | None:
    """Return the maps of a row of windows, uint8 (count, side, side); None if they have not been made."""
    try:
        maps: NDArray[np.uint8] = np.load(path, allow_pickle=False)
    except (OSError, EOFError, ValueError):
        return None
    return maps if maps.shape == (count, side, side) and maps.dtype == np.uint8 else None


def _write_row(path: Path, maps: NDArray[np.float32]) -> None:
    """Write the maps of a row of windows (n, side, side), whole or not at all."""
    with replacing_file(path) as temporary, temporary.open("wb") as file:
        np.save(file, quantize(maps, seen=np.ones(maps.shape, dtype=np.bool_)), allow_pickle=False)


def _read_windows(
    slide: Slide, windows: Windows, rows: Sequence[int], batch_size: int
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield the windows of some rows, batch by batch, uint8 (n, size, size, 3), each read while the last is looked at.

    No batch reaches over the end of its row, so that rows that are there already change none of the others.
    """
    batches = [
        (row, windows.rows[row][start : start + batch_size])
        for row in rows
        for start in range(0, len(windows.rows[row]), batch_size)
    ]

    def read(index: int) -> NDArray[np.uint8]:
        row, columns = batches[index]
        return np.concatenate([_read_run(slide, windows, row, run) for run in _runs(columns)])

    for (index,), (read_windows,) in prefetch(([index] for index in range(len(batches))), read, depth=1):
        yield batches[index][0], read_windows


def _runs(columns: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return columns in groups of neighbours, which are read at once since they overlap."""
    cuts = np.flatnonzero(np.diff(columns) > 1) + 1
    return [tuple(int(column) for column in run) for run in np.split(np.array(columns), cuts)]


def _read_run(slide: Slide, windows: Windows, row: int, columns: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return neighbouring windows, uint8 (n, size, size, 3), cut from the part of the slide that they cover."""
    step = windows.step * windows.stride
    width = windows.size + (columns[-1] - columns[0]) * windows.window_step
    strip = slide.read((columns[0] * step, row * step), size=(width, windows.size), downsample=windows.downsample)
    starts = [(column - columns[0]) * windows.window_step for column in columns]
    return np.stack([strip[:, start : start + windows.size] for start in starts])


def _blend(windows: Windows, tissue: BoolMap, scratch: Path) -> NDArray[np.uint8]:
    """Return the heatmap: at each pixel the mean of all windows, which count less towards their borders."""
    height, width = windows.shape
    weight = _weight(windows.side)
    full = max(width, (max(max(row, default=0) for row in windows.rows)) * windows.step + windows.side)
    summed = np.zeros((2, windows.side, full), dtype=np.float32)  # of values and of weights, for the rows in work
    values = np.empty(windows.shape, dtype=np.uint8)
    seen = _seen(tissue, windows.shape)
    for row, columns in enumerate((*windows.rows, ())):
        maps = _read_row(_row_file(scratch, row), len(columns), windows.side) if columns else None
        for index, column in enumerate(columns if maps is not None else ()):
            place = slice(column * windows.step, column * windows.step + windows.side)
            summed[0, :, place] += weight * (maps[index].astype(np.float32) / CERTAIN)  # type: ignore[index]
            summed[1, :, place] += weight
        last = row == len(windows.rows)
        top, done = row * windows.step, windows.side if last else windows.step
        rows = min(done, max(0, height - top))
        looked = summed[1, :rows, :width] > 0
        mean = summed[0, :rows, :width] / np.where(looked, summed[1, :rows, :width], 1)
        values[top : top + rows] = quantize(mean.astype(np.float32), seen=looked & seen[top : top + rows])
        summed = np.concatenate([summed[:, done:], np.zeros((2, done, full), dtype=np.float32)], axis=1)
    values[len(windows.rows) * windows.step + windows.side :] = NOT_LOOKED_AT
    return values


def _weight(side: int) -> NDArray[np.float32]:
    """Return how much each pixel of a window counts, float32 (side, side): a Hann window, which overlaps to 1."""
    rise = np.maximum(np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2, LEAST_WEIGHT)
    return np.outer(rise, rise).astype(np.float32)


def _seen(tissue: BoolMap, shape: tuple[int, int]) -> BoolMap:
    """Return tissue at the size of the heatmap, by the nearest pixel."""
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(int), old - 1)
        for new, old in zip(shape, tissue.shape, strict=True)
    )
    return tissue[np.ix_(rows, columns)]
