"""Score models on domains: both tasks, image by image and pooled, from one pass over each domain's images.

The teacher's CAM is asked for the true class, as published for methods of its kind; PixelCAM's map knows no class. What
turns a map into a region is a threshold chosen once, on the source domain's validation masks, and used everywhere.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import isnan
from typing import Final

import torch
from torch import Tensor

from pipeline import metrics, pixel_histogram
from pipeline.errors import PixelCAMError
from pipeline.localization import EvaluationBatch, Localization, Localizer
from pipeline.pixel_histogram import PixelHistogram
from pipeline.resizing import resize_map

FIXED_THRESHOLD: Final = 0.5  # where no validation mask may be used: the middle of the scale, chosen by nobody's eyes
ROUNDING_SLACK: Final = 1e-3  # how far a map may leave [0, 1] by the arithmetic of its making


class ModelName(StrEnum):
    """The two models that are compared, as they are called in every file."""

    TEACHER = "teacher"
    PIXELCAM = "pixelcam"


class ThresholdSource(StrEnum):
    """How a threshold came about: chosen on validation masks, or fixed for want of them."""

    VALIDATION = "validation"
    FIXED = "fixed"


@dataclass(frozen=True)
class Threshold:
    """Map values at least as high as `value` count as foreground."""

    value: float
    source: ThresholdSource


@dataclass(frozen=True, kw_only=True)
class EvaluationDomain:
    """A domain to be scored on: its class names in the order of `class_idx`, and its test images, read once."""

    name: str
    classes: tuple[str, ...]
    batches: Iterable[EvaluationBatch]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """A model's scores on a domain, fractions in [0, 1]; NaN where a score is not defined.

    `pxap`, `dice` and `iou` are pooled over the pixels of all images with a mask, the latter two at `threshold`.
    `foreground_share` is what `pxap` would be for a map that knows nothing.
    """

    pxap: float
    accuracy: float
    balanced_accuracy: float
    dice: float
    iou: float
    threshold: float
    threshold_source: ThresholdSource
    foreground_share: float
    predicted_classes: dict[str, float]
    images: int
    images_with_mask: int


@dataclass(frozen=True, kw_only=True)
class ImageScores:
    """A model's scores on one image; NaN where there is no mask, or for Dice and IoU no region of interest in it.

    `probability` is the predicted probability of the true class. Shares are fractions of the image's pixels, except
    that `false_positive_share` is the share of the background that is predicted foreground.
    """

    image: str
    class_idx: int
    predicted_idx: int
    probability: float
    dice: float
    iou: float
    foreground_share_predicted: float
    foreground_share_mask: float
    false_positive_share: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One model on one domain: scores, the images they come from, and the pooled pixels that curves are drawn from."""

    domain: str
    model: ModelName
    classes: tuple[str, ...]
    scores: Scores
    images: tuple[ImageScores, ...]
    histogram: PixelHistogram


def choose_thresholds(
    localizers: Mapping[ModelName, Localizer],
    batches: Iterable[EvaluationBatch],
    *,
    map_size: int,
    device: torch.device,
) -> dict[ModelName, Threshold]:
    """Choose for each model the threshold with the highest pooled Dice on validation images.

    Args:
        localizers: the models.
        batches: validation images of the source; only masks with `has_mask` count, so a mask that must not be used for
            selection is to be hidden there. Without any foreground pixel the threshold is 0.5, and said to be fixed.
        map_size: side in pixels at which maps and masks are compared.
        device: where the models live.
    """
    histograms = dict.fromkeys(localizers, pixel_histogram.empty_histogram(device=device))
    for batch in batches:
        if not batch.has_mask.any():
            continue
        for name, localizer in localizers.items():
            localization = localize(localizer, batch, map_size=map_size, device=device)
            histograms[name] = _count_pixels(histograms[name], maps=localization.maps, batch=batch)
    return {name: _threshold(histogram) for name, histogram in histograms.items()}


def evaluate_domain(
    localizers: Mapping[ModelName, Localizer],
    domain: EvaluationDomain,
    *,
    thresholds: Mapping[ModelName, Threshold],
    map_size: int,
    device: torch.device,
) -> tuple[Evaluation, ...]:
    """Score every model on a domain; the images are read once, and memory does not grow with their pixels.

    Args:
        localizers: the models, in the order of the result.
        domain: the images and what their classes are called there.
        thresholds: where each model's map becomes a region.
        map_size: side in pixels at which maps and masks are compared.
        device: where the models live.

    Raises:
        PixelCAMError: the domain has no images, or a model gives NaN or values outside [0, 1].
        ValueError: shapes do not fit.
    """
    histograms = dict.fromkeys(localizers, pixel_histogram.empty_histogram(device=device))
    images: dict[ModelName, list[ImageScores]] = {name: [] for name in localizers}
    masks = 0
    for batch in domain.batches:
        masks += int(batch.has_mask.sum())
        for name, localizer in localizers.items():
            localization = localize(localizer, batch, map_size=map_size, device=device)
            histograms[name] = _count_pixels(histograms[name], maps=localization.maps, batch=batch)
            images[name].extend(score_images(localization, batch, threshold=thresholds[name].value))
    if not all(images.values()):
        raise PixelCAMError(f"domain '{domain.name}' has no test images to score; its manifest must list some")
    return tuple(
        Evaluation(
            domain=domain.name,
            model=name,
            classes=domain.classes,
            scores=_pool(images[name], histograms[name], thresholds[name], classes=domain.classes, masks=masks),
            images=tuple(images[name]),
            histogram=histograms[name],
        )
        for name in localizers
    )


