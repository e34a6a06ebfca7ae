"""Score models on domains: both tasks, image by image and pooled, from one pass over each domain's images.

The teacher's CAM is asked for the true class, as published for methods of its kind, and where the teacher is wrong for
the class that it predicts as well; PixelCAM's map knows no class. What turns a map into a region is a threshold chosen
once, see `pipeline.evaluation.fitting`, and used everywhere.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.data.maps import EvaluationBatch, Localization, Localizer, resize_map
from pipeline.evaluation.domain_scores import BatchScores, DomainTally, ModelBatch, Resampling, score_domain
from pipeline.metrics import curves, pixel_histogram
from pipeline.metrics.localization import CPU, CountedMaps, count_maps, measure_maps
from pipeline.metrics.pixel_classes import (
    ClassReading,
    classify_by_pixels,
    confusion_of_images,
    count_confusion,
    read_classes,
)
from pipeline.metrics.pixel_histogram import PixelHistogram
from pipeline.metrics.scores import IMAGE_VALUES, Evaluation, Fitted, ModelName
from pipeline.params.errors import PixelCAMError
from pipeline.runtime.collectives import from_first, in_order
from pipeline.runtime.devices import to_device
from pipeline.runtime.threads import finish_in_background

ROUNDING_SLACK: Final = 1e-3  # how far a map may leave [0, 1] by the arithmetic of its making
TAKE_A_CLASS: Final = (ModelName.TEACHER,)  # the models whose map is taken for a class


Autocast = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True, kw_only=True)
class EvaluationDomain:
    """A domain to be scored on: its class names in the order of `class_idx`, and its test images, read once.

    Of several processes each is given its share of the batches, see `ScoredSet.share`. `patients` names the patient of
    each image that has one. `background_class_idx` is the class whose images hold no region of interest, if any.
    """

    name: str
    classes: tuple[str, ...]
    batches: Iterable[EvaluationBatch]
    background_class_idx: int | None = None
    patients: Mapping[str, str] = field(default_factory=dict)


def evaluate_domain(
    localizers: Mapping[ModelName, Localizer],
    domain: EvaluationDomain,
    *,
    fitted: Mapping[ModelName, Fitted],
    map_size: int,
    resampling: Resampling,
    device: torch.device,
    autocast: Autocast = nullcontext,
    depth: int | None = None,
) -> tuple[Evaluation, ...]:
    """Score every model on a domain; the images are read once, and memory does not grow with their pixels.

    Args:
        localizers: the models, in the order of the result.
        domain: the images and what their classes are there.
        fitted: where each model's map becomes a region, and how sure it is.
        map_size: side in pixels at which maps and masks are compared.
        resampling: how intervals are made.
        device: where the models live.
        autocast: the precision of the models.
        depth: how many batches more the device is given while the processor ends one. By default one where a GPU
            computes, else none.

    Raises:
        PixelCAMError: the domain has no images, or a model gives NaN or values outside [0, 1].
        ValueError: shapes do not fit.
    """

    def look(batch: EvaluationBatch) -> _Looked:
        read = partial(localize, map_size=map_size, device=device, autocast=autocast)
        said = {name: _look(localizer, batch, read, name in TAKE_A_CLASS) for name, localizer in localizers.items()}
        return _Looked(replace(batch, images=torch.empty(0)), said)  # the pixels are done with

    depth = int(device.type == "cuda") if depth is None else depth
    finish = partial(_finish, fitted=fitted, background_class_idx=domain.background_class_idx)
    tally = DomainTally(localizers)
    for scored in in_order(finish_in_background(map(look, domain.batches), finish, depth=depth)):
        tally.add(scored)
    return from_first(lambda: _score(tally, domain, fitted=fitted, resampling=resampling))


@dataclass(frozen=True, eq=False)
class _Said:
    """What a model said about a batch, in main memory: logits, maps, and how another class would change the latter.

    `classes` is None of a model that tells no classes apart by pixels.
    """

    logits: Tensor
    maps: CountedMaps
    classes: ClassReading | None
    predicted_class_change: PixelHistogram


@dataclass(frozen=True, eq=False)
class _Looked:
    """A batch without its images, and what each model said about it."""

    batch: EvaluationBatch
    said: Mapping[ModelName, _Said]


def _look(
    localizer: Localizer,
    batch: EvaluationBatch,
    read: Callable[[Localizer, EvaluationBatch], Localization],
    takes_a_class: bool,
) -> _Said:
    """Do the device's part of scoring a batch."""
    found = read(localizer, batch)
    maps = count_maps(found.maps, target=batch.masks, ignore=batch.ignore)
    classes = None if found.class_maps is None else read_classes(found.class_maps, maps=found.maps)
    said = _Said(found.image_logits.cpu(), maps, classes, pixel_histogram.empty_histogram(device=CPU))
    predicted = said.logits.argmax(dim=1)
    wrong = (predicted != batch.class_idx.cpu()) & batch.has_mask.cpu()
    if not takes_a_class or not wrong.any():  # right images are not run again
        return said
    images = EvaluationBatch(
        image_ids=tuple(name for name, kept in zip(batch.image_ids, wrong.tolist(), strict=True) if kept),
        images=batch.images[wrong],
        class_idx=predicted[wrong],
        masks=batch.masks[wrong],
        has_mask=batch.has_mask[wrong],
        ignore=None if batch.ignore is None else batch.ignore[wrong],
    )
    after = pixel_histogram.count_batch(said.predicted_class_change, maps=read(localizer, images).maps, batch=images)
    return replace(said, predicted_class_change=pixel_histogram.add_images(after, -maps.histograms[wrong]))


