"""Tones that do not betray the class: every image has the colours of benign and malignant tissue in equal parts.

Different glands hold different amounts of dye, and a histogram would tell them apart. So the joint distribution of both
dyes is brought to that of two other tissues pooled, one of either class. The pool is alike for both classes, and light
stays light and dark stays dark: what is left to tell the class is the architecture.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.synthetic.frame import FloatMap
from pipeline.synthetic.stains import StainMaps

_LEVELS = np.linspace(0.0, 1.0, 129)
_ROUNDS = 3
_DIRECTIONS = ((1.0, 1.0), (1.0, -1.0), (1.0, 0.0), (0.0, 1.0))  # haematoxylin, eosin
_SAMPLE = 128  # pixels along a side that the distribution is taken from
_TABLE = 72  # entries along a side of the look-up table


def take_tones(stains: StainMaps, companions: Sequence[StainMaps]) -> StainMaps:
    """Bring the joint distribution of both amounts to that of the companions together, whatever their size.

    Sliced optimal transport: along each of four directions in turn, quantiles are mapped onto quantiles (Pitie et al.,
    "Automated colour grading using colour distribution transfer", 2007). The last two are the dyes themselves. The
    transport is computed on a sample and on a table of both amounts; the image is looked up in the table.
    """
    step = max(1, stains.eosin.shape[0] // _SAMPLE)
    wanted = np.concatenate([_cloud(companion) for companion in companions])
    values = _cloud(StainMaps(stains.haematoxylin[::step, ::step], stains.eosin[::step, ::step]))
    scale = wanted.std(axis=0) + np.float32(1e-6)
    low = np.array([stains.haematoxylin.min(), stains.eosin.min()]) / scale
    high = np.array([stains.haematoxylin.max(), stains.eosin.max()]) / scale + 1e-3
    axes = [np.linspace(low[i], high[i], _TABLE, dtype=np.float32) for i in range(2)]
    table = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    table = _transport(values / scale, wanted / scale, table)
    places = [
        (amount / scale[i] - low[i]) / (high[i] - low[i]) * (_TABLE - 1)
        for i, amount in enumerate((stains.haematoxylin, stains.eosin))
    ]
    looked_up = (
        ndimage.map_coordinates(table[:, i].reshape(_TABLE, _TABLE), places, order=1, output=np.float32)
        for i in range(2)
    )
    haematoxylin, eosin = (np.maximum(amount * scale[i], 0.0) for i, amount in enumerate(looked_up))
    return StainMaps(haematoxylin, eosin)


def _transport(values: FloatMap, wanted: FloatMap, points: FloatMap) -> FloatMap:
    """Move `points` (M, 2) the way that brings the distribution of `values` (N, 2) to that of `wanted` (K, 2)."""
    moving = np.concatenate([values, points])
    for direction in _DIRECTIONS * _ROUNDS:
        axis = np.array(direction, dtype=np.float32) / np.float32(np.hypot(*direction))
        projected = _project(moving, axis)
        known = _quantiles(projected[: len(values)])
        target = _quantiles(_project(wanted, axis))
        mapped = np.interp(projected, known, target) + np.minimum(projected - known[0], 0.0)
        mapped += np.maximum(projected - known[-1], 0.0)
        moving += (mapped.astype(np.float32) - projected)[:, None] * axis
    return moving[len(values) :]


def _cloud(stains: StainMaps) -> FloatMap:
    return np.stack([stains.haematoxylin.ravel(), stains.eosin.ravel()], axis=1).astype(np.float32)


def _project(values: FloatMap, axis: FloatMap) -> FloatMap:
    return values[:, 0] * axis[0] + values[:, 1] * axis[1]


def _quantiles(values: FloatMap) -> npt.NDArray[np.float64]:
    """Return the quantiles at `_LEVELS`, strictly rising."""
    ordered = np.sort(values)
    picked = ordered[np.rint(_LEVELS * (len(ordered) - 1)).astype(np.intp)]
    return picked.astype(np.float64) + _LEVELS * 1e-6
