"""Scores of maps as the published evaluator has them, to the last pixel: for figures that stand beside those of papers.

Source: the evaluator of "Evaluating Weakly Supervised Object Localization Methods Right" (Choe et al., CVPR 2020; with
MaxBoxAccV2, "Evaluation for Weakly Supervised Object Localization: Protocol, Metrics, and Datasets", TPAMI 2022), and
the variant of it for histology, which the authors of NEGEV and PixelCAM use. What differs from this project's own
definitions is that maps and thresholds are compared as float64, that maps are cut to 8 bits for boxes, that boxes are a
pixel wider and lower, and that holes of regions have boxes too. What the variant adds is Dice and mean IoU at a
threshold. Written anew from the definitions.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.metrics.localization import BOX_IOUS, BoxScores

PUBLISHED_STEPS: Final = (1000, 100)  # of the program that trains and scores, and of the one that scores files
HALF: Final = 0.5
BITS: Final = 255
OVER_CORNERS: Final = np.ones((3, 3), dtype=np.bool_)

BoxArray = NDArray[np.int64]  # (N, 4): first and last column and row, as left, top, right, bottom


@dataclass(frozen=True, kw_only=True)
class PublishedRegion:
    """Pooled scores at a threshold, fractions in [0, 1]; NaN where one is not defined.

    `threshold` is where the pixels were cut, `reported_threshold` what the evaluator calls it: it looks up a threshold
    by its place from the lowest where scores are stored from the highest, so that 0.5 is in truth one step above it.
    """

    threshold: float
    reported_threshold: float
    dice: float
    background_dice: float
    mean_iou: float


@dataclass(frozen=True, kw_only=True)
class PublishedScores:
    """Scores of maps, fractions in [0, 1] where the evaluator prints percent; NaN where one is not defined.

    `pxap` is the area under the pooled precision-recall curve. `regions` has the scores at the threshold with the best
    mean IoU, chosen on these very masks, and at 0.5. `boxes` leaves images without region of interest out.
    """

    pxap: float
    regions: dict[str, PublishedRegion]
    boxes: BoxScores
    steps: int
    images: int
    images_without_roi: int


def published_thresholds(steps: int) -> NDArray[np.float64]:
    """Return the thresholds 0, 1/steps, ... below 1 as multiples of the rounded step: float64 (steps,).

    A tenth of them at 100 steps, a seventh at 1,000, lie a last bit above the decimal that they stand for.
    """
    return np.arange(0, 1, 1 / steps)


def stretch(heat: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a map (H, W) with its lowest value at 0 and its highest at 1; a constant one becomes zeros."""
    above = heat - heat.min()
    return above / above.max() if above.max() > 0 else np.zeros_like(heat)


