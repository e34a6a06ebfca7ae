"""Score models on domains: both tasks, image by image and pooled, from one pass over each domain's images.

The teacher's CAM is asked for the true class, as published for methods of its kind, and where the teacher is wrong for
the class that it predicts as well; PixelCAM's map knows no class. What turns a map into a region is a threshold chosen
once, on the source domain's validation masks, and used everywhere.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import isnan
from typing import Final

import torch
from torch import Tensor

from pipeline import metrics, pixel_histogram
from pipeline.classification import fit_temperature
from pipeline.collectives import from_first, in_order, interleaved
from pipeline.domain_scores import DomainTally, Resampling, score_domain
from pipeline.errors import PixelCAMError
from pipeline.localization import EvaluationBatch, Localization, Localizer
from pipeline.localization_scores import FIXED_THRESHOLD
from pipeline.pixel_histogram import PixelHistogram
from pipeline.resizing import resize_map
from pipeline.scores import Evaluation, Fitted, ImageScores, ModelName, Threshold, ThresholdSource

ROUNDING_SLACK: Final = 1e-3  # how far a map may leave [0, 1] by the arithmetic of its making
TAKE_A_CLASS: Final = (ModelName.TEACHER,)  # the models whose map is taken for a class


@dataclass(frozen=True, kw_only=True)
class EvaluationDomain:
    """A domain to be scored on: its class names in the order of `class_idx`, and its test images, read once.

    Of several processes each is given its share of the batches, see `ScoredSet.share`. `patients` names the patient of
    each image that has one.
    """

    name: str
    classes: tuple[str, ...]
    batches: Iterable[EvaluationBatch]
    patients: Mapping[str, str] = field(default_factory=dict)


def fit_on_validation(
    localizers: Mapping[ModelName, Localizer],
    batches: Iterable[EvaluationBatch],
    *,
    map_size: int,
    device: torch.device,
) -> dict[ModelName, Fitted]:
    """Choose each model's threshold by the pooled Dice over validation images, and fit its temperature.

    Args:
        localizers: the models.
        batches: validation images, of several processes this one's share; for the threshold only those whose `has_mask`
            is set count, so a mask that must not be used for selection is to be hidden there. Without any foreground
            pixel it is 0.5, and said to be fixed.
        map_size: side in pixels at which maps and masks are compared.
        device: where the models live.
    """
    histograms = dict.fromkeys(localizers, pixel_histogram.empty_histogram(device=device))
    logits: dict[ModelName, list[Tensor]] = {name: [] for name in localizers}
    classes: list[Tensor] = []
    for batch in batches:
        classes.append(batch.class_idx.cpu())
        for name, localizer in localizers.items():
            localization = localize(localizer, batch, map_size=map_size, device=device)
            histograms[name] = pixel_histogram.count_batch(histograms[name], maps=localization.maps, batch=batch)
            logits[name].append(localization.image_logits.cpu())
    classes = interleaved(classes)
    if not classes:
        return dict.fromkeys(localizers, Fitted(Threshold(FIXED_THRESHOLD, ThresholdSource.FIXED), float("nan")))
    everything = {name: (pixel_histogram.join(histograms[name]), interleaved(logits[name])) for name in localizers}
    return from_first(lambda: _fit(everything, target=torch.cat(classes)))


def _fit(said: Mapping[ModelName, tuple[PixelHistogram, list[Tensor]]], *, target: Tensor) -> dict[ModelName, Fitted]:
    """Fit threshold and temperature to what each model said: a histogram, and logits (B, K) of each batch."""
    return {
        name: Fitted(_threshold(histogram), fit_temperature(logits=torch.cat(logits), target=target))
        for name, (histogram, logits) in said.items()
    }


def evaluate_domain(
    localizers: Mapping[ModelName, Localizer],
    domain: EvaluationDomain,
    *,
    fitted: Mapping[ModelName, Fitted],
    map_size: int,
    resampling: Resampling,
    device: torch.device,
) -> tuple[Evaluation, ...]:
    """Score every model on a domain; the images are read once, and memory does not grow with their pixels.

    Args:
        localizers: the models, in the order of the result.
        domain: the images and what their classes are called there.
        fitted: where each model's map becomes a region, and how sure it is.
        map_size: side in pixels at which maps and masks are compared.
        resampling: how intervals are made.
        device: where the models live.

    Raises:
        PixelCAMError: the domain has no images, or a model gives NaN or values outside [0, 1].
        ValueError: shapes do not fit.
    """

    def tally_batches() -> Iterator[dict[ModelName, DomainTally]]:
        for batch in domain.batches:
            tallied: dict[ModelName, DomainTally] = {}
            for name, localizer in localizers.items():
                localization = localize(localizer, batch, map_size=map_size, device=device)
                tallied[name] = _tally(localization, batch, domain, threshold=fitted[name].threshold.value)
                if name in TAKE_A_CLASS:
                    _add_predicted_class(
                        tallied[name], localizer, localization, batch, map_size=map_size, device=device
                    )
            yield tallied

    tallies = {name: DomainTally() for name in localizers}
    for tallied in in_order(tally_batches()):
        for name, tally in tallied.items():
            tallies[name].extend(tally)
    return from_first(lambda: _score(tallies, domain, fitted=fitted, resampling=resampling))


def _tally(
    localization: Localization, batch: EvaluationBatch, domain: EvaluationDomain, *, threshold: float
) -> DomainTally:
    """Return what a model says about a batch."""
    tally = DomainTally(masks=int(batch.has_mask.sum()), logits=[localization.image_logits.cpu()])
    aps = _add_maps(tally, localization.maps, batch)
    tally.images = [
        replace(image, ap=ap, patient=domain.patients.get(image.image, ""))
        for image, ap in zip(score_images(localization, batch, threshold=threshold), aps, strict=True)
    ]
    return tally


def _score(
    tallies: Mapping[ModelName, DomainTally],
    domain: EvaluationDomain,
    *,
    fitted: Mapping[ModelName, Fitted],
    resampling: Resampling,
) -> tuple[Evaluation, ...]:
    if not all(tally.images for tally in tallies.values()):
        raise PixelCAMError(f"domain '{domain.name}' has no test images to score; its manifest must list some")
    return score_domain(tallies, name=domain.name, classes=domain.classes, fitted=fitted, resampling=resampling)


def _add_maps(tally: DomainTally, maps: Tensor, batch: EvaluationBatch) -> list[float]:
    """Count the maps of the images that have a mask, and return each image's average precision."""
    return [
        tally.pixels.add(
            preds=maps[index],
            target=batch.masks[index],
            ignore=None if batch.ignore is None else batch.ignore[index],
        )
        if known
        else tally.pixels.skip()
        for index, known in enumerate(batch.has_mask.tolist())
    ]


