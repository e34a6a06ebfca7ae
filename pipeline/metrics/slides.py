"""Scores of whole slides: which are suspicious, which lesions are found, and how well regions fit, with intervals."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.bootstrap import Interval, interval
from pipeline.metrics.curves import area_under_roc
from pipeline.metrics.froc import SlideDetections, froc

RESAMPLED: Final = ("auroc", "froc", "dice", "mean_dice")


@dataclass(frozen=True, eq=False, kw_only=True)
class ScoredSlide:
    """What one model says of a slide, held against what is known of it.

    Attributes:
        slide: its name.
        patient: empty where not known.
        class_idx: the slide's class.
        is_normal: whether that is the class without lesions.
        score: how suspicious the slide is as a whole; higher is more.
        detections: of its lesions.
        true_positive: pixels that are predicted and annotated.
        predicted: pixels that are predicted.
        annotated: pixels that are annotated; None where it is not known which are.
    """

    slide: str
    patient: str
    class_idx: int
    is_normal: bool
    score: float
    detections: SlideDetections
    true_positive: int
    predicted: int
    annotated: int | None

    @property
    def dice(self) -> float:
        """The Dice coefficient of the slide's regions; NaN where nothing is annotated, or not known to be."""
        return _pooled_dice([self])


@dataclass(frozen=True, kw_only=True)
class SlideScores:
    """A model's scores on the slides of a domain, fractions in [0, 1]; NaN where a score is not defined.

    Attributes:
        slides: how many.
        normal_slides: how many of them are of the class without lesions.
        annotated_slides: of how many it is known where their lesions are.
        patients: how many; a slide whose patient is not known counts as one.
        lesions: to be found.
        isolated: lesions that are left out, since they are of isolated tumour cells.
        auroc: the chance that a slide with lesions is more suspicious than one without.
        froc: mean sensitivity; see `pipeline.metrics.froc`.
        sensitivity_at: sensitivity by false positives per normal slide, "0.25" to "8".
        dice: of regions, pooled over the pixels of all slides whose annotation is known.
        mean_dice: mean of the Dice of each slide that has something annotated.
        intervals: of `auroc`, `froc`, `dice` and `mean_dice`, by a bootstrap over patients.
        false_positives: per normal slide, of the points of the FROC curve.
        sensitivity: of the same points.
    """

    slides: int
    normal_slides: int
    annotated_slides: int
    patients: int
    lesions: int
    isolated: int
    auroc: float
    froc: float
    sensitivity_at: dict[str, float]
    dice: float
    mean_dice: float
    intervals: dict[str, Interval]
    false_positives: tuple[float, ...]
    sensitivity: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it for JSON, but for NaN, which JSON does not know."""
        return asdict(self)


def score_slides(slides: Sequence[ScoredSlide], *, resamples: int, seed: int) -> SlideScores:
    """Return the scores of a model on the slides of a domain.

    Args:
        slides: in an order that is the same for all models, so that they are scored on the same resamples.
        resamples: how many the intervals are made of.
        seed: of their draw.
    """
    groups = _number_patients(slides)
    curve = froc([slide.detections for slide in slides])
    return SlideScores(
        slides=len(slides),
        normal_slides=sum(slide.is_normal for slide in slides),
        annotated_slides=sum(slide.annotated is not None for slide in slides),
        patients=len(set(groups.tolist())),
        lesions=sum(len(slide.detections.lesion_scores) for slide in slides),
        isolated=sum(slide.detections.isolated for slide in slides),
        **_scores(slides),
        sensitivity_at={f"{rate:g}": value for rate, value in curve.at.items()},
        intervals=_intervals(slides, groups, resamples=resamples, seed=seed),
        false_positives=tuple(curve.false_positives.tolist()),
        sensitivity=tuple(curve.sensitivity.tolist()),
    )


def _scores(slides: Sequence[ScoredSlide]) -> dict[str, float]:
    """Return what is resampled, of slides that may occur more than once."""
    of_slides = np.array([slide.dice for slide in slides])
    known = of_slides[~np.isnan(of_slides)]
    return {
        "auroc": area_under_roc(
            preds=np.array([slide.score for slide in slides], dtype=np.float64),
            target=np.array([not slide.is_normal for slide in slides], dtype=np.bool_),
        ),
        "froc": froc([slide.detections for slide in slides]).score,
        "dice": _pooled_dice(slides),
        "mean_dice": float(known.mean()) if known.size else float("nan"),
    }


def _pooled_dice(slides: Sequence[ScoredSlide]) -> float:
    """Return 2 TP / (predicted + annotated) over the slides whose annotation is known; NaN if nothing is annotated."""
    known = [slide for slide in slides if slide.annotated is not None]
    annotated = sum(slide.annotated or 0 for slide in known)
    either = annotated + sum(slide.predicted for slide in known)
    return 2 * sum(slide.true_positive for slide in known) / either if annotated else float("nan")


def _intervals(
    slides: Sequence[ScoredSlide], groups: NDArray[np.int64], *, resamples: int, seed: int
) -> dict[str, Interval]:
    """Draw as many patients as there are, with replacement, and all slides of each; NaN for a single patient."""
    count = len(set(groups.tolist()))
    if count < 2:  # nothing varies, which would look like certainty
        return {name: Interval(low=float("nan"), high=float("nan")) for name in RESAMPLED}
    generator = np.random.default_rng(seed)
    draws = generator.multinomial(count, np.full(count, 1 / count), size=resamples)  # (R, G)
    drawn = [_scores(_repeat(slides, row[groups])) for row in draws]
    return {name: interval(np.array([scores[name] for scores in drawn])) for name in RESAMPLED}


def _repeat(slides: Sequence[ScoredSlide], times: NDArray[np.int64]) -> list[ScoredSlide]:
    return [slide for slide, count in zip(slides, times.tolist(), strict=True) for _ in range(count)]


def _number_patients(slides: Sequence[ScoredSlide]) -> NDArray[np.int64]:
    """Return the number of each slide's patient, from 0 on, in the order in which they come."""
    keys = [(slide.patient, 0 if slide.patient else index) for index, slide in enumerate(slides)]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys], dtype=np.int64)