def shrink_labels(labels: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Resize a mask (H, W) to `size`, each pixel from the one at its upper left corner, not from its centre's."""
    rows, columns = (
        np.minimum(np.floor(np.arange(new) * (1 / (new / old))).astype(np.int64), old - 1)
        for new, old in zip(size, labels.shape, strict=True)
    )
    return labels[np.ix_(rows, columns)]


class PublishedTally:
    """Maps and masks of any number of images, counted and forgotten."""

    def __init__(self, *, steps: int, stretched: bool) -> None:
        self._thresholds = published_thresholds(steps)
        self._edges = np.append(self._thresholds, [1.0, 2.0, 3.0])
        self._counts = np.zeros((2, steps + 2))  # of foreground and background, by bin, ascending
        self._hits = np.zeros((len(BOX_IOUS), steps), dtype=np.int64)
        self._stretched = stretched
        self._images = self._images_with_roi = 0

    def add(self, heat: NDArray[np.float64], *, mask: NDArray[np.bool_], ignore: NDArray[np.bool_] | None) -> None:
        """Count an image.

        Args:
            heat: (h, w) in [0, 1].
            mask: (H, W), brought to the size of its map, and so its boxes.
            ignore: (H, W), pixels of background that do not count; foreground always does. Boxes know nothing of it.
        """
        shape = heat.shape[0], heat.shape[1]
        values = stretch(heat) if self._stretched else heat
        truth = shrink_labels(mask, shape)
        skipped = np.zeros_like(truth) if ignore is None else shrink_labels(ignore, shape)
        self._counts += [np.histogram(values[part], bins=self._edges)[0] for part in (truth, ~truth & ~skipped)]
        self._images += 1
        if mask.any():
            self._images_with_roi += 1
            true_boxes = scale_boxes(mask_boxes(mask), old=(mask.shape[0], mask.shape[1]), new=shape)
            overlaps = published_overlaps(values, truth=true_boxes, thresholds=self._thresholds)
            self._hits += overlaps >= np.array(BOX_IOUS)[:, None]

    def scores(self) -> PublishedScores:
        """Return the scores of all images."""
        shares = [
            int(row.max()) / self._images_with_roi if self._images_with_roi else float("nan") for row in self._hits
        ]
        return PublishedScores(
            pxap=self._pxap(),
            regions=self._regions(),
            boxes=BoxScores(
                max_box_acc_v2=sum(shares) / len(shares), iou_30=shares[0], iou_50=shares[1], iou_70=shares[2]
            ),
            steps=len(self._thresholds),
            images=self._images,
            images_without_roi=self._images - self._images_with_roi,
        )

    def _predicted(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the foreground and the background that is predicted foreground, thresholds descending from 2."""
        true_positive, false_positive = self._counts[:, ::-1].cumsum(axis=1)
        return true_positive, false_positive

    def _pxap(self) -> float:
        """Add up precision times the recall gained, from each threshold to the next below it."""
        true_positive, false_positive = self._predicted()
        with np.errstate(invalid="ignore"):
            precision = true_positive / (true_positive + false_positive)  # NaN where nothing is predicted foreground
            gained = np.diff(true_positive / true_positive[-1])
        return float((np.where(np.isnan(precision), 0, precision)[1:] * gained).sum())

    def _regions(self) -> dict[str, PublishedRegion]:
        true_positive, false_positive = self._predicted()
        if true_positive[-1] == 0:
            undefined = PublishedRegion(**dict.fromkeys(PublishedRegion.__dataclass_fields__, float("nan")))
            return {"best_mean_iou": undefined, "half": undefined}
        false_negative, true_negative = true_positive[-1] - true_positive, false_positive[-1] - false_positive
        wrong = false_positive + false_negative
        with np.errstate(invalid="ignore"):
            dice, background_dice = (2 * right / (2 * right + wrong) for right in (true_positive, true_negative))
            ious = [right / (right + wrong) for right in (true_positive, true_negative)]
        mean_iou = (ious[0] + ious[1]) / 2
        places = {
            "best_mean_iou": int(np.argmax(mean_iou)),  # of equal ones the highest threshold
            "half": int(np.argmin(np.abs(self._edges - HALF))),
        }
        return {
            name: PublishedRegion(
                threshold=float(self._edges[len(mean_iou) - 1 - place]),
                reported_threshold=float(self._edges[place]),
                dice=float(dice[place]),
                background_dice=float(background_dice[place]),
                mean_iou=float(mean_iou[place]),
            )
            for name, place in places.items()
        }


def mask_boxes(mask: NDArray[np.bool_]) -> BoxArray:
    """Return the boxes of a mask's regions, which are connected over edges and corners."""
    found = ndimage.find_objects(ndimage.label(mask, structure=OVER_CORNERS)[0])
    boxes = [(columns.start, rows.start, columns.stop - 1, rows.stop - 1) for rows, columns in found]
    return np.array(boxes, dtype=np.int64).reshape(-1, 4)


def scale_boxes(boxes: BoxArray, *, old: tuple[int, int], new: tuple[int, int]) -> BoxArray:
    """Bring boxes from an image of the size `old` to one of the size `new`, (height, width), cutting off fractions."""
    factors = np.array([new[1], new[0]] * 2, dtype=np.float64)
    return (boxes * factors / np.array([old[1], old[0]] * 2, dtype=np.float64)).astype(np.int64)


def map_boxes(levels: NDArray[np.uint8], *, above: int) -> BoxArray:
    """Return the boxes of the regions where a map is higher than `above`, and of the holes in them.

    They reach a column and a row beyond the last, but for that of the image. The box of a hole is that of the pixels
    around it. Without any region there is one box, of the first pixel.

    Args:
        levels: (H, W), the map in 8 bits.
        above: the level.
    """
    height, width = levels.shape
    region = levels > above
    boxes = [
        (columns.start, rows.start, columns.stop, rows.stop)
        for rows, columns in ndimage.find_objects(ndimage.label(region, structure=OVER_CORNERS)[0])
    ]
    boxes += [
        (columns.start - 1, rows.start - 1, columns.stop + 1, rows.stop + 1)
        for rows, columns in ndimage.find_objects(ndimage.label(~region)[0])
        if rows.start > 0 and columns.start > 0 and rows.stop < height and columns.stop < width
    ]
    return np.minimum(np.array(boxes or [(0, 0, 0, 0)]), [width - 1, height - 1] * 2)


def published_overlaps(
    heat: NDArray[np.float64], *, truth: BoxArray, thresholds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the highest IoU between any box of a map and any true box at each threshold: float64 (T,).

    The map is cut to 8 bits, a threshold is taken of the highest value of those and cut too, and what is higher is
    foreground. So no more than 256 thresholds differ.

    Args:
        heat: (H, W) in [0, 1].
        truth: the true boxes, one at least.
        thresholds: (T,).
    """
    levels = (heat * BITS).astype(np.uint8)
    cuts, which = np.unique((thresholds * levels.max()).astype(np.int64), return_inverse=True)
    best = [_best_overlap(map_boxes(levels, above=int(cut)), truth) for cut in cuts]
    return np.array(best)[which]


def _best_overlap(boxes: BoxArray, truth: BoxArray) -> float:
    """Return the highest IoU of any box with any true one, where the last column and row count too."""
    areas = (boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1)
    best = 0.0
    for true in truth:  # one at a time, since masks and maps may be noise
        sides = np.minimum(boxes[:, 2:], true[2:]) - np.maximum(boxes[:, :2], true[:2]) + 1
        shared = sides.clip(0).prod(axis=1)
        best = max(best, float((shared / (areas + (true[2:] - true[:2] + 1).prod() - shared)).max()))
    return best
