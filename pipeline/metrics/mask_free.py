"""Maps corrected towards probabilities, and a threshold for them, from map values alone: no mask is looked at.

A pixel head learns from as many foreground as background pixels, drawn from the ends of a CAM. So the share of
foreground among what it learns from is not that of images, and its logits are steeper than all pixels deserve. Both
are put right by what is presumed: a temperature, and a share of foreground, which the mean of the corrected map is to
have (a shift of the logits corrects a prior: Saerens et al., "Adjusting the Outputs of a Classifier to New a Priori
Probabilities", Neural Computation 2002). Of corrected maps the expected Dice at each threshold is known, and the best
one is taken ("Optimal Thresholding of Classifiers to Maximize F1 Measure", ECML 2014).
"""

from dataclasses import dataclass
from typing import Final

import torch
from scipy.optimize import brentq
from torch import Tensor

from pipeline.metrics.pixel_histogram import STEPS, PixelHistogram, add_images, at_least, count_images

LARGEST_LOGIT: Final = 8.0  # of a bin
ALL_OR_NOTHING: Final = 800.0  # a logit whose sigmoid is 1 to the last bit, and 0 where it is negative


@dataclass(frozen=True, kw_only=True)
class Correction:
    """What makes a map value v a probability: sigmoid(logit(v) / temperature + shift)."""

    temperature: float
    shift: float

    def values(self) -> Tensor:
        """Return the corrected value of the pixels of each bin of a histogram, ascending: float64 (1001,) in (0, 1)."""
        return (_bin_logits() / self.temperature + self.shift).sigmoid()


def count_unlabelled(histogram: PixelHistogram, *, maps: Tensor) -> PixelHistogram:
    """Return the histogram with all pixels of maps, floating point (B, ...) in [0, 1], added as background.

    Raises:
        PixelCAMError: a map value is NaN or outside [0, 1].
    """
    return add_images(histogram, count_images(maps, target=torch.zeros_like(maps, dtype=torch.bool)))


def fit_correction(histogram: PixelHistogram, *, foreground_share: float, temperature: float) -> Correction | None:
    """Return the correction with which the mean of the pooled map is `foreground_share`; None without pixels.

    Args:
        histogram: map values; which pixels are foreground is not looked at.
        foreground_share: in (0, 1), presumed.
        temperature: above 0, presumed; above 1 it makes the map less sure.
    """
    pixels = _pixels(histogram)
    if pixels.sum() == 0:
        return None

    def excess(shift: float) -> float:
        values = Correction(temperature=temperature, shift=shift).values()
        return ((pixels * values).sum() / pixels.sum()).item() - foreground_share

    reach = ALL_OR_NOTHING + LARGEST_LOGIT / temperature
    return Correction(temperature=temperature, shift=brentq(excess, -reach, reach, xtol=1e-9))


def expected_dice(histogram: PixelHistogram, *, correction: Correction) -> Tensor:
    """Return at each threshold the Dice that is expected if corrected values are probabilities, float64 (1001,).

    It is 2 TP / (predicted + true foreground) of expected pixels; NaN without pixels.
    """
    pixels = _pixels(histogram)
    foreground = pixels * correction.values()
    return 2 * at_least(foreground) / (at_least(pixels) + foreground.sum())


def mask_free_threshold(histogram: PixelHistogram, *, correction: Correction) -> float:
    """Return the threshold of uncorrected maps with the highest expected Dice; of equally good ones the highest.

    Args:
        histogram: map values of at least one pixel; which pixels are foreground is not looked at.
        correction: as fitted to it.
    """
    expected = expected_dice(histogram, correction=correction)
    return int((expected == expected.max()).nonzero().max()) / STEPS


def _pixels(histogram: PixelHistogram) -> Tensor:
    return (histogram.foreground + histogram.background).cpu().double()


def _bin_logits() -> Tensor:
    """Return a logit for each bin, finite at both ends: that of the bin's middle, the scale divided into 1,001."""
    return torch.logit((torch.arange(STEPS + 1, dtype=torch.float64) + 0.5) / (STEPS + 1))
