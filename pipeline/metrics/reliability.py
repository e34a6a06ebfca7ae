"""Whether a map means what it says: of the pixels that it calls foreground with 30 %, 30 in a hundred should be.

All is read from pooled histograms, so it costs no pass over the pixels. A pixel counts with the middle of its bin,
which is off by 0.0005 at most, and so is every mean of map values below.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from pipeline.metrics.pixel_histogram import STEPS, PixelHistogram

RELIABILITY_BINS: Final = 20  # edges 0, 0.05, ..., 1 are edges of the histogram too, so no pixel is in doubt


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """The pixels whose map values lie in one of 20 equal bins.

    Attributes:
        map: mean of their map values.
        foreground: share of them that is foreground.
        share: their share of all pixels; the bins' add up to 1.
    """

    map: float
    foreground: float
    share: float


def bin_values() -> Tensor:
    """Return the value that a pixel of each bin of a histogram counts with, float64 (1001,): the bin's middle."""
    values = (torch.arange(STEPS + 1, dtype=torch.float64) + 0.5) / STEPS
    values[-1] = 1.0  # the last bin holds 1 alone
    return values


def mean_map_value(histogram: PixelHistogram) -> float:
    """Return the mean of the map over pooled pixels: the share of foreground that it says; NaN without pixels."""
    pixels = (histogram.foreground + histogram.background).cpu().double()
    return ((pixels * bin_values()).sum() / pixels.sum()).item()


def reliability_bins(histogram: PixelHistogram, *, values: Tensor | None = None) -> dict[str, ReliabilityBin]:
    """Return the bins that hold a pixel, ascending, each named by its lower edge: "0.00", "0.05", ..., "0.95".

    Bin k holds the values from k/20 up to, not including, (k + 1)/20; the last holds 1 too.

    Args:
        histogram: pooled pixels.
        values: float64 (1001,) in [0, 1], what the pixels of each bin of the histogram are taken to say; by default
            what the map says.
    """
    values = bin_values() if values is None else values
    foreground, background = histogram.foreground.cpu().double(), histogram.background.cpu().double()
    pixels = foreground + background
    bins = (values * RELIABILITY_BINS).long().clamp(max=RELIABILITY_BINS - 1)
    held, positive, said = (
        torch.zeros(RELIABILITY_BINS, dtype=torch.float64).index_add(0, bins, part)
        for part in (pixels, foreground, pixels * values)
    )
    return {
        f"{index / RELIABILITY_BINS:.2f}": ReliabilityBin(
            map=(said[index] / held[index]).item(),
            foreground=(positive[index] / held[index]).item(),
            share=(held[index] / pixels.sum()).item(),
        )
        for index in held.nonzero().flatten().tolist()
    }


def pixel_calibration_error(bins: dict[str, ReliabilityBin]) -> float:
    """Return the expected calibration error of a map: the bins' distance of said from true, weighted by their pixels.

    NaN without pixels. Source: Sec. 2 of "On Calibration of Modern Neural Networks", ICML 2017, for two classes and the
    probability of foreground.
    """
    if not bins:
        return float("nan")
    return sum(each.share * abs(each.map - each.foreground) for each in bins.values())
