"""What evaluation finds, by name: models, thresholds, the scores of a domain and of each of its images."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.bootstrap import Difference, Interval, Resamples
from pipeline.metrics.classification import Calibration
from pipeline.metrics.localization import BoxScores, RegionScores
from pipeline.metrics.mask_free import Correction
from pipeline.metrics.pixel_histogram import PixelHistogram
from pipeline.metrics.reliability import ReliabilityBin
from pipeline.params.evaluation import MaskFreeParams

IMAGE_VALUES: Final = np.dtype(
    [
        ("class_idx", np.int32),
        ("predicted_idx", np.int32),
        ("by_pixels_idx", np.int32),
        ("probability", np.float32),
        ("confidence", np.float32),
        ("ap", np.float64),
        ("dice", np.float64),
        ("iou", np.float64),
        ("foreground_share_predicted", np.float64),
        ("foreground_share_mask", np.float64),
        ("false_positive_share", np.float64),
        ("disagreement", np.float64),
    ]
)


class ModelName(StrEnum):
    """The two models that are compared, as they are called in every file."""

    TEACHER = "teacher"
    PIXELCAM = "pixelcam"


class ThresholdSource(StrEnum):
    """How a threshold came about: by validation masks, by validation maps alone, or fixed for want of them."""

    VALIDATION = "validation"
    MASK_FREE = "mask_free"
    FIXED = "fixed"


@dataclass(frozen=True)
class Threshold:
    """Map values at least as high as `value` count as foreground."""

    value: float
    source: ThresholdSource


@dataclass(frozen=True)
class Fitted:
    """What is chosen on validation images for one model.

    Attributes:
        threshold: the one that is used.
        temperature: of the image logits; NaN where none can be fitted.
        validation: the threshold by validation masks; NaN where none may be used.
        mask_free: the threshold by validation maps alone; NaN without images, where there is no `correction` either.
        presumed: what is presumed of maps without masks, for a threshold of each image's own.
        correction: what makes the model's map values probabilities, as far as that is known without masks.
    """

    threshold: Threshold
    temperature: float
    validation: float = float("nan")
    mask_free: float = float("nan")
    presumed: MaskFreeParams | None = None
    correction: Correction | None = None


@dataclass(frozen=True, kw_only=True)
class Scores:
    """A model's scores on a domain, fractions in [0, 1]; NaN where a score is not defined.

    `pxap`, `dice` and `iou` are pooled over the pixels of all images with a mask, the latter two at `threshold`.
    `foreground_share` is what `pxap` would be for a map that knows nothing, `foreground_share_map` the mean of the map;
    `pixel_ece` and `reliability` say how far its values are from probabilities. A map that is taken for a class is
    taken for the true one, but in `pxap_predicted_class` for the predicted one. `regions` sets side by side the
    thresholds "validation" and "mask_free" (NaN where none could be chosen), "half", and "oracle", which is chosen on
    these very images, and "mask_free_image", of which each image has its own (NaN for that). `class_iou` and
    `mean_iou_over_classes` are pooled likewise; `accuracy_by_pixels` is NaN of a model that tells no classes apart by
    pixels. `intervals` and `over_teacher` hold, by score, what a bootstrap over `patients` gives; the latter is empty
    for the teacher itself.
    """

    pxap: float
    accuracy: float
    balanced_accuracy: float
    dice: float
    iou: float
    threshold: float
    threshold_source: ThresholdSource
    foreground_share: float
    foreground_share_map: float
    pixel_ece: float
    pixel_ece_corrected: float
    reliability: dict[str, ReliabilityBin]
    predicted_classes: dict[str, float]
    images: int
    images_with_mask: int
    images_without_roi: int
    patients: int
    pxap_predicted_class: float
    pixel_auroc: float
    image_ap: float
    regions: dict[str, RegionScores]
    boxes: BoxScores
    auroc: float
    f1: dict[str, float]
    confusion: dict[str, dict[str, int]]
    class_iou: dict[str, float]
    mean_iou_over_classes: float
    accuracy_by_pixels: float
    collapsed: bool
    calibration: Calibration
    intervals: dict[str, Interval]
    over_teacher: dict[str, Difference]


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageScores:
    """A model's scores on the images of a domain, column by column.

    Attributes:
        image: names; both models share one list, as they do for patients.
        patient: names, empty where a patient is not known.
        blocks: arrays of `IMAGE_VALUES`, one after the other, N rows in all. NaN where there is no mask, or for AP,
            Dice and IoU no region of interest in it. `by_pixels_idx` is the class that the pixels speak for, -1 of a
            model that tells no classes apart by pixels. `probability` is the predicted probability of the true class,
            `confidence` that of the predicted class. Shares are fractions of the image's pixels, except that
            `false_positive_share` is the share of the background that is predicted foreground. `disagreement` is the
            mean absolute difference of both models' maps, the same for both; NaN of one model alone.
    """

    image: Sequence[str]
    patient: Sequence[str]
    blocks: Sequence[NDArray[np.void]]

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, column: str) -> NDArray[Any]:
        """Return a column of `IMAGE_VALUES`, (N,)."""
        return np.concatenate([block[column] for block in self.blocks])


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """One model on one domain: scores, the images they come from, and the pooled pixels that curves are drawn from.

    `resamples` are the bootstrap's draws, which depend on its seed, the domain's name and its patients alone: those of
    two models of one domain are paired, whenever each was scored.
    """

    domain: str
    model: ModelName
    classes: tuple[str, ...]
    scores: Scores
    images: ImageScores
    histogram: PixelHistogram
    resamples: Resamples
