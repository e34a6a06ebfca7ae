"""Where a heatmap peaks: one point and score for each suspicious spot, as FROC counts them."""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

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
    places = np.stack([columns, rows], axis=1)[order].astype(np.float64)
    pairs = cKDTree(places).query_pairs(radius, output_type="ndarray")
    kept = np.setdiff1d(np.arange(len(places)), pairs.max(axis=1, initial=-1))  # a plateau is one peak
    return Peaks((places[kept] + 0.5) * heat.stride, smooth[rows, columns][order][kept].astype(np.float64))
