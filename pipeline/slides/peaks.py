"""Where a heatmap peaks: one point and score for each suspicious spot, as FROC counts them."""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.slides.heat import Heat

SMOOTHING: Final = 16.0  # micrometres, standard deviation; a spot of a single cell is no finding
APART: Final = 100.0  # micrometres between two peaks at least, half of the smallest metastasis that counts
LEAST: Final = 0.05  # probability


class Peaks(NamedTuple):
    """Points float64 (n, 2), x and y in pixels of level 0, and scores float64 (n) in [0, 1]; the highest first."""

    points: NDArray[np.float64]
    scores: NDArray[np.float64]


def find_peaks(heat: Heat) -> Peaks:
    """Return the local maxima of a smoothed heatmap; of equal ones beside each other the first in the order of rows."""
    smooth = ndimage.gaussian_filter(heat.probabilities, SMOOTHING / heat.pixel_size, mode="constant")
    radius = max(1, round(APART / heat.pixel_size))
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    highest = ndimage.maximum_filter(smooth, footprint=x**2 + y**2 <= radius**2, mode="constant")
    rows, columns = np.nonzero((smooth == highest) & (smooth >= LEAST) & heat.seen)
    order = np.argsort(-smooth[rows, columns], kind="stable")
    kept: list[int] = []
    for index in order:  # a plateau is one peak
        if all((rows[index] - rows[k]) ** 2 + (columns[index] - columns[k]) ** 2 > radius**2 for k in kept):
            kept.append(int(index))
    points = (np.stack([columns[kept], rows[kept]], axis=1) + 0.5) * heat.stride
    return Peaks(points.reshape(-1, 2).astype(np.float64), smooth[rows[kept], columns[kept]].astype(np.float64))
