"""How often a classifier is right where it is how sure: the bins of a reliability diagram."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.classification import CALIBRATION_BINS


@dataclass(frozen=True, kw_only=True, eq=False)
class Reliability:
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


def reliability(*, confidence: npt.NDArray[np.float64], correct: npt.NDArray[np.bool_]) -> Reliability:
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
    return Reliability(
        confidence=sure[held] / counts[held], accuracy=right[held] / counts[held], share=counts[held] / counts.sum()
    )
