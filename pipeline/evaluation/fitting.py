"""What is chosen once, on the source's validation images, and used on every domain: thresholds and temperatures.

Masks of these images, where they may be used, choose one threshold; their maps alone, without any mask, another.
"""

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from math import isnan

import torch
from torch import Tensor

from pipeline.data.maps import EvaluationBatch, Localizer
from pipeline.evaluation.localizers import Autocast, localize
from pipeline.metrics import curves, pixel_histogram
from pipeline.metrics.classification import fit_temperature
from pipeline.metrics.localization import FIXED_THRESHOLD
from pipeline.metrics.mask_free import count_unlabelled, fit_correction, mask_free_threshold
from pipeline.metrics.pixel_histogram import PixelHistogram
from pipeline.metrics.scores import Fitted, ModelName, Threshold, ThresholdSource
from pipeline.params.evaluation import MaskFreeParams
from pipeline.params.vocabulary import ThresholdRule
from pipeline.runtime.collectives import from_first, interleaved


def fit_on_validation(
    localizers: Mapping[ModelName, Localizer],
    batches: Iterable[EvaluationBatch],
    *,
    rule: ThresholdRule,
    presumed: MaskFreeParams,
    map_size: int,
    device: torch.device,
    autocast: Autocast = nullcontext,
) -> dict[ModelName, Fitted]:
    """Choose each model's thresholds on validation images, with masks and without, and fit its temperature.

    Args:
        localizers: the models.
        batches: validation images, of several processes this one's share. By masks the threshold is that of the best
            pooled Dice on those whose `has_mask` is set, so a mask that must not be used for selection is to be hidden
            there. Without masks it is read from the maps of all.
        rule: which of the two is used. Where there is none, 0.5 is, and is said to be fixed.
        presumed: of the maps, for the threshold without masks.
        map_size: side in pixels at which maps and masks are compared.
        device: where the models live.
        autocast: the precision of the models.
    """
    histograms = dict.fromkeys(localizers, pixel_histogram.empty_histogram(device=device))
    unlabelled = dict(histograms)
    logits: dict[ModelName, list[Tensor]] = {name: [] for name in localizers}
    classes: list[Tensor] = []
    for batch in batches:
        classes.append(batch.class_idx.cpu())
        for name, localizer in localizers.items():
            localization = localize(localizer, batch, map_size=map_size, device=device, autocast=autocast)
            histograms[name] = pixel_histogram.count_batch(histograms[name], maps=localization.maps, batch=batch)
            unlabelled[name] = count_unlabelled(unlabelled[name], maps=localization.maps)
            logits[name].append(localization.image_logits.cpu())
    classes = interleaved(classes)
    if not classes:
        fixed = Threshold(FIXED_THRESHOLD, ThresholdSource.FIXED)
        return dict.fromkeys(localizers, Fitted(fixed, float("nan"), presumed=presumed))
    everything = {
        name: _OnValidation(
            labelled=pixel_histogram.join(histograms[name]),
            unlabelled=pixel_histogram.join(unlabelled[name]),
            logits=interleaved(logits[name]),
        )
        for name in localizers
    }
    target = torch.cat(classes)
    return from_first(
        lambda: {name: _fit(said, target=target, rule=rule, presumed=presumed) for name, said in everything.items()}
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _OnValidation:
    """What a model said about validation images.

    Attributes:
        labelled: its maps where masks may be used.
        unlabelled: its maps everywhere; what is foreground is not known.
        logits: float32 (B, K) of each batch.
    """

    labelled: PixelHistogram
    unlabelled: PixelHistogram
    logits: list[Tensor]


def _fit(said: _OnValidation, *, target: Tensor, rule: ThresholdRule, presumed: MaskFreeParams) -> Fitted:
    correction = fit_correction(
        said.unlabelled, foreground_share=presumed.foreground_share, temperature=presumed.temperature
    )
    mask_free = float("nan") if correction is None else mask_free_threshold(said.unlabelled, correction=correction)
    validation = curves.best_dice_threshold(said.labelled)
    return Fitted(
        threshold=_threshold(rule, validation=validation, mask_free=mask_free),
        temperature=fit_temperature(logits=torch.cat(said.logits), target=target),
        validation=validation,
        mask_free=mask_free,
        presumed=presumed,
        correction=correction,
    )


def _threshold(rule: ThresholdRule, *, validation: float, mask_free: float) -> Threshold:
    match rule:
        case ThresholdRule.VALIDATION_MASKS:
            found = Threshold(validation, ThresholdSource.VALIDATION)
        case ThresholdRule.MASK_FREE:
            found = Threshold(mask_free, ThresholdSource.MASK_FREE)
    return Threshold(FIXED_THRESHOLD, ThresholdSource.FIXED) if isnan(found.value) else found
