"""From what was counted on a domain's images to its scores: pooled, with intervals, one model against the other."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.metrics import classification, curves, pixel_classes, pixel_histogram
from pipeline.metrics.bootstrap import Difference, ImageTable, Interval, Resamples, compare, interval, resample
from pipeline.metrics.localization import CPU, LocalizationTally, MapMeasures, RegionScores
from pipeline.metrics.mask_free import Correction, score_own_thresholds
from pipeline.metrics.pixel_histogram import HistogramRows, PixelHistogram
from pipeline.metrics.reliability import pixel_calibration_error, reliability_bins
from pipeline.metrics.scores import Evaluation, Fitted, ImageScores, ModelName, Scores
from pipeline.params.evaluation import MaskFreeParams
from pipeline.params.vocabulary import TWO_PIXEL_CLASSES
from pipeline.runtime.seeding import derive_seed

ROWS_IN_BLOCK: Final = 4096


class RowBlocks:
    """The rows of any number of arrays that have one type, and one shape but for their number of rows."""

    def __init__(self) -> None:
        self._blocks: list[NDArray[Any]] = []
        self._free = 0  # rows of the last block

    def append(self, rows: NDArray[Any]) -> None:
        """Add rows at the end."""
        while len(rows):
            if not self._free:
                self._blocks.append(np.empty((ROWS_IN_BLOCK, *rows.shape[1:]), dtype=rows.dtype))
                self._free = ROWS_IN_BLOCK
            first = ROWS_IN_BLOCK - self._free
            fitting, rows = rows[: self._free], rows[self._free :]
            self._blocks[-1][first : first + len(fitting)] = fitting
            self._free -= len(fitting)

    def blocks(self) -> list[NDArray[Any]]:
        """Return all rows, without a copy, in arrays of up to 4096."""
        return [*self._blocks[:-1], *(block[: ROWS_IN_BLOCK - self._free] for block in self._blocks[-1:])]


@dataclass(frozen=True)
class Resampling:
    """How many resamples intervals are made of, and the seed of their draw."""

    resamples: int
    seed: int


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelBatch:
    """What one model said about a batch of images.

    Attributes:
        logits: float32 (B, K).
        values: (B,) of `IMAGE_VALUES`.
        maps: what was measured of its maps, taken for the true class where they are taken for one.
        predicted_class_change: by how much the pooled histogram changes with maps for the predicted class.
        pixel_confusion: int64 (1 + K, 1 + K), pixels by true and predicted pixel class.
    """

    logits: Tensor
    values: NDArray[np.void]
    maps: MapMeasures
    predicted_class_change: PixelHistogram
    pixel_confusion: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class BatchScores:
    """What was said about a batch of images, of which `masks` have a mask."""

    image_ids: tuple[str, ...]
    masks: int
    models: Mapping[ModelName, ModelBatch]


class ModelTally:
    """What one model said about the images so far.

    Attributes:
        values: rows of `IMAGE_VALUES`.
        logits: rows of float32 (K,).
        histograms: those of each image's map, for the bootstrap.
        pixels: the maps.
        predicted_class_change: as in `ModelBatch`.
        pixel_confusion: likewise.
    """

    def __init__(self) -> None:
        self.values = RowBlocks()
        self.logits = RowBlocks()
        self.histograms = HistogramRows()
        self.pixels = LocalizationTally(self.histograms)
        self.predicted_class_change = pixel_histogram.empty_histogram(device=CPU)
        self.pixel_confusion = np.zeros((), dtype=np.int64)

    def add(self, batch: ModelBatch) -> None:
        """Add what was said about more images."""
        self.values.append(batch.values)
        self.logits.append(batch.logits.numpy())
        self.pixels.add(batch.maps)
        self.predicted_class_change = pixel_histogram.add_histograms(
            self.predicted_class_change, batch.predicted_class_change
        )
        self.pixel_confusion = self.pixel_confusion + batch.pixel_confusion


class DomainTally:
    """What models said about a domain's images so far.

    Attributes:
        image_ids: the images.
        masks: how many of them have a mask.
        models: by name, in the order of the results.
    """

    def __init__(self, models: Iterable[ModelName]) -> None:
        self.image_ids: list[str] = []
        self.masks = 0
        self.models = {name: ModelTally() for name in models}

    def add(self, batch: BatchScores) -> None:
        """Add what was said about more images."""
        self.image_ids += batch.image_ids
        self.masks += batch.masks
        for name, said in batch.models.items():
            self.models[name].add(said)


def score_domain(
    tally: DomainTally,
    *,
    name: str,
    classes: tuple[str, ...],
    patients: Mapping[str, str],
    fitted: Mapping[ModelName, Fitted],
    resampling: Resampling,
) -> tuple[Evaluation, ...]:
    """Return every model's evaluation on a domain, in their order.

    Args:
        tally: what the models said about the domain's images, at least one.
        name: the domain's name.
        classes: what the classes are called, in the order of their index.
        patients: the patient of each image that has one.
        fitted: where each model's map becomes a region, and how sure it is.
        resampling: how intervals are made; models and domains of one seed differ in their draws by domain alone.

    Raises:
        ValueError: a model predicts a class without a name.
    """
    of_image = [patients.get(image, "") for image in tally.image_ids]
    images = {
        model: ImageScores(image=tally.image_ids, patient=of_image, blocks=said.values.blocks())
        for model, said in tally.models.items()
    }
    groups = number_groups(of_image)
    drawn = resample(
        {
            model.value: _image_table(said.histograms, images[model], fitted[model])
            for model, said in tally.models.items()
        },
        groups=groups,
        resamples=resampling.resamples,
        seed=derive_seed(resampling.seed, "bootstrap", name),
    )
    scores: dict[ModelName, Scores] = {}
    for model, said in tally.models.items():
        scores[model] = _scores(
            said,
            images[model],
            fitted[model],
            classes=classes,
            masks=tally.masks,
            patients=int(groups.max()) + 1,
            intervals={score: interval(values) for score, values in drawn[model.value].items()},
        )
    return tuple(
        Evaluation(
            domain=name,
            model=model,
            classes=classes,
            scores=_beside_teacher(model, scores, drawn),
            images=images[model],
            histogram=said.pixels.pooled,
            resamples=drawn[model.value],
        )
        for model, said in tally.models.items()
    )


def number_groups(patients: Sequence[str]) -> NDArray[np.int64]:
    """Return the number of what each image is drawn with, from 0 on: its patient, or itself where none is known."""
    known: dict[str, int] = {}
    groups = np.empty(len(patients), dtype=np.int64)
    alone = 0
    for image, patient in enumerate(patients):
        number = len(known) + alone
        if patient:
            groups[image] = known.setdefault(patient, number)
        else:
            groups[image] = number
            alone += 1
    return groups


def _image_table(histograms: HistogramRows, images: ImageScores, fitted: Fitted) -> ImageTable:
    class_idx = images["class_idx"].astype(np.int64)
    return ImageTable(
        histograms=histograms,
        correct=images["predicted_idx"] == class_idx,
        class_idx=class_idx,
        threshold=fitted.threshold.value,
    )


def _scores(
    tally: ModelTally,
    images: ImageScores,
    fitted: Fitted,
    *,
    classes: tuple[str, ...],
    masks: int,
    patients: int,
    intervals: dict[str, Interval],
) -> Scores:
    predicted, truth = (torch.from_numpy(images[name].astype(np.int64)) for name in ("predicted_idx", "class_idx"))
    logits = torch.from_numpy(np.concatenate(tally.logits.blocks()))
    threshold = fitted.threshold
    pixels = tally.pixels.scores({"validation": fitted.validation, "mask_free": fitted.mask_free})
    pooled = tally.pixels.pooled
    counts = curves.counts_at(pooled, threshold=threshold.value)
    return Scores(
        pxap=pixels.pxap,
        accuracy=curves.accuracy(preds=predicted, target=truth),
        balanced_accuracy=curves.balanced_accuracy(preds=predicted, target=truth),
        dice=curves.dice(counts).item(),
        iou=curves.iou(counts).item(),
        threshold=threshold.value,
        threshold_source=threshold.source,
        foreground_share=pixels.foreground_share,
        foreground_share_map=pixels.foreground_share_map,
        pixel_ece=pixels.pixel_ece,
        pixel_ece_corrected=_corrected_error(pooled, fitted.correction),
        reliability=pixels.reliability,
        predicted_classes=curves.predicted_class_shares(preds=predicted, classes=classes),
        images=len(images),
        images_with_mask=masks,
        images_without_roi=pixels.images_without_roi,
        patients=patients,
        pxap_predicted_class=pixel_histogram.pxap(pixel_histogram.add_histograms(pooled, tally.predicted_class_change)),
        pixel_auroc=pixels.pixel_auroc,
        image_ap=pixels.image_ap,
        regions=pixels.regions | _cut_alone(tally.histograms, fitted.presumed),
        boxes=pixels.boxes,
        auroc=classification.auroc(logits=logits, target=truth),
        f1=classification.f1_per_class(preds=predicted, target=truth, classes=classes),
        confusion=classification.confusion_matrix(preds=predicted, target=truth, classes=classes),
        class_iou=_class_iou(tally.pixel_confusion, classes),
        mean_iou_over_classes=pixel_classes.mean_iou_over_classes(tally.pixel_confusion),
        accuracy_by_pixels=_accuracy_by_pixels(images),
        collapsed=classification.has_collapsed(preds=predicted, target=truth),
        calibration=classification.calibration(logits=logits, target=truth, temperature=fitted.temperature),
        intervals=intervals,
        over_teacher={},
    )


def _class_iou(confusion: NDArray[np.int64], classes: tuple[str, ...]) -> dict[str, float]:
    background, *of_classes = pixel_classes.class_ious(confusion).tolist()
    return dict(zip(classes, of_classes, strict=True)) | {TWO_PIXEL_CLASSES[0]: background}


def _accuracy_by_pixels(images: ImageScores) -> float:
    by_pixels = images["by_pixels_idx"]
    return float("nan") if (by_pixels < 0).any() else float((by_pixels == images["class_idx"]).mean())


def _cut_alone(images: HistogramRows, presumed: MaskFreeParams | None) -> dict[str, RegionScores]:
    """Return the scores of maps that are each cut by themselves; nothing where nothing is presumed."""
    if presumed is None:
        return {}
    scores = score_own_thresholds(images, foreground_share=presumed.foreground_share, temperature=presumed.temperature)
    return {"mask_free_image": scores}


def _corrected_error(histogram: PixelHistogram, correction: Correction | None) -> float:
    if correction is None:
        return float("nan")
    return pixel_calibration_error(reliability_bins(histogram, values=correction.values()))


def _beside_teacher(model: ModelName, scores: Mapping[ModelName, Scores], drawn: Mapping[str, Resamples]) -> Scores:
    """Return a model's scores with what they are over the teacher's, on the same resamples."""
    if model is ModelName.TEACHER or ModelName.TEACHER not in scores:
        return scores[model]
    own, teacher = drawn[model.value], drawn[ModelName.TEACHER.value]
    over_teacher: dict[str, Difference] = {
        score: compare(
            own[score],
            teacher[score],
            difference=getattr(scores[model], score) - getattr(scores[ModelName.TEACHER], score),
        )
        for score in own
    }
    return replace(scores[model], over_teacher=over_teacher)
