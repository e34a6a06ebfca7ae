"""FROC: the share of lesions that detections find, against how often they are wrong on a slide without any.

As in CAMELYON16 (Ehteshami Bejnordi et al., JAMA 2017;318(22):2199-2210, and the evaluation script of the challenge):

- Annotations are widened by half of 75 micrometres (five tumour cells), so that what lies closer together than 75
  becomes one lesion, and their holes are filled. A detection hits the lesion within whose widened outline it lies.
- A lesion whose major axis, so widened, is below 200 + 75 micrometres is of isolated tumour cells. It is not to be
  found, and a detection that hits it is neither right nor wrong. The axis is that of the ellipse of equal moments.
- Of all detections of a lesion the surest counts, and the others are not wrong.
- Sensitivity is interpolated linearly between the points of the curve, and beyond its end stays what it is there. The
  score is its mean at 1/4, 1/2, 1, 2, 4 and 8 false positives per slide.

The paper and the script differ in what a false positive is. The paper counts them on slides without metastasis, per
such slide, which is done here; a detection beside the lesions of a slide that has some is on no account. The script
counts those too, and divides by the number of all slides. The script also leaves out the lowest score that occurs, for
it stands for lesions that were missed; here these are held apart, and every detection counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final

import numpy as np
import shapely
from numpy.typing import NDArray

RATES: Final = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # false positives per normal slide
ONE_LESION: Final = 75.0  # micrometres; what lies closer together is one
ISOLATED: Final = 200.0  # micrometres; what is shorter is no metastasis
MISSED: Final = float("-inf")
ARC: Final = 16  # straight pieces of a quarter of a circle
FINE: Final = 2.0  # micrometres; an outline drawn more finely would only cost time, and the script's pixels are of 8

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Lesion:
    """Where a detection hits a lesion, in pixels of level 0, and whether it is of isolated tumour cells."""

    area: shapely.Polygon
    is_itc: bool


@dataclass(frozen=True, eq=False, kw_only=True)
class SlideDetections:
    """What the detections of a slide are.

    Attributes:
        lesion_scores: float64 (L,), the score of the surest hit of each lesion to be found; -inf where there is none.
        false_scores: float64 (F,), the scores of detections that hit nothing.
        normal: whether the slide is known to show no lesion.
        isolated: how many lesions are left out, since they are of isolated tumour cells.
    """

    lesion_scores: FloatArray
    false_scores: FloatArray
    normal: bool
    isolated: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Froc:
    """The curve and its score; NaN, and no point, without lesion to be found or without normal slide.

    Attributes:
        false_positives: float64 (N,), per normal slide, ascending from 0.
        sensitivity: float64 (N,), ascending from 0; points amid a horizontal or vertical piece are left out.
        at: sensitivity at each of `RATES`.
        score: their mean.
    """

    false_positives: FloatArray
    sensitivity: FloatArray
    at: dict[float, float]
    score: float


def group_lesions(annotation: shapely.Geometry, *, mpp: float) -> tuple[Lesion, ...]:
    """Return the lesions of a slide, in no order that means anything.

    Args:
        annotation: valid polygons in pixels of level 0; none is a slide without lesion.
        mpp: micrometres for such a pixel.
    """
    outline = shapely.simplify(annotation, FINE / mpp, preserve_topology=True)
    widened = shapely.buffer(outline, ONE_LESION / 2 / mpp, quad_segs=ARC)
    outlines = [shapely.Polygon(part.exterior) for part in shapely.get_parts(widened) if not part.is_empty]
    filled = shapely.union_all(outlines)  # what lies in a hole of another goes with it
    areas = [part for part in shapely.get_parts(filled) if not part.is_empty]
    return tuple(Lesion(area, is_itc=_major_axis(area) * mpp < ISOLATED + ONE_LESION) for area in areas)


def match_detections(
    points: FloatArray, scores: FloatArray, lesions: Sequence[Lesion], *, normal: bool
) -> SlideDetections:
    """Say of each detection what it hits; on a normal slide it is wrong, whatever is annotated there.

    Args:
        points: float64 (N, 2), x and y in pixels of level 0.
        scores: float64 (N,), higher is surer; finite.
        lesions: of the slide.
        normal: whether the slide is known to show no lesion.

    Raises:
        ValueError: shapes do not fit.
    """
    if points.shape != (len(scores), 2) or scores.ndim != 1:
        raise ValueError(f"points and scores must be (N, 2) and (N,), got {points.shape} and {scores.shape}")
    lesions = () if normal else lesions
    free = np.ones(len(scores), dtype=np.bool_)
    found = []
    for lesion in lesions:
        hits = np.asarray(shapely.intersects_xy(lesion.area, points[:, 0], points[:, 1]), dtype=np.bool_)
        free &= ~hits
        if not lesion.is_itc:
            found.append(scores[hits].max(initial=MISSED))
    return SlideDetections(
        lesion_scores=np.array(found, dtype=np.float64),
        false_scores=scores[free].astype(np.float64),
        normal=normal,
        isolated=sum(lesion.is_itc for lesion in lesions),
    )


def froc(slides: Sequence[SlideDetections]) -> Froc:
    """Return the curve over all slides, at every score that occurs; what has one score comes in together."""
    lesions = _together([slide.lesion_scores for slide in slides])
    wrong = _together([slide.false_scores for slide in slides if slide.normal])
    normal = sum(slide.normal for slide in slides)
    if not lesions.size or not normal:
        nothing = np.zeros(0)
        undefined = dict.fromkeys(RATES, float("nan"))
        return Froc(false_positives=nothing, sensitivity=nothing, at=undefined, score=float("nan"))
    thresholds = np.unique(np.concatenate([lesions[lesions > MISSED], wrong]))[::-1]
    false_positives, sensitivity = (
        np.append(0.0, (len(scores) - np.searchsorted(scores, thresholds)) / count)
        for scores, count in ((wrong, normal), (lesions, len(lesions)))
    )
    kept = _turns(false_positives) & _turns(sensitivity)
    false_positives, sensitivity = false_positives[kept], sensitivity[kept]
    at = [float(value) for value in np.interp(RATES, false_positives, sensitivity)]  # of equal rates the last counts
    return Froc(
        false_positives=false_positives,
        sensitivity=sensitivity,
        at=dict(zip(RATES, at, strict=True)),
        score=sum(at) / len(at),
    )


def _together(scores: Sequence[FloatArray]) -> FloatArray:
    """Return all scores, ascending."""
    return np.sort(np.concatenate([np.zeros(0), *scores]))


def _turns(values: FloatArray) -> NDArray[np.bool_]:
    """Return where a value differs from that before it or that behind it; the first and the last always count."""
    moves = np.concatenate([[True], np.diff(values) != 0, [True]])
    return np.asarray(moves[:-1] | moves[1:])


def _major_axis(polygon: shapely.Polygon) -> float:
    """Return the major axis of the ellipse that has the second moments of a polygon without holes."""
    corners = shapely.get_coordinates(polygon.exterior)  # the last is the first
    x, y = (corners - corners[0]).T  # large coordinates would cost digits
    x0, y0, x1, y1 = x[:-1], y[:-1], x[1:], y[1:]
    cross = x0 * y1 - x1 * y0
    area = cross.sum() / 2
    mean_x, mean_y = ((cross * (a + b)).sum() / (6 * area) for a, b in ((x0, x1), (y0, y1)))
    xx, yy = ((cross * (a * a + a * b + b * b)).sum() / (12 * area) for a, b in ((x0, x1), (y0, y1)))
    xy = (cross * (x0 * y1 + 2 * x0 * y0 + 2 * x1 * y1 + x1 * y0)).sum() / (24 * area)
    moments = np.array([[xx - mean_x**2, xy - mean_x * mean_y], [xy - mean_x * mean_y, yy - mean_y**2]])
    return 4 * sqrt(np.linalg.eigvalsh(moments)[-1])
