"""From what was counted on a domain's images to its scores: pooled, with intervals, one model against the other."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from pipeline import classification, metrics, pixel_histogram
from pipeline.bootstrap import Difference, ImageTable, Interval, Resamples, compare, interval, resample
from pipeline.histogram_rows import HistogramRows
from pipeline.localization_scores import CPU, LocalizationTally
from pipeline.pixel_histogram import PixelHistogram
from pipeline.scores import Evaluation, Fitted, ImageScores, ModelName, Scores, ThresholdSource
from pipeline.seeding import derive_seed


@dataclass(frozen=True)
class Resampling:
    """How many resamples intervals are made of, and the seed of their draw."""

    resamples: int
    seed: int


@dataclass(kw_only=True, eq=False)
class DomainTally:
    """What one model said about the images so far.

    Attributes:
        masks: how many of the images have a mask.
        images: scores of each image, in the order of `histograms`.
        logits: float32 (B, K) of each batch.
        histograms: those of each image's map, for the bootstrap.
        pixels: the maps, taken for the true class where they are taken for one.
        predicted_class_change: by how much the pooled histogram changes with maps for the predicted class.
    """

    masks: int = 0
    images: list[ImageScores] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    histograms: HistogramRows = field(default_factory=HistogramRows)
    pixels: LocalizationTally = field(init=False)
    predicted_class_change: PixelHistogram = field(default_factory=lambda: pixel_histogram.empty_histogram(device=CPU))

    def __post_init__(self) -> None:
        """Count the maps, and keep the histograms of each."""
        self.pixels = LocalizationTally(self.histograms)

    def extend(self, others: "DomainTally") -> None:
        """Add what was said about more images."""
        self.masks += others.masks
        self.images += others.images
        self.logits += others.logits
        self.pixels.extend(others.pixels)
        self.predicted_class_change = pixel_histogram.add_histograms(
            self.predicted_class_change, others.predicted_class_change
        )


def score_domain(
    tallies: Mapping[ModelName, DomainTally],
    *,
    name: str,
    classes: tuple[str, ...],
    fitted: Mapping[ModelName, Fitted],
    resampling: Resampling,
) -> tuple[Evaluation, ...]:
    """Return every model's evaluation on a domain, in their order.

    Args:
        tallies: what each model said about the domain's images, at least one.
        name: the domain's name.
        classes: what the classes are called, in the order of their index.
        fitted: where each model's map becomes a region, and how sure it is.
        resampling: how intervals are made; models and domains of one seed differ in their draws by domain alone.

    Raises:
        ValueError: a model predicts a class without a name.
    """
    first = next(iter(tallies.values())).images
    groups = [("patient", image.patient) if image.patient else ("image", image.image) for image in first]
    drawn = resample(
        {model.value: _image_table(tally, fitted[model]) for model, tally in tallies.items()},
        groups=groups,
        resamples=resampling.resamples,
        seed=derive_seed(resampling.seed, "bootstrap", name),
    )
    scores: dict[ModelName, Scores] = {}
    for model, tally in tallies.items():
        scores[model] = _scores(
            tally,
            fitted[model],
            classes=classes,
            patients=len(set(groups)),
            intervals={score: interval(values) for score, values in drawn[model.value].items()},
        )
    return tuple(
        Evaluation(
            domain=name,
            model=model,
            classes=classes,
            scores=_beside_teacher(model, scores, drawn),
            images=tuple(tally.images),
            histogram=tally.pixels.pooled,
        )
        for model, tally in tallies.items()
    )


def _image_table(tally: DomainTally, fitted: Fitted) -> ImageTable:
    return ImageTable(
        histograms=tally.histograms,
        correct=np.array([image.predicted_idx == image.class_idx for image in tally.images]),
        class_idx=np.array([image.class_idx for image in tally.images]),
        threshold=fitted.threshold.value,
    )


def _scores(
    tally: DomainTally,
    fitted: Fitted,
    *,
    classes: tuple[str, ...],
    patients: int,
    intervals: dict[str, Interval],
) -> Scores:
    predicted = torch.tensor([image.predicted_idx for image in tally.images])
    truth = torch.tensor([image.class_idx for image in tally.images])
    logits = torch.cat(tally.logits)
    threshold = fitted.threshold
    chosen = threshold.value if threshold.source is ThresholdSource.VALIDATION else float("nan")
    pixels = tally.pixels.scores({"validation": chosen})
    pooled = tally.pixels.pooled
    counts = metrics.counts_at(pooled, threshold=threshold.value)
    return Scores(
        pxap=pixels.pxap,
        accuracy=metrics.accuracy(preds=predicted, target=truth),
        balanced_accuracy=metrics.balanced_accuracy(preds=predicted, target=truth),
        dice=metrics.dice(counts).item(),
        iou=metrics.iou(counts).item(),
        threshold=threshold.value,
        threshold_source=threshold.source,
        foreground_share=pixels.foreground_share,
        predicted_classes=metrics.predicted_class_shares(preds=predicted, classes=classes),
        images=len(tally.images),
        images_with_mask=tally.masks,
        images_without_roi=pixels.images_without_roi,
        patients=patients,
        pxap_predicted_class=pixel_histogram.pxap(pixel_histogram.add_histograms(pooled, tally.predicted_class_change)),
        pixel_auroc=pixels.pixel_auroc,
        image_ap=pixels.image_ap,
        regions=pixels.regions,
        boxes=pixels.boxes,
        auroc=classification.auroc(logits=logits, target=truth),
        f1=classification.f1_per_class(preds=predicted, target=truth, classes=classes),
        confusion=classification.confusion_matrix(preds=predicted, target=truth, classes=classes),
        collapsed=classification.has_collapsed(preds=predicted, target=truth),
        calibration=classification.calibration(logits=logits, target=truth, temperature=fitted.temperature),
        intervals=intervals,
        over_teacher={},
    )


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