def _add_predicted_class(
    tally: DomainTally,
    localizer: Localizer,
    localization: Localization,
    batch: EvaluationBatch,
    *,
    map_size: int,
    device: torch.device,
) -> None:
    """Note how the histogram changes where the map is taken for the predicted class; right images are not run again."""
    predicted = localization.image_logits.argmax(dim=1).cpu()
    wrong = (predicted != batch.class_idx.cpu()) & batch.has_mask.cpu()
    if not wrong.any():
        return
    images = EvaluationBatch(
        image_ids=tuple(name for name, kept in zip(batch.image_ids, wrong.tolist(), strict=True) if kept),
        images=batch.images[wrong],
        class_idx=predicted[wrong],
        masks=batch.masks[wrong],
        has_mask=batch.has_mask[wrong],
        ignore=None if batch.ignore is None else batch.ignore[wrong],
    )
    other = localize(localizer, images, map_size=map_size, device=device)
    empty = pixel_histogram.empty_histogram(device=device)
    before = pixel_histogram.count_batch(
        empty, maps=localization.maps[wrong.to(localization.maps.device)], batch=images
    )
    after = pixel_histogram.count_batch(empty, maps=other.maps, batch=images)
    change = PixelHistogram(
        foreground=(after.foreground - before.foreground).cpu(), background=(after.background - before.background).cpu()
    )
    tally.predicted_class_change = pixel_histogram.add_histograms(tally.predicted_class_change, change)


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
    """Score each image of a batch by itself, but for its average precision; maps and masks must be of one size."""
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
        "confidence": probabilities.amax(dim=1),
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
        ImageScores(image=image, patient="", ap=float("nan"), **dict(zip(columns, row, strict=True)))
        for image, row in zip(batch.image_ids, rows, strict=True)
    ]


def _threshold(histogram: PixelHistogram) -> Threshold:
    value = metrics.best_dice_threshold(histogram)
    if isnan(value):
        return Threshold(FIXED_THRESHOLD, ThresholdSource.FIXED)
    return Threshold(value, ThresholdSource.VALIDATION)