def localize(localizer: Localizer, batch: EvaluationBatch, *, map_size: int, device: torch.device) -> Localization:
    """Run a model on a batch and bring its maps to the size at which scores and pictures want them.

    Returns:
        `image_logits` float32 (B, K) and `maps` float32 (B, map_size, map_size) in [0, 1], detached.

    Raises:
        PixelCAMError: the model gives NaN, or map values outside [0, 1].
    """
    raw = localizer(batch.images.to(device), batch.class_idx.to(device))
    logits = raw.image_logits.detach().float()
    if not logits.isfinite().all():
        raise PixelCAMError("the model gives class logits that are not finite; lower its learning rate and train again")
    return Localization(logits, resize_maps(raw.maps, map_size=map_size))


def resize_maps(maps: Tensor, *, map_size: int) -> Tensor:
    """Resize maps (B, H, W) bilinearly to float32 (B, map_size, map_size) in [0, 1].

    Raises:
        PixelCAMError: a value is NaN or lies outside [0, 1] by more than rounding.
    """
    maps = maps.detach().float()
    pixel_histogram.check_map_values(maps, slack=ROUNDING_SLACK)
    return resize_map(maps, (map_size, map_size)).clamp(0, 1)


def score_images(localization: Localization, batch: EvaluationBatch, *, threshold: float) -> list[ImageScores]:
    """Score each image of a batch by itself; maps and masks must be of one size."""
    device = localization.maps.device
    masks = batch.masks.to(device)
    ignore = None if batch.ignore is None else batch.ignore.to(device)
    counts = metrics.counts_per_image(preds=localization.maps, target=masks, threshold=threshold, ignore=ignore)
    positive = counts.true_positive + counts.false_positive
    foreground = counts.true_positive + counts.false_negative
    background = counts.false_positive + counts.true_negative
    pixels = (foreground + background).cpu().double()
    unknown = ~batch.has_mask.cpu()
    probabilities = localization.image_logits.softmax(dim=1).cpu()
    columns = {
        "class_idx": batch.class_idx,
        "predicted_idx": probabilities.argmax(dim=1),
        "probability": probabilities.gather(1, batch.class_idx.cpu().unsqueeze(1)).squeeze(1),
        "dice": metrics.dice(counts).masked_fill(unknown, torch.nan),
        "iou": metrics.iou(counts).masked_fill(unknown, torch.nan),
        "foreground_share_predicted": positive.cpu() / pixels,
        "foreground_share_mask": (foreground.cpu() / pixels).masked_fill(unknown, torch.nan),
        "false_positive_share": (counts.false_positive.cpu().double() / background.cpu()).masked_fill(
            unknown, torch.nan
        ),
    }
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [
        ImageScores(image=image, **dict(zip(columns, row, strict=True)))
        for image, row in zip(batch.image_ids, rows, strict=True)
    ]


def _count_pixels(histogram: PixelHistogram, *, maps: Tensor, batch: EvaluationBatch) -> PixelHistogram:
    """Add the pixels of the images that have a mask."""
    known = batch.has_mask.to(maps.device)
    ignore = None if batch.ignore is None else batch.ignore.to(maps.device)[known]
    target = batch.masks.to(maps.device)[known]
    return pixel_histogram.update_histogram(histogram, preds=maps[known], target=target, ignore=ignore)


def _threshold(histogram: PixelHistogram) -> Threshold:
    value = metrics.best_dice_threshold(histogram)
    if isnan(value):
        return Threshold(FIXED_THRESHOLD, ThresholdSource.FIXED)
    return Threshold(value, ThresholdSource.VALIDATION)


def _pool(
    images: Sequence[ImageScores],
    histogram: PixelHistogram,
    threshold: Threshold,
    *,
    classes: tuple[str, ...],
    masks: int,
) -> Scores:
    predicted = torch.tensor([image.predicted_idx for image in images])
    truth = torch.tensor([image.class_idx for image in images])
    counts = metrics.counts_at(histogram, threshold=threshold.value)
    foreground, background = (int(part.sum()) for part in (histogram.foreground, histogram.background))
    return Scores(
        pxap=pixel_histogram.pxap(histogram),
        accuracy=metrics.accuracy(preds=predicted, target=truth),
        balanced_accuracy=metrics.balanced_accuracy(preds=predicted, target=truth),
        dice=metrics.dice(counts).item(),
        iou=metrics.iou(counts).item(),
        threshold=threshold.value,
        threshold_source=threshold.source,
        foreground_share=foreground / (foreground + background) if foreground else float("nan"),
        predicted_classes=metrics.predicted_class_shares(preds=predicted, classes=classes),
        images=len(images),
        images_with_mask=masks,
    )
