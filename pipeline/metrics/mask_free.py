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
from torch import Tensor

from pipeline.metrics.curves import PixelCounts
from pipeline.metrics.localization import RegionScores, score_region
from pipeline.metrics.pixel_histogram import STEPS, HistogramRows, PixelHistogram, add_images, at_least, count_images

LARGEST_LOGIT: Final = 8.0  # of a bin
ALL_OR_NOTHING: Final = 800.0  # a logit whose sigmoid is 1 to the last bit, and 0 where it is negative
HALVINGS: Final = 50  # from 1,600 down to 2e-12


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
    (shift,) = _fit_shifts(pixels[None], foreground_share=foreground_share, temperature=temperature).tolist()
    return Correction(temperature=temperature, shift=shift)


def _fit_shifts(pixels: Tensor, *, foreground_share: float, temperature: float) -> Tensor:
    """Return the shift for each row of pixels per bin, float64 (B, 1001), none of them empty: float64 (B,).

    The mean grows with the shift, so halving an interval finds it.
    """
    logits = _bin_logits() / temperature
    share = pixels / pixels.sum(dim=1, keepdim=True)
    high = torch.full((len(pixels),), ALL_OR_NOTHING + LARGEST_LOGIT / temperature, dtype=torch.float64)
    low = -high
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        below = (share * (logits + middle[:, None]).sigmoid()).sum(dim=1) < foreground_share
        low, high = low.where(~below, middle), high.where(below, middle)
    return (low + high) / 2


def expected_dice(histogram: PixelHistogram, *, correction: Correction) -> Tensor:
    """Return at each threshold the Dice that is expected if corrected values are probabilities, float64 (1001,).

    It is 2 TP / (predicted + true foreground) of expected pixels; NaN without pixels.
    """
    return _expected_dice(_pixels(histogram), values=correction.values())


def _expected_dice(pixels: Tensor, *, values: Tensor) -> Tensor:
    foreground = pixels * values
    return 2 * at_least(foreground) / (at_least(pixels) + foreground.sum(dim=-1, keepdim=True))


def mask_free_threshold(histogram: PixelHistogram, *, correction: Correction) -> float:
    """Return the threshold of uncorrected maps with the highest expected Dice; of equally good ones the highest.

    Args:
        histogram: map values of at least one pixel; which pixels are foreground is not looked at.
        correction: as fitted to it.
    """
    return int(_highest_best(expected_dice(histogram, correction=correction))) / STEPS


def _highest_best(expected: Tensor) -> Tensor:
    """Return the last index with the highest value along the last dimension, int64 (...)."""
    return expected.shape[-1] - 1 - expected.flip(-1).argmax(dim=-1)


def counts_at_own_thresholds(images: Tensor, *, foreground_share: float, temperature: float) -> PixelCounts:
    """Return pixel counts of images each of which is cut at a threshold of its own, int64 (B,).

    Each image is corrected and cut by itself, as if it were all there is: no other image is looked at, and no mask.

    Args:
        images: histograms (B, 2, 1001), foreground before background, as `count_images` gives them; none without pixel.
        foreground_share: in (0, 1), presumed of every image.
        temperature: above 0, presumed.
    """
    pixels = images.sum(dim=1).double()
    shifts = _fit_shifts(pixels, foreground_share=foreground_share, temperature=temperature)
    values = (_bin_logits() / temperature + shifts[:, None]).sigmoid()
    cut = _highest_best(_expected_dice(pixels, values=values))
    marked = at_least(images).gather(2, cut[:, None, None].expand(-1, 2, 1)).squeeze(2).long()  # (B, 2)
    missed = images.sum(dim=2).long() - marked
    return PixelCounts(
        true_positive=marked[:, 0],
        false_positive=marked[:, 1],
        false_negative=missed[:, 0],
        true_negative=missed[:, 1],
    )


def score_own_thresholds(rows: HistogramRows, *, foreground_share: float, temperature: float) -> RegionScores:
    """Return the scores of pooled pixels of images, each cut at its own threshold; images without mask do not count.

    Args:
        rows: the pair of histograms of each image; all 0 without mask.
        foreground_share: in (0, 1), presumed of every image.
        temperature: above 0, presumed.
    """
    all_images, in_vain = (torch.zeros(4, dtype=torch.int64) for _ in range(2))
    for block in rows.blocks():
        images = torch.from_numpy(block.copy())
        images = images[images.flatten(1).any(dim=1)]
        counts = counts_at_own_thresholds(images, foreground_share=foreground_share, temperature=temperature)
        stacked = torch.stack(
            [counts.true_positive, counts.false_positive, counts.false_negative, counts.true_negative]
        )  # (4, B)
        all_images += stacked.sum(dim=1)
        in_vain += stacked[:, ~images[:, 0].any(dim=1)].sum(dim=1)
    return score_region(_as_counts(all_images), in_vain=_as_counts(in_vain), threshold=float("nan"))


def _as_counts(four: Tensor) -> PixelCounts:
    true_positive, false_positive, false_negative, true_negative = four
    return PixelCounts(
        true_positive=true_positive,
        false_positive=false_positive,
        false_negative=false_negative,
        true_negative=true_negative,
    )


def _pixels(histogram: PixelHistogram) -> Tensor:
    return (histogram.foreground + histogram.background).cpu().double()


def _bin_logits() -> Tensor:
    """Return a logit for each bin, finite at both ends: that of the bin's middle, the scale divided into 1,001."""
    return torch.logit((torch.arange(STEPS + 1, dtype=torch.float64) + 0.5) / (STEPS + 1))