def _finish(looked: _Looked, *, fitted: Mapping[ModelName, Fitted], background_class_idx: int | None) -> BatchScores:
    """Do the processor's part of scoring a batch."""
    batch = looked.batch
    models: dict[ModelName, ModelBatch] = {}
    disagreement = _disagreement([said.maps.values for said in looked.said.values()])
    for name, said in looked.said.items():
        maps = measure_maps(said.maps, has_mask=batch.has_mask)
        threshold = fitted[name].threshold.value
        values = image_values(said.logits, said.maps.histograms, batch, aps=maps.aps, threshold=threshold)
        if said.classes is not None:
            values["by_pixels_idx"] = classify_by_pixels(
                said.classes, threshold=threshold, background_class_idx=background_class_idx
            )
        values["disagreement"] = disagreement
        models[name] = ModelBatch(
            logits=said.logits,
            values=values,
            maps=maps,
            predicted_class_change=said.predicted_class_change,
            pixel_confusion=_count_pixels(said, batch, threshold=threshold),
        )
    return BatchScores(image_ids=batch.image_ids, masks=int(batch.has_mask.sum()), models=models)


def _disagreement(maps: Sequence[NDArray[np.float32]]) -> NDArray[np.float64] | float:
    """Return how far two models' maps of each image are apart, (B,): the mean over pixels that count; NaN of one model.

    Args:
        maps: float32 (B, H, W) of each model, negative where a pixel does not count.
    """
    if len(maps) != len(ModelName):
        return np.nan
    first, second = maps
    distance = np.abs(first - second).sum(axis=(1, 2), dtype=np.float64)  # 0 where a pixel does not count
    apart = np.full(len(first), np.nan)
    np.divide(distance, (first >= 0).sum(axis=(1, 2)), out=apart, where=(first >= 0).any(axis=(1, 2)))
    return apart


def _count_pixels(said: _Said, batch: EvaluationBatch, *, threshold: float) -> NDArray[np.int64]:
    """Count the pixels of a batch by true and predicted pixel class, int64 (1 + K, 1 + K), where the truth is known.

    A pixel is foreground where its map reaches the threshold. Its class is then the one whose map is highest there, and
    that of the whole image of a model that tells no classes apart by pixels.
    """
    classes, has_mask, true_class = said.logits.shape[1], batch.has_mask.cpu(), batch.class_idx.cpu().numpy()
    if said.classes is None:
        histograms = said.maps.histograms * has_mask[:, None, None]
        pooled = PixelHistogram(foreground=histograms[:, 0], background=histograms[:, 1])
        counts, predicted = curves.counts_at(pooled, threshold=threshold), said.logits.argmax(dim=1).numpy()
        return confusion_of_images(counts, preds=predicted, target=true_class, classes=classes)
    values = said.maps.values
    known = (values >= 0) & has_mask.numpy()[:, None, None]
    preds = np.where(values >= np.float32(threshold), 1 + said.classes.best, 0)
    target = np.where(said.maps.truth, 1 + true_class[:, None, None], 0)
    return count_confusion(preds=preds[known], target=target[known], classes=classes)


