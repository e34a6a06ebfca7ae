"""Scores of the classifier beyond accuracy: AUROC, F1, confusion, calibration, and collapse onto one class."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from pipeline.metrics.curves import area_under_roc

CALIBRATION_BINS: Final = 15
COLLAPSE_SHARE: Final = 0.95  # predicted as one class, and
COLLAPSE_EXCESS: Final = 0.15  # so much more than truly belongs to it
TEMPERATURES: Final = (0.01, 100.0)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How far confidence is from accuracy, before and after dividing logits by `temperature`; NaN if undefined."""

    ece: float
    temperature: float
    ece_calibrated: float


def auroc(*, logits: Tensor, target: Tensor) -> float:
    """Return the AUROC of two classes, or of more the mean over each class against the rest.

    Classes without image, or with all of them, are left out of the mean; NaN where that leaves none.

    Args:
        logits: floating point (N, K).
        target: int64 (N,), true class indices.
    """
    probabilities = _probabilities(logits).numpy()
    truth = target.cpu().numpy()
    scored = range(1, 2) if logits.shape[1] == 2 else range(logits.shape[1])
    values = np.array([area_under_roc(preds=probabilities[:, index], target=truth == index) for index in scored])
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")


def confusion_matrix(*, preds: Tensor, target: Tensor, classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return `{true class: {predicted class: images}}`, classes in their order; both int64 (N,), class indices."""
    count = len(classes)
    cells = torch.bincount(target * count + preds, minlength=count * count).view(count, count).tolist()
    return {name: dict(zip(classes, row, strict=True)) for name, row in zip(classes, cells, strict=True)}


def f1_per_class(*, preds: Tensor, target: Tensor, classes: Sequence[str]) -> dict[str, float]:
    """Return 2 TP / (2 TP + FP + FN) of each class; NaN where a class is neither predicted nor true of any image."""
    result = {}
    for index, name in enumerate(classes):
        shared = int(((preds == index) & (target == index)).sum())
        either = int((preds == index).sum() + (target == index).sum())
        result[name] = 2 * shared / either if either else float("nan")
    return result


def has_collapsed(*, preds: Tensor, target: Tensor) -> bool:
    """Return whether nearly all images are predicted as one class although they are not.

    So it is if at least 95 % are predicted as one class, which is at least 15 points more than truly belong to it.
    """
    if len(preds) == 0:
        return False
    majority = int(preds.mode().values)
    predicted, true = ((labels == majority).double().mean().item() for labels in (preds, target))
    return predicted >= COLLAPSE_SHARE and predicted - true >= COLLAPSE_EXCESS - 1e-12


def calibration(*, logits: Tensor, target: Tensor, temperature: float) -> Calibration:
    """Return the expected calibration error without and with a temperature, which may be NaN."""
    return Calibration(
        ece=expected_calibration_error(logits=logits, target=target),
        temperature=temperature,
        ece_calibrated=expected_calibration_error(logits=logits / temperature, target=target),
    )


def expected_calibration_error(*, logits: Tensor, target: Tensor) -> float:
    """Return the mean distance of confidence from accuracy over 15 equal bins of confidence, weighted by their images.

    Confidence is the probability of the predicted class; bin k holds k/15 < confidence <= (k + 1)/15. NaN without
    images, or with logits that are NaN. Source: Sec. 2 of "On Calibration of Modern Neural Networks", ICML 2017.

    Args:
        logits: floating point (N, K).
        target: int64 (N,), true class indices.
    """
    if len(target) == 0 or bool(logits.isnan().any()):
        return float("nan")
    confidence, predicted = _probabilities(logits).max(dim=1)
    correct = (predicted == target.cpu()).double()
    edges = torch.arange(1, CALIBRATION_BINS, dtype=torch.float64) / CALIBRATION_BINS
    bins = torch.bucketize(confidence, edges)  # an edge itself belongs to the bin below
    gaps = torch.zeros(CALIBRATION_BINS, dtype=torch.float64).index_add(0, bins, confidence - correct)
    return gaps.abs().sum().item() / len(target)


def fit_temperature(*, logits: Tensor, target: Tensor) -> float:
    """Return the temperature in [0.01, 100] by which logits are to be divided for the highest likelihood.

    NaN without images, and where every image is classified rightly: then the likelihood only grows as the temperature
    falls, and nothing is known of how sure the classifier may be. Arguments as `expected_calibration_error`.
    """
    values, truth = logits.detach().cpu().double(), target.cpu()
    if len(truth) == 0 or bool((values.argmax(dim=1) == truth).all()):
        return float("nan")

    def loss(log_temperature: float) -> float:
        return torch.nn.functional.cross_entropy(values / np.exp(log_temperature), truth).item()

    low, high = TEMPERATURES
    found = minimize_scalar(loss, bounds=(log(low), log(high)), method="bounded", options={"xatol": 1e-7})
    return float(np.exp(found.x))


def _probabilities(logits: Tensor) -> Tensor:
    """Return float64 (N, K) on the CPU: in float32 many a sure prediction would be exactly 1, and tied with others."""
    return logits.detach().cpu().double().softmax(dim=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class CalibrationBins:
    """The bins that hold an image, in the order of confidence; all (N,).

    Attributes:
        confidence: mean confidence of a bin's images.
        accuracy: share of them that is right.
        share: share of all images that the bin holds; they add up to 1.
    """

    confidence: npt.NDArray[np.float64]
    accuracy: npt.NDArray[np.float64]
    share: npt.NDArray[np.float64]

    @property
    def error(self) -> float:
        """Return the expected calibration error; NaN without images."""
        if len(self.share) == 0:
            return float("nan")
        return float((self.share * np.abs(self.confidence - self.accuracy)).sum())


def calibration_bins(*, confidence: npt.NDArray[np.float64], correct: npt.NDArray[np.bool_]) -> CalibrationBins:
    """Sort images into 15 equal bins of confidence; bin k holds k/15 < confidence <= (k + 1)/15.

    Args:
        confidence: (N,) in [0, 1], the probability of the predicted class.
        correct: (N,), whether that is the true class.
    """
    edges = np.arange(1, CALIBRATION_BINS) / CALIBRATION_BINS
    bins = np.searchsorted(edges, confidence, side="left")  # an edge itself belongs to the bin below
    counts, sure, right = (
        np.bincount(bins, weights=values, minlength=CALIBRATION_BINS)
        for values in (np.ones_like(confidence), confidence, correct.astype(np.float64))
    )
    held = counts > 0
    return CalibrationBins(
        confidence=sure[held] / counts[held], accuracy=right[held] / counts[held], share=counts[held] / counts.sum()
    )
