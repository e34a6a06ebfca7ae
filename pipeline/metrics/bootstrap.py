"""How far scores would vary with other patients: bootstrap over patients, from one histogram per image.

A resample draws as many patients as there are, with replacement; all images of a patient go together, since images of
one patient are alike. An image then counts as often as its patient was drawn, so that the pooled histograms of all
resamples are one matrix product, whatever the number of pixels. Both models are scored on the same resamples.

Memory grows by some 100 bytes with each group, for how often 100 resamples draw it: histograms are read block by block.
Sums are of whole numbers, so that how many are taken at a time changes no score.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.pixel_histogram import STEPS, HistogramRows

RESAMPLED_SCORES: Final = ("pxap", "dice", "accuracy", "balanced_accuracy")
LEVELS: Final = (0.025, 0.975)  # the 95 % percentile interval
BLOCK: Final = 100  # resamples at a time
DRAWN_AT_ONCE: Final = 2**17  # numbers of 8 bytes, before they are packed into 1

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageTable:
    """What resampling needs to know of one model's images, one row each.

    Attributes:
        histograms: N pairs, of the map over foreground and over background pixels; zeros without a mask.
        correct: bool (N,), whether the image is classified rightly.
        class_idx: int64 (N,), the true class.
        threshold: where Dice cuts the map, a multiple of 0.001.
    """

    histograms: HistogramRows
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
    tables: Mapping[str, ImageTable], *, groups: NDArray[np.int64], resamples: int, seed: int
) -> dict[str, Resamples]:
    """Return each model's scores on resamples of the groups, the same ones for every model; NaN for a single group.

    Args:
        tables: the images of each model, in one order.
        groups: int64 (N,), the number of what each image is drawn with, such as its patient; 0, 1, ...
        resamples: how many.
        seed: of the draw.
    """
    count = int(groups.max()) + 1
    if count < 2:  # nothing varies, which would look like certainty
        return {name: {score: np.full(resamples, np.nan) for score in RESAMPLED_SCORES} for name in tables}
    generator = np.random.default_rng(seed)
    found: dict[str, list[Resamples]] = {name: [] for name in tables}
    for draws in _draws(count, resamples=resamples, generator=generator):
        for name, table in tables.items():
            found[name].append(score_weighted(table, draws, groups))
    return {
        name: {score: np.concatenate([block[score] for block in blocks]) for score in RESAMPLED_SCORES}
        for name, blocks in found.items()
    }


def score_weighted(table: ImageTable, draws: NDArray[np.integer], groups: NDArray[np.int64]) -> Resamples:
    """Return the scores of images that count as often as `draws`, integers (R, G), says of their groups, (N,)."""
    classes = np.unique(table.class_idx)
    pooled = np.zeros((len(draws), 2 * (STEPS + 1)))
    hits, images = np.zeros((len(draws), len(classes))), np.zeros((len(draws), len(classes)))
    first = 0
    for block in table.histograms.blocks():
        rows = slice(first, first := first + len(block))
        counts = draws[:, groups[rows]].astype(np.float64)  # (R, G) -> (R, n)
        of_class = np.equal.outer(table.class_idx[rows], classes).astype(np.float64)  # (n, K)
        pooled += counts @ block.reshape(len(block), -1)
        images += counts @ of_class
        hits += counts @ (of_class * table.correct[rows, None])
    foreground, background = np.split(pooled, 2, axis=1)  # (R, 1001)
    true_positive, positive = (part[:, ::-1].cumsum(axis=1)[:, ::-1] for part in (foreground, foreground + background))
    total = true_positive[:, 0]
    cut = round(table.threshold * STEPS)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(positive > 0, true_positive / positive, 0.0)
        return {
            "pxap": (precision * foreground).sum(axis=1) / total,
            "dice": np.where(total > 0, 2 * true_positive[:, cut] / (positive[:, cut] + total), np.nan),
            "accuracy": hits.sum(axis=1) / images.sum(axis=1),
            "balanced_accuracy": _balanced_accuracy(hits=hits, images=images),
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


def _draws(groups: int, *, resamples: int, generator: np.random.Generator) -> Iterator[NDArray[np.integer]]:
    """Yield how often each group is drawn, integers (up to 100, groups), of as few bytes as hold them.

    What was yielded before is overwritten.
    """
    even = np.full(groups, 1 / groups)
    draws = np.empty((min(BLOCK, resamples), groups), dtype=np.uint8)  # filled anew for each block
    at_once = max(1, DRAWN_AT_ONCE // groups)  # which changes no draw
    for first in range(0, resamples, BLOCK):
        last = min(first + BLOCK, resamples)
        for start in range(0, last - first, at_once):
            drawn = generator.multinomial(groups, even, size=min(at_once, last - first - start))
            if drawn.max() > np.iinfo(draws.dtype).max:
                draws = draws.astype(np.min_scalar_type(drawn.max()))
            draws[start : start + len(drawn)] = drawn
        yield draws[: last - first]


def _balanced_accuracy(*, hits: FloatArray, images: FloatArray) -> FloatArray:
    """Return the mean over the classes that a resample holds of the share classified rightly: (R, K) -> (R,)."""
    shares = np.ascontiguousarray((hits / images).T)  # a class after the other, so that the sum has one order
    mean: FloatArray = np.nansum(shares, axis=0) / (~np.isnan(shares)).sum(axis=0)
    return mean


def _quantiles(values: FloatArray) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    if not known.size:
        return float("nan"), float("nan")
    low, high = np.quantile(known, LEVELS)
    return float(low), float(high)
