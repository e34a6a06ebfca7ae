"""What the report says, before it becomes a page: scores, curves, and images with what models make of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.params.vocabulary import Approach, PixelHeadName, TestTime, Weights
from pipeline.report.adaptation_parts import AdaptedDomain
from pipeline.report.overlays import Picture
from pipeline.report.slide_parts import SlidesReport

MODELS: Final = {"teacher": "Teacher", "pixelcam": "PixelCAM"}  # as in evaluation.json, and as on the page


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelView:
    """What one model says about one image.

    Attributes:
        map: float32 (h, w) in [0, 1], any size.
        predicted_class: the class's name.
        dice: fraction; None without mask or without region of interest.
        false_positive_share: share of the background predicted as foreground; None without mask.
        classes: uint8 (h, w), the class of each pixel as a label, 0 background; None where the model tells none apart.
    """

    map: npt.NDArray[np.float32]
    predicted_class: str
    dice: float | None
    false_positive_share: float | None
    classes: npt.NDArray[np.uint8] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class GalleryImage:
    """A test image with both models' views; `reason` says why it is shown ("best of 48").

    `image` is uint8 (H, W, 3); `mask` is bool (h, w) of any size, or None where the truth is unknown; `adapted` is what
    PixelCAM says once it is adapted to the domain, or None where it is not.
    """

    name: str
    label: str
    reason: str
    image: Picture
    mask: npt.NDArray[np.bool_] | None
    teacher: ModelView
    pixelcam: ModelView
    adapted: ModelView | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class PixelLabels:
    """What one round gave for a training image: `map` float32 (h, w) in [0, 1], and `labels` uint8 (h, w)."""

    map: npt.NDArray[np.float32]
    labels: npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingImage:
    """A training image of the source with the labels of every round; the mask is here for comparison."""

    name: str
    label: str
    image: Picture
    mask: npt.NDArray[np.bool_] | None
    rounds: Sequence[PixelLabels]


@dataclass(frozen=True, kw_only=True)
class LabelQuality:
    """The pseudo-labels of one class of training images, as fractions.

    The three shares add up to 1. A precision is the share of labels that the masks confirm, a recall the share of the
    masks that is labelled so; None without masks.
    """

    class_name: str
    foreground_share: float
    background_share: float
    ignore_share: float
    foreground_precision: float | None
    background_precision: float | None
    foreground_recall: float | None
    background_recall: float | None


@dataclass(frozen=True, kw_only=True)
class LabelRound:
    """A round's pseudo-labels.

    Attributes:
        learner: the model that learned from them, by the name of its folder.
        maps: whose maps they were cut from, such as "the teacher's CAM (layercam)".
        rule: how maps became labels, in words.
        quality: one row per class.
    """

    learner: str
    maps: str
    rule: str
    quality: Sequence[LabelQuality]


@dataclass(frozen=True, kw_only=True, eq=False)
class DomainReport:
    """A domain's part: `scores` is its entry in evaluation.json, {"teacher": {...}, "pixelcam": {...}}."""

    name: str
    in_domain: bool
    scores: Mapping[str, Mapping[str, Any]]
    gallery: Sequence[GalleryImage]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What of the params the page puts into words.

    Attributes:
        approach: how PixelCAM learned.
        pixel_head: what of PixelCAM classifies pixels.
        pixel_classes: what pixels are told apart as, in the order of their labels, background first.
        redraw: whether each step draws pixels anew, rather than from the same few of each image.
        scored: which weights are scored.
        test_time: what is done to images or models before they are scored.
        selections: by model, which epoch's weights were selected.
        masks_select: whether masks of validation images took part in that selection.
    """

    approach: Approach
    pixel_head: PixelHeadName
    pixel_classes: Sequence[str]
    redraw: bool
    scored: Weights
    test_time: TestTime
    selections: Mapping[str, str]
    masks_select: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class ReportContent:
    """Everything the page says.

    Attributes:
        domains: in the order of the page, the source first.
        histories: by model ("teacher", "pixelcam"), a table with the columns epoch, step, and any of image_loss,
            pixel_loss, train_accuracy, val_loss, val_accuracy, val_pxap.
        curves: columns domain, model, threshold, precision, recall.
        confidences: columns domain, model, confidence, correct; a row per test image and model.
        matrix: the domain matrix; see `pipeline.report.matrix`.
        rounds: the pseudo-labels of every round, the teacher's first.
        learned_from: training images of the source.
        setting: what of the params the page puts into words.
        provenance: sections of names and values, such as {"params": {...}, "versions": {...}}.
        slides: whole slides, of the domains that have any.
        adaptations: of the domains that models were adapted to.
    """

    domains: Sequence[DomainReport]
    histories: Mapping[str, pd.DataFrame]
    curves: pd.DataFrame
    confidences: pd.DataFrame
    matrix: pd.DataFrame
    rounds: Sequence[LabelRound]
    learned_from: Sequence[TrainingImage]
    setting: Setting
    provenance: Mapping[str, Mapping[str, str]]
    slides: Sequence[SlidesReport] = ()
    adaptations: Sequence[AdaptedDomain] = ()
