"""Pixels pooled over any number of images into histograms of constant size, and PxAP, which is read from them.

One rule holds everywhere: a pixel counts as predicted foreground at threshold t when its map value is at least t.
Values and thresholds are compared as float32, so that 0.3 written by a person and 0.3 in a map are equal although
neither is 3/10: bin k of a histogram holds the values v with float32(k / 1000) <= v < float32((k + 1) / 1000), and the
last bin holds 1.0 alone.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from pipeline.collectives import interleaved
from pipeline.errors import PixelCAMError
from pipeline.localization import EvaluationBatch

STEPS: Final = 1000  # thresholds 0, 1/1000, ..., 1
PIECE: Final = 2**18  # values binned at a time, so that what is made of them stays in the processor's cache


@dataclass(frozen=True, kw_only=True, eq=False)
class PixelHistogram:
    """Map values of foreground and of background pixels, pooled over images: two int64 tensors (1001,)."""

    foreground: Tensor
    background: Tensor


def thresholds() -> Tensor:
    """Return the thresholds 0, 0.001, ..., 1 as float64 (1001,)."""
    return torch.arange(STEPS + 1, dtype=torch.float64) / STEPS


def empty_histogram(*, device: torch.device) -> PixelHistogram:
    """Return the histogram of no pixel at all."""
    zeros = torch.zeros(STEPS + 1, dtype=torch.int64, device=device)
    return PixelHistogram(foreground=zeros, background=zeros)


def update_histogram(
    histogram: PixelHistogram, *, preds: Tensor, target: Tensor, ignore: Tensor | None = None
) -> PixelHistogram:
    """Return the histogram with more pixels counted; the given one stays as it is.

    Args:
        histogram: what was counted before, on the device of the tensors below.
        preds: floating point, any shape, map values in [0, 1].
        target: bool, the same shape, True is foreground.
        ignore: bool, the same shape, True is a pixel that does not count.

    Raises:
        PixelCAMError: a map value is NaN or outside [0, 1].
        ValueError: shapes or dtypes do not fit.
    """
    check_pixels(preds=preds, target=target, ignore=ignore)
    if ignore is not None:
        preds, target = preds[~ignore], target[~ignore]
    pooled = torch.cat([histogram.background, histogram.foreground])
    values, truth = preds.detach().flatten(), target.flatten()
    for first in range(0, len(values), PIECE):
        piece = slice(first, first + PIECE)
        bins = _bins(values[piece].float()).add_(truth[piece].short(), alpha=STEPS + 1)
        pooled += torch.bincount(bins, minlength=2 * (STEPS + 1))
    return PixelHistogram(foreground=pooled[STEPS + 1 :], background=pooled[: STEPS + 1])


def add_histograms(one: PixelHistogram, other: PixelHistogram) -> PixelHistogram:
    """Return the histogram of the pixels of both."""
    return PixelHistogram(foreground=one.foreground + other.foreground, background=one.background + other.background)


def count_batch(histogram: PixelHistogram, *, maps: Tensor, batch: EvaluationBatch) -> PixelHistogram:
    """Return the histogram with the pixels of a batch's images that have a mask counted; the given one stays as it is.

    Args:
        histogram: what was counted before, on the device of the maps.
        maps: floating point (B, S, S) in [0, 1], of the size of the batch's masks.
        batch: says which images have a mask, and which pixels do not count.

    Raises:
        PixelCAMError: a map value is NaN or outside [0, 1].
        ValueError: shapes do not fit.
    """
    known = batch.has_mask.to(maps.device)
    ignore = None if batch.ignore is None else batch.ignore.to(maps.device)[known]
    target = batch.masks.to(maps.device)[known]
    return update_histogram(histogram, preds=maps[known], target=target, ignore=ignore)


def join(histogram: PixelHistogram) -> PixelHistogram:
    """Return the pixels that all processes have counted, each its own."""
    everyones = interleaved([(histogram.foreground.cpu(), histogram.background.cpu())])
    foreground, background = (torch.stack(part).sum(dim=0) for part in zip(*everyones, strict=True))
    return PixelHistogram(foreground=foreground, background=background)


def pxap(histogram: PixelHistogram) -> float:
    """Return the area under the pooled pixel precision-recall curve, a fraction in [0, 1]; NaN without foreground.

    The area is the sum over thresholds of precision times the recall gained there (PxAP, Sec. 4 of "Evaluating Weakly
    Supervised Object Localization Methods Right", CVPR 2020), which is average precision on maps quantized to 0.001.
    A map that knows nothing scores the share of foreground pixels.
    """
    gained = histogram.foreground.cpu().double()  # at thresholds[k] those pixels join whose value lies in bin k
    if gained.sum() == 0:
        return float("nan")
    true_positive, false_positive = (
        at_least(part).cpu().double() for part in (histogram.foreground, histogram.background)
    )
    # No foreground joins where nothing is predicted foreground, so its undefined precision weighs nothing.
    precision = (true_positive / (true_positive + false_positive)).nan_to_num(nan=0.0)
    return float((precision * gained).sum() / gained.sum())


def _bins(values: Tensor) -> Tensor:
    """Return the bin of each value, int16 (N,) of float32 (N,) in [0, 1]; many times as fast as a search."""
    steps = torch.full((), float(STEPS), device=values.device)  # a tensor, since a GPU divides by a number inexactly
    nearest = (values * steps).round_()  # the bin, or the one above it
    edge = nearest / steps  # rounded to float32, as the thresholds are
    return nearest.sub_(edge.gt_(values)).short()


def at_least(histogram: Tensor) -> Tensor:
    """Return for each bin how many values lie in it or above: int64 (1001,), on the same device."""
    return histogram.flip(0).cumsum(0).flip(0)


def check_map_values(maps: Tensor, *, slack: float) -> None:
    """Refuse maps with a value that is NaN or outside [0, 1] by more than `slack`.

    Raises:
        PixelCAMError: so it is.
    """
    if maps.numel() == 0:
        return
    lowest, highest = (bound.item() for bound in maps.detach().aminmax())
    if not (lowest >= -slack and highest <= 1 + slack):  # so written, NaN fails too
        raise PixelCAMError(
            f"map values must lie in [0, 1], got {lowest} to {highest}; "
            "NaN comes from a training that diverged: lower its learning rate and train again"
        )


def check_pixels(*, preds: Tensor, target: Tensor, ignore: Tensor | None) -> None:
    """Raise a `ValueError` for tensors of other shape or dtype, a `PixelCAMError` for map values outside [0, 1]."""
    for name, tensor in {"target": target, "ignore": target if ignore is None else ignore}.items():
        if tensor.dtype != torch.bool or tensor.shape != preds.shape:
            raise ValueError(
                f"{name} must be bool {tuple(preds.shape)} like preds, got {tensor.dtype} {tuple(tensor.shape)}"
            )
    if not preds.is_floating_point():
        raise ValueError(f"preds must be floating point, got {preds.dtype}")
    check_map_values(preds, slack=0)
