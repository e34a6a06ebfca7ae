"""How far scores would vary with other patients: bootstrap over patients, from one histogram per image.

A resample draws as many patients as there are, with replacement; all images of a patient go together, since images of
one patient are alike. An image then counts as often as its patient was drawn, so that the pooled histograms of all
resamples are one matrix product, whatever the number of pixels. Both models are scored on the same resamples.

Memory: 8 kB per image and model for the histograms, twice that while a model is resampled, and 800 bytes per image for
the weights of 100 resamples at a time.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.pixel_histogram import STEPS

RESAMPLED_SCORES: Final = ("pxap", "dice", "accuracy", "balanced_accuracy")
LEVELS: Final = (0.025, 0.975)  # the 95 % percentile interval
BLOCK: Final = 100  # resamples at a time

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageTable:
    """What resampling needs to know of one model's images, one row each.

    Attributes:
        foreground: int32 (N, 1001), histogram of the map over foreground pixels; zeros without a mask.
        background: int32 (N, 1001), likewise over background pixels.
        correct: bool (N,), whether the image is classified rightly.
        class_idx: int64 (N,), the true class.
        threshold: where Dice cuts the map, a multiple of 0.001.
    """

    foreground: NDArray[np.int32]
    background: NDArray[np.int32]
    correct: NDArray[np.bool_]
    class_idx: NDArray[np.int64]
    threshold: float


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A 95 % percentile interval; NaN where it is not defined."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One score minus another, its 95 % percentile interval, and the two-sided p value of there being no difference."""

    difference: float
    low: float
    high: float
    p_value: float


Resamples = dict[str, FloatArray]  # by score, float64 (R,), NaN where a resample leaves it undefined


def resample(
    tables: Mapping[str, ImageTable], *, groups: Sequence[Hashable], resamples: int, seed: int
) -> dict[str, Resamples]:
    """Return each model's scores on resamples of the groups, the same ones for every model; NaN for a single group.

    Args:
        tables: the images of each model, in one order.
        groups: of each image, what it is drawn with, such as its patient.
        resamples: how many.
        seed: of the draw.
    """
    index = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    if len(index) < 2:  # nothing varies, which would look like certainty
        return {name: {score: np.full(resamples, np.nan) for score in RESAMPLED_SCORES} for name in tables}
    member = np.array([index[group] for group in groups])
    generator = np.random.default_rng(seed)
    found: dict[str, list[Resamples]] = {name: [] for name in tables}
    for draws in _draws(len(index), resamples=resamples, generator=generator):
        weights = draws[:, member].astype(np.float64)  # (R, groups) -> (R, N)
        for name, table in tables.items():
            found[name].append(score_weighted(table, weights))
    return {
        name: {score: np.concatenate([block[score] for block in blocks]) for score in RESAMPLED_SCORES}
        for name, blocks in found.items()
    }


def score_weighted(table: ImageTable, weights: FloatArray) -> Resamples:
    """Return the scores of images that count as often as `weights`, float64 (R, N), says."""
    foreground, background = weights @ table.foreground, weights @ table.background  # (R, 1001)
    true_positive, positive = (part[:, ::-1].cumsum(axis=1)[:, ::-1] for part in (foreground, foreground + background))
    total = true_positive[:, 0]
    cut = round(table.threshold * STEPS)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(positive > 0, true_positive / positive, 0.0)
        return {
            "pxap": (precision * foreground).sum(axis=1) / total,
            "dice": np.where(total > 0, 2 * true_positive[:, cut] / (positive[:, cut] + total), np.nan),
            "accuracy": weights @ table.correct / weights.sum(axis=1),
            "balanced_accuracy": _balanced_accuracy(table, weights),
        }


def interval(values: FloatArray) -> Interval:
    """Return the percentile interval of resampled scores; those that are not defined are left out."""
    low, high = _quantiles(values)
    return Interval(low=low, high=high)


def compare(values: FloatArray, other: FloatArray, *, difference: float) -> Difference:
    """Return how one score differs from another on the same resamples.

    The p value is twice the share of resamples on which the difference has the other sign or none, counting the data
    themselves as one more, so that it is never 0; at most 1.

    Args:
        values: float64 (R,), of the one.
        other: float64 (R,), of the other.
        difference: of the scores on all images.
    """
    differences = values - other
    known = differences[~np.isnan(differences)]
    low, high = _quantiles(known)
    against = min(int((known <= 0).sum()), int((known >= 0).sum()))
    p_value = min(1.0, 2 * (1 + against) / (1 + len(known))) if len(known) else float("nan")
    return Difference(difference=difference, low=low, high=high, p_value=p_value)


def _draws(groups: int, *, resamples: int, generator: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Yield how often each group is drawn, int64 (up to 100, groups)."""
    even = np.full(groups, 1 / groups)
    for first in range(0, resamples, BLOCK):
        yield generator.multinomial(groups, even, size=min(BLOCK, resamples - first))


def _balanced_accuracy(table: ImageTable, weights: FloatArray) -> FloatArray:
    """Return the mean over the classes that a resample holds of the share classified rightly, float64 (R,)."""
    shares = []
    for index in np.unique(table.class_idx):
        of_class = table.class_idx == index
        shares.append((weights @ (of_class & table.correct)) / (weights @ of_class))
    stacked = np.stack(shares)
    mean: FloatArray = np.nansum(stacked, axis=0) / (~np.isnan(stacked)).sum(axis=0)
    return mean


def _quantiles(values: FloatArray) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    if not known.size:
        return float("nan"), float("nan")
    low, high = np.quantile(known, LEVELS)
    return float(low), float(high)
