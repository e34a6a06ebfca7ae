"""Pixels pooled over any number of images into histograms of constant size, and PxAP, which is read from them.

One rule holds everywhere: a pixel counts as predicted foreground at threshold t when its map value is at least t.
Values and thresholds are compared as float32, so that 0.3 written by a person and 0.3 in a map are equal although
neither is 3/10: bin k of a histogram holds the values v with float32(k / 1000) <= v < float32((k + 1) / 1000), and the
last bin holds 1.0 alone.

What a bootstrap needs of every image is its pair of histograms. Kept in memory, that would be 8 kB per image and model.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from os import SEEK_END
from tempfile import SpooledTemporaryFile
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.data.maps import EvaluationBatch
from pipeline.params.errors import PixelCAMError
from pipeline.runtime.collectives import interleaved
from pipeline.runtime.threads import WORKERS, in_threads

STEPS: Final = 1000  # thresholds 0, 1/1000, ..., 1
PIECE: Final = (
    2**19
)  # pixels counted at a time in a thread: of fewer, threads would wait for each other; of more, memory


@dataclass(frozen=True, kw_only=True, eq=False)
class PixelHistogram:
    """Map values of foreground and of background pixels: two int64 tensors (1001,), or (B, 1001) of as many images."""

    foreground: Tensor
    background: Tensor


def thresholds() -> Tensor:
    """Return the thresholds 0, 0.001, ..., 1 as float64 (1001,)."""
    return torch.arange(STEPS + 1, dtype=torch.float64) / STEPS


def empty_histogram(*, device: torch.device) -> PixelHistogram:
    """Return the histogram of no pixel at all."""
    zeros = torch.zeros(STEPS + 1, dtype=torch.int64, device=device)
    return PixelHistogram(foreground=zeros, background=zeros)


def count_images(maps: Tensor, *, target: Tensor, ignore: Tensor | None = None) -> Tensor:
    """Count the pixels of each image: over its foreground, then over its background; int64 (B, 2, 1001) on the CPU.

    Where a GPU holds the maps all images are counted at once, else some in each thread.

    Args:
        maps: floating point (B, ...), values in [0, 1].
        target: bool (B, ...), True is foreground, on the same device.
        ignore: bool (B, ...), True is a pixel that does not count, likewise.

    Raises:
        PixelCAMError: a map value is NaN or outside [0, 1].
        ValueError: shapes or dtypes do not fit.
    """
    _check_pixels(preds=maps, target=target, ignore=ignore)
    values, truth = maps.detach().flatten(1), target.flatten(1)
    skipped = None if ignore is None else ignore.flatten(1)
    if maps.device.type != "cpu":
        return _count_at_once(values, truth, skipped).cpu()
    found = in_threads(
        lambda rows: _count_rows(values[rows], truth[rows], None if skipped is None else skipped[rows]),
        _groups(*values.shape),
    )
    return torch.cat([torch.zeros(0, 2, STEPS + 1, dtype=torch.int64), *found])


def add_images(histogram: PixelHistogram, images: Tensor) -> PixelHistogram:
    """Return the histogram with the pixels of images added, as `count_images` gives them; it stays on its device."""
    foreground, background = images.sum(dim=0).to(histogram.foreground.device)
    return PixelHistogram(foreground=histogram.foreground + foreground, background=histogram.background + background)


def add_histograms(one: PixelHistogram, other: PixelHistogram) -> PixelHistogram:
    """Return the histogram of the pixels of both."""
    return PixelHistogram(foreground=one.foreground + other.foreground, background=one.background + other.background)


def count_batch(histogram: PixelHistogram, *, maps: Tensor, batch: EvaluationBatch) -> PixelHistogram:
    """Return the histogram with the pixels of a batch's images that have a mask counted; the given one stays as it is.

    Args:
        histogram: what was counted before.
        maps: floating point (B, S, S) in [0, 1], of the size of the batch's masks.
        batch: says which images have a mask, and which pixels do not count.

    Raises:
        PixelCAMError: a map value is NaN or outside [0, 1].
        ValueError: shapes do not fit.
    """
    target, ignore = batch.masks, batch.ignore
    if not batch.has_mask.all():
        known = batch.has_mask.nonzero().flatten().cpu()  # numbers, for which no GPU is waited for
        maps, target = maps[known.to(maps.device)], target[known.to(target.device)]
        ignore = None if ignore is None else ignore[known.to(ignore.device)]
    ignore = None if ignore is None else ignore.to(maps.device)
    return add_images(histogram, count_images(maps, target=target.to(maps.device), ignore=ignore))


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


def _groups(images: int, pixels: int) -> list[slice]:
    """Share images among the threads, in groups that hold no more than a piece of pixels where images are small."""
    in_group = max(1, min(-(-images // WORKERS), PIECE // max(1, pixels)))
    return [slice(first, first + in_group) for first in range(0, images, in_group)]


def _count_rows(values: Tensor, truth: Tensor, ignore: Tensor | None) -> Tensor:
    """Return histograms, int64 (B, 2, 1001), of pixels (B, P) on a CPU; all that is done to a piece is done at once."""
    counted = torch.zeros(len(values), 2 * (STEPS + 1), dtype=torch.int64)
    for start in range(0, values.shape[1], PIECE):
        piece = slice(start, start + PIECE)
        check_map_values(values[:, piece], slack=0)
        bins = _bins(values[:, piece].float()).add_(truth[:, piece].short(), alpha=STEPS + 1)
        for row, of_image in enumerate(bins):
            kept = of_image if ignore is None else of_image[~ignore[row, piece]]
            counted[row] += torch.bincount(kept, minlength=2 * (STEPS + 1))
    return counted.view(-1, 2, STEPS + 1).flip(1)


def _count_at_once(values: Tensor, truth: Tensor, ignore: Tensor | None) -> Tensor:
    """Return the same on any device, from one count over all images, each with bins of its own."""
    check_map_values(values, slack=0)
    images, bins_of_image = len(values), 2 * (STEPS + 1)
    nowhere = images * bins_of_image  # where ignored pixels go
    firsts = torch.arange(images, device=values.device)[:, None] * bins_of_image
    bins = firsts + _bins(values.float()) + truth * (STEPS + 1)
    if ignore is not None:
        bins = bins.masked_fill(ignore, nowhere)
    counted = torch.bincount(bins.flatten(), minlength=nowhere + 1)[:nowhere]
    return counted.view(images, 2, STEPS + 1).flip(1)


def _bins(values: Tensor) -> Tensor:
    """Return the bin of each value, int16 (N,) of float32 (N,) in [0, 1]; many times as fast as a search."""
    steps = torch.full((), float(STEPS), device=values.device)  # a tensor, since a GPU divides by a number inexactly
    nearest = (values * steps).round_()  # the bin, or the one above it
    edge = nearest / steps  # rounded to float32, as the thresholds are
    return nearest.sub_(edge.gt_(values)).short()


def at_least(histogram: Tensor) -> Tensor:
    """Return for each bin how many values lie in it or above: int64 (..., 1001), on the same device."""
    return histogram.flip(-1).cumsum(-1).flip(-1)


def check_map_values(maps: Tensor, *, slack: float) -> None:
    """Refuse maps with a value that is NaN or outside [0, 1] by more than `slack`.

    Raises:
        PixelCAMError: so it is.
    """
    if maps.numel() == 0:
        return
    lowest, highest = torch.stack(maps.detach().aminmax()).tolist()
    if not (lowest >= -slack and highest <= 1 + slack):  # so written, NaN fails too
        raise PixelCAMError(
            f"map values must lie in [0, 1], got {lowest} to {highest}; "
            "NaN comes from a training that diverged: lower its learning rate and train again"
        )


def _check_pixels(*, preds: Tensor, target: Tensor, ignore: Tensor | None) -> None:
    """Raise a `ValueError` for tensors of other shape or dtype than pixels are counted from."""
    for name, tensor in {"target": target, "ignore": target if ignore is None else ignore}.items():
        if tensor.dtype != torch.bool or tensor.shape != preds.shape:
            raise ValueError(
                f"{name} must be bool {tuple(preds.shape)} like preds, got {tensor.dtype} {tuple(tensor.shape)}"
            )
    if not preds.is_floating_point():
        raise ValueError(f"preds must be floating point, got {preds.dtype}")


KEPT_BYTES: Final = 2**23  # in memory; the file lies where TMPDIR says
ROWS_AT_ONCE: Final = 512
ROW_SHAPE: Final = (2, STEPS + 1)
ROW_BYTES: Final = 4 * 2 * (STEPS + 1)

Int32Array = NDArray[np.int32]


class HistogramRows:
    """Pairs of histograms, int32 (2, 1001) each: the map over foreground pixels, and over background pixels."""

    def __init__(self) -> None:
        self._file = SpooledTemporaryFile(max_size=KEPT_BYTES)  # noqa: SIM115 - it lives as long as the rows do
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, rows: Int32Array) -> None:
        """Add the pairs of some images, int32 (n, 2, 1001).

        Raises:
            ValueError: they have another shape or dtype.
        """
        if rows.shape[1:] != ROW_SHAPE or rows.dtype != np.int32:
            raise ValueError(f"rows must be int32 (n, 2, {STEPS + 1}), got {rows.dtype} {rows.shape}")
        self._file.seek(0, SEEK_END)  # a reader may have left it anywhere
        self._file.write(rows.tobytes())
        self._count += len(rows)

    def blocks(self) -> Iterator[Int32Array]:
        """Yield all pairs in their order, int32 (n, 2, 1001) at a time, n up to 512."""
        for first in range(0, self._count, ROWS_AT_ONCE):
            self._file.seek(first * ROW_BYTES)
            block = self._file.read(min(ROWS_AT_ONCE, self._count - first) * ROW_BYTES)
            yield np.frombuffer(block, dtype=np.int32).reshape(-1, *ROW_SHAPE)
