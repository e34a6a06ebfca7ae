"""Where tiles and windows lie on a slide: squares of level 0, of which enough shows tissue."""

import numpy as np
from numpy.typing import NDArray

from pipeline.slides.tissue import BoolMap

Corners = NDArray[np.int64]  # (n, 2): x and y of upper left corners, in pixels of level 0


def lay_grid(tissue: BoolMap, *, scale: float, side: float, step: float, least: float) -> Corners:
    """Return the squares of a regular grid of which a share of at least `least` shows tissue, row by row.

    Args:
        tissue: bool (h, w), of the whole slide.
        scale: pixels of level 0 for one of `tissue`.
        side: of a square, in pixels of level 0.
        step: from one square to the next, likewise.
        least: in (0, 1]; or 0 for every square with any tissue.

    Returns:
        int64 (n, 2): corners. The last squares of a row or column may reach beyond the slide.
    """
    height, width = (extent * scale for extent in tissue.shape)
    x, y = (np.float64(step) * np.arange(_count(extent, side=side, step=step)) for extent in (width, height))
    shares = _shares(tissue, x / scale, y / scale, side / scale)
    taken = shares >= least - 1e-9 if least > 0 else shares > 0
    rows, columns = np.nonzero(taken)
    return np.stack([np.rint(x[columns]), np.rint(y[rows])], axis=1).astype(np.int64)


def _count(extent: float, *, side: float, step: float) -> int:
    """Return how many squares it takes to reach the end."""
    return max(1, int(np.ceil((extent - side) / step - 1e-9)) + 1)


def _shares(tissue: BoolMap, x: NDArray[np.float64], y: NDArray[np.float64], side: float) -> NDArray[np.float64]:
    """Return the share of tissue in squares at the positions y (rows) and x (columns), all in pixels of `tissue`."""
    summed = np.zeros((tissue.shape[0] + 1, tissue.shape[1] + 1))
    summed[1:, 1:] = tissue.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    upto = _along(_along(summed, np.concatenate([y, y + side])).T, np.concatenate([x, x + side])).T
    rows, columns = len(y), len(x)
    top, bottom = upto[:rows], upto[rows:]
    area = bottom[:, columns:] - bottom[:, :columns] - top[:, columns:] + top[:, :columns]
    return np.asarray(np.round(area / side**2, 9))


def _along(summed: NDArray[np.float64], places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interpolate linearly along the first axis; beyond the ends nothing is added."""
    places = np.clip(places, 0, len(summed) - 1)
    first = np.minimum(places.astype(np.int64), len(summed) - 2)
    part = (places - first)[:, None]
    return np.asarray(summed[first] * (1 - part) + summed[first + 1] * part)


def draw_tiles(lesion: NDArray[np.bool_], *, most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the numbers of at most `most` tiles, in their order: all that show a lesion, and others as drawn.

    Args:
        lesion: bool (n), which tiles show a lesion; all of these are taken, even if they are more than `most`.
        most: tiles.
        rng: draws the others.
    """
    lesions, others = np.flatnonzero(lesion), np.flatnonzero(~lesion)
    room = max(0, most - len(lesions))
    drawn = rng.choice(others, size=min(room, len(others)), replace=False)
    return np.sort(np.concatenate([lesions, drawn]))