def _score(
    tally: DomainTally,
    domain: EvaluationDomain,
    *,
    fitted: Mapping[ModelName, Fitted],
    resampling: Resampling,
) -> tuple[Evaluation, ...]:
    if not tally.image_ids:
        raise PixelCAMError(f"domain '{domain.name}' has no test images to score; its manifest must list some")
    return score_domain(
        tally,
        name=domain.name,
        classes=domain.classes,
        patients=domain.patients,
        fitted=fitted,
        resampling=resampling,
    )


def localize(
    localizer: Localizer,
    batch: EvaluationBatch,
    *,
    map_size: int,
    device: torch.device,
    autocast: Autocast = nullcontext,
) -> Localization:
    """Run a model on a batch and bring its maps to the size at which scores and pictures want them.

    Args:
        localizer: the model.
        batch: the images, and the class that a map is to be taken for.
        map_size: side of the maps in pixels.
        device: where the model lives.
        autocast: gives the context that the model runs in, which may lower its precision; nothing else runs there.

    Returns:
        `image_logits` float32 (B, K) and `maps` float32 (B, map_size, map_size) in [0, 1], detached, and `class_maps`
        alike where there are any.

    Raises:
        PixelCAMError: the model gives NaN, or map values outside [0, 1].
    """
    images, class_idx = to_device(batch.images, device), to_device(batch.class_idx, device)
    with autocast():
        raw = localizer(images, class_idx)
    logits = raw.image_logits.detach().float()
    if not logits.isfinite().all():
        raise PixelCAMError("the model gives class logits that are not finite; lower its learning rate and train again")
    maps = resize_maps(raw.maps, map_size=map_size)
    if raw.class_maps is None:
        return Localization(logits, maps)
    return Localization(logits, maps, resize_map(raw.class_maps.detach().float(), (map_size, map_size)))


def resize_maps(maps: Tensor, *, map_size: int) -> Tensor:
    """Resize maps (B, H, W) bilinearly to float32 (B, map_size, map_size) in [0, 1].

    Raises:
        PixelCAMError: a value is NaN or lies outside [0, 1] by more than rounding.
    """
    maps = maps.detach().float()
    pixel_histogram.check_map_values(maps, slack=ROUNDING_SLACK)
    return resize_map(maps, (map_size, map_size)).clamp(0, 1)


def image_values(
    logits: Tensor, histograms: Tensor, batch: EvaluationBatch, *, aps: NDArray[np.float64], threshold: float
) -> NDArray[np.void]:
    """Return what is written of each image of a batch, (B,) of `IMAGE_VALUES`, but for what needs more than one map.

    The class by pixels is left at -1, and the disagreement of two models at NaN.

    Args:
        logits: float32 (B, K) on the CPU.
        histograms: int64 (B, 2, 1001), as `count_images` gives them, of images without a mask too.
        batch: the images, whose pixels are not looked at.
        aps: float64 (B,), average precisions.
        threshold: where the maps become regions, a multiple of 0.001.
    """
    pooled = PixelHistogram(foreground=histograms[:, 0], background=histograms[:, 1])
    counts = curves.counts_at(pooled, threshold=threshold)
    foreground = counts.true_positive + counts.false_negative
    background = counts.false_positive + counts.true_negative
    pixels = (foreground + background).double()
    class_idx, unknown = batch.class_idx.cpu(), ~batch.has_mask.cpu()
    probabilities = logits.softmax(dim=1)
    columns = {
        "class_idx": class_idx,
        "predicted_idx": probabilities.argmax(dim=1),
        "by_pixels_idx": torch.full_like(class_idx, -1),
        "probability": probabilities.gather(1, class_idx.unsqueeze(1)).squeeze(1),
        "confidence": probabilities.amax(dim=1),
        "ap": torch.from_numpy(aps),
        "dice": curves.dice(counts).masked_fill(unknown, torch.nan),
        "iou": curves.iou(counts).masked_fill(unknown, torch.nan),
        "foreground_share_predicted": (counts.true_positive + counts.false_positive) / pixels,
        "foreground_share_mask": (foreground / pixels).masked_fill(unknown, torch.nan),
        "false_positive_share": (counts.false_positive.double() / background).masked_fill(unknown, torch.nan),
        "disagreement": torch.full_like(pixels, torch.nan),
    }
    values = np.empty(len(logits), dtype=IMAGE_VALUES)
    for name, column in columns.items():
        values[name] = column.numpy()
    return values
