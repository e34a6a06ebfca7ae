"""PxAP at 1,001 thresholds against `numpy.histogram` image by image, as the published evaluator counts."""

from collections.abc import Iterator
from functools import partial
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.networks import smooth_maps
from benchmarks.outcome import Outcome, Reach, seconds, speed
from benchmarks.settings import Settings
from benchmarks.timing import Times, side_by_side
from pipeline.metrics.pixel_histogram import STEPS, add_images, count_images, empty_histogram, pxap, thresholds

BATCH: Final = 8  # as params.yaml has it for `evaluate_ood`
PASSES: Final = 10  # of ours, so that both works are timed for about as long
CPU: Final = torch.device("cpu")


def measure(settings: Settings) -> Iterator[Outcome]:
    """Yield the speed, in one go and in batches as evaluation counts them, and how far the values are apart."""
    device = settings.fabric.device
    count, size = (3, 32) if settings.quick else (200, 512)
    maps, masks = random_maps(count, size)
    on_device = maps.to(device), masks.to(device)
    found: dict[str, float] = {}

    def ours(batch: int) -> None:
        for _ in range(PASSES):
            histogram = empty_histogram(device=CPU)
            for first in range(0, count, batch):
                heat, mask = (part[first : first + batch] for part in on_device)
                histogram = add_images(histogram, count_images(heat, target=mask))
            found["ours"] = pxap(histogram)

    def theirs() -> None:
        found["numpy"] = reference_pxap(maps.numpy(), masks.numpy())

    for batch in (count, BATCH):
        taken = side_by_side(partial(ours, batch), theirs, rounds=settings.rounds(5), device=device)
        times = Times(tuple(each / PASSES for each in taken.ours), taken.theirs)
        case = f"{count} maps of {size}x{size}, {batch} at once"
        yield speed("pooled_pixels", case, "PxAP", "numpy.histogram per image", times=times, target=20)
        yield Outcome(
            row="pooled_pixels",
            case=case,
            work="PxAP",
            against="numpy.histogram per image",
            figure=abs(found["ours"] - found["numpy"]),
            unit="apart",
            reach=Reach.AT_MOST,
            target=1e-9,
            details={**seconds(times), **found},
        )


def random_maps(count: int, size: int) -> tuple[Tensor, Tensor]:
    """Return maps float32 and masks bool, (count, size, size): noisy blobs, foreground where they are rather high."""
    blobs = smooth_maps(count, size)[:, 0]
    noise = torch.rand(blobs.shape, generator=torch.Generator().manual_seed(1))
    return (0.7 * blobs + 0.3 * noise).clamp(0, 1), blobs > 0.55


def reference_pxap(maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> float:
    """Return PxAP from two `numpy.histogram` per image, thresholds compared as float32 like here."""
    edges = np.append(thresholds().float().numpy(), np.float32(2))
    counts = np.zeros((2, STEPS + 1))
    for heat, mask in zip(maps, masks, strict=True):
        counts[0] += np.histogram(heat[mask], bins=edges)[0]
        counts[1] += np.histogram(heat[~mask], bins=edges)[0]
    true_positive, false_positive = counts[:, ::-1].cumsum(axis=1)
    with np.errstate(invalid="ignore"):
        precision = np.nan_to_num(true_positive / (true_positive + false_positive))
    gained = np.diff(true_positive / true_positive[-1], prepend=0)
    return float((precision * gained).sum())
