"""Tones that do not betray the class: glands have the colours of benign and malignant glands in equal parts.

Different glands hold different amounts of dye, and a histogram would tell them apart. So the joint distribution of both
dyes within them is brought to that of the glands of two other images pooled, one of either class. Light stays light and
dark stays dark: what is left to tell the class is the architecture. The stroma stays as it is, alike in both classes;
if it took part, it would give the class away by what it had to make up for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.synthetic.frame import BoolMap, FloatMap
from pipeline.synthetic.stains import StainMaps

_LEVELS = np.linspace(0.0, 1.0, 257)
_ROUNDS = 3
_ANGLES = np.pi * np.arange(5, -1, -1) / 6.0  # of the directions in the plane of both dyes
_SAMPLE = 10_000  # pixels that a distribution is taken from
_TABLE = 96  # entries along a side of the look-up table
_SMOOTHING = 2.0  # of the look-up table, entries


@dataclass(frozen=True)
class Region:
    """The stains of an image, and where in it they count."""

    stains: StainMaps
    where: BoolMap  # (H, W)


def take_tones(region: Region, companions: Sequence[Region]) -> StainMaps:
    """Bring the joint distribution of both amounts in a region to that of the companions' regions together.

    Sizes may differ. What lies outside the region stays as it is.

    Sliced optimal transport: along each of six directions in turn, quantiles are mapped onto quantiles (Pitie et al.,
    "Automated colour grading using colour distribution transfer", 2007). The transport is computed on a sample and on
    a table of both amounts; the image is looked up in the table.
    """
    stains = region.stains
    wanted = np.concatenate([_sample(companion) for companion in companions])
    values = _sample(region)
    scale = wanted.std(axis=0) + np.float32(1e-6)
    low = np.array([stains.haematoxylin.min(), stains.eosin.min()]) / scale
    high = np.array([stains.haematoxylin.max(), stains.eosin.max()]) / scale + 1e-3
    axes = [np.linspace(low[i], high[i], _TABLE, dtype=np.float32) for i in range(2)]
    table = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    shift = (_transport(values / scale, wanted / scale, table) - table).reshape(_TABLE, _TABLE, 2)
    # Smoothed, so that neighbouring tones stay neighbours: a fold would draw contours into soft slopes.
    shift = ndimage.gaussian_filter(shift, (_SMOOTHING, _SMOOTHING, 0.0), mode="nearest")
    table = table + shift.reshape(-1, 2)
    places = [
        (amount / scale[i] - low[i]) / (high[i] - low[i]) * (_TABLE - 1)
        for i, amount in enumerate((stains.haematoxylin, stains.eosin))
    ]
    looked_up = (
        ndimage.map_coordinates(table[:, i].reshape(_TABLE, _TABLE), places, order=1, output=np.float32)
        for i in range(2)
    )
    haematoxylin, eosin = (np.maximum(amount * scale[i], 0.0) for i, amount in enumerate(looked_up))
    return StainMaps(
        np.where(region.where, haematoxylin, stains.haematoxylin),
        np.where(region.where, eosin, stains.eosin),
    )


def _transport(values: FloatMap, wanted: FloatMap, points: FloatMap) -> FloatMap:
    """Move `points` (M, 2) the way that brings the distribution of `values` (N, 2) to that of `wanted` (K, 2)."""
    moving = np.concatenate([values, points])
    axes = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1).astype(np.float32)
    targets = [_quantiles(_project(wanted, axis)) for axis in axes]
    for axis, target in zip(np.tile(axes, (_ROUNDS, 1)), targets * _ROUNDS, strict=True):
        projected = _project(moving, axis)
        known = _quantiles(projected[: len(values)])
        shift = np.interp(projected, known, target - known)
        moving += shift.astype(np.float32)[:, None] * axis
    return moving[len(values) :]


def _sample(region: Region) -> FloatMap:
    """Return about `_SAMPLE` pixels' amounts of both dyes, spread evenly over the region: float32 (N, 2)."""
    amounts = [amount[region.where] for amount in (region.stains.haematoxylin, region.stains.eosin)]
    step = max(1, amounts[0].size // _SAMPLE)
    step += 1 - step % 2  # odd, so that the samples of an image with even sides do not fall into columns
    return np.stack([amount[::step] for amount in amounts], axis=1).astype(np.float32)


def _project(values: FloatMap, axis: FloatMap) -> FloatMap:
    return np.asarray(values[:, 0] * axis[0] + values[:, 1] * axis[1], dtype=np.float32)


def _quantiles(values: FloatMap) -> npt.NDArray[np.float64]:
    """Return the quantiles at `_LEVELS`, strictly rising."""
    ordered = np.sort(values)
    picked = ordered[np.rint(_LEVELS * (len(ordered) - 1)).astype(np.intp)]
    return picked.astype(np.float64) + _LEVELS * 1e-6
