"""Score anyone's maps on the terms of this project: the same pixels, thresholds and boxes, for any method."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.data.images import read_mask
from pipeline.data.maps import resize_labels, resize_map
from pipeline.evaluation.map_files import files_by_stem, open_maps
from pipeline.evaluation.tables import jsonable
from pipeline.metrics.localization import LocalizationTally, count_maps, measure_maps
from pipeline.metrics.pixel_histogram import STEPS
from pipeline.params.errors import PixelCAMError

TITLES: Final = {
    "pxap": "PxAP",
    "pixel_auroc": "pixel AUROC",
    "image_ap": "AP, mean over images",
    "foreground_share": "share of foreground",
    "foreground_share_map": "share of foreground, as the maps say",
    "pixel_ece": "calibration error of pixels",
}
REGION_TITLES: Final = {
    "dice": "Dice",
    "iou": "IoU",
    "background_iou": "IoU of the background",
    "mean_iou": "mean IoU",
    "false_positive_share": "false positives without ROI",
}
BOX_TITLES: Final = {
    "max_box_acc_v2": "MaxBoxAccV2",
    "iou_30": "MaxBoxAcc, IoU 0.3",
    "iou_50": "MaxBoxAcc, IoU 0.5",
    "iou_70": "MaxBoxAcc, IoU 0.7",
}


_Pair = tuple[Tensor, Tensor, Tensor | None]  # a map (h, w) in [0, 1], its mask, bool (H, W), and what does not count


def score_maps(
    *,
    preds: Sequence[NDArray[np.floating]],
    target: Sequence[NDArray[np.bool_]],
    ignore: Sequence[NDArray[np.bool_] | None] | None = None,
    threshold: float | None = None,
) -> dict[str, Any]:
    """Return the scores of maps against masks: `pxap` and the rest by name, None where one is not defined.

    They are those of docs/evaluation.md, pooled over the images or their mean.

    Args:
        preds: floating point (h_i, w_i) in [0, 1], higher is foreground; brought to the size of its mask, bilinearly.
        target: bool (H_i, W_i), True is region of interest.
        ignore: bool (H_i, W_i), True is a pixel that does not count; None for an image of which every pixel counts.
        threshold: one that was chosen on validation images; a multiple of 0.001.

    Raises:
        PixelCAMError: numbers, shapes or types do not fit, or a map leaves [0, 1].
    """
    _check_threshold(threshold)
    ignored = [None] * len(target) if ignore is None else ignore
    if not len(preds) == len(target) == len(ignored):
        raise PixelCAMError(f"expected one map for each mask, got {len(preds)} preds and {len(target)} in target")
    return _score((_pair(*each) for each in zip(preds, target, ignored, strict=True)), threshold)


def _pair(heat: NDArray[np.floating], mask: NDArray[np.bool_], ignore: NDArray[np.bool_] | None) -> _Pair:
    if heat.ndim != 2 or not np.issubdtype(heat.dtype, np.floating):
        raise PixelCAMError(f"preds: expected maps of floating point (h, w), got {heat.dtype} {heat.shape}; convert it")
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise PixelCAMError(f"target: expected masks bool (H, W), got {mask.dtype} {mask.shape}; convert it: mask > 0")
    if not (heat.min() >= 0 and heat.max() <= 1):
        raise PixelCAMError(f"preds: expected maps in [0, 1], got {heat.min()} to {heat.max()}; rescale them all alike")
    if ignore is not None and (ignore.shape != mask.shape or ignore.dtype != np.bool_):
        raise PixelCAMError(f"ignore: expected bool {mask.shape} as its mask, got {ignore.dtype} {ignore.shape}")
    skipped = None if ignore is None else torch.from_numpy(ignore)
    return torch.from_numpy(heat).float(), torch.from_numpy(mask), skipped


def score_map_files(
    maps: Path, masks: Path, *, ignore: Path | None, threshold: float | None, at_map_size: bool
) -> dict[str, Any]:
    """Return the scores of maps against masks, ready for JSON: `pxap` and the rest, None where one is not defined.

    Args:
        maps: a folder of maps or a Zarr array, as `open_maps` reads them.
        masks: a folder of masks, one per map, matched by name without suffix.
        ignore: a folder of masks of pixels that do not count, for any of the images.
        threshold: one that was chosen on validation images; a multiple of 0.001.
        at_map_size: bring masks to the size of their map by the nearest pixel, rather than maps to that of their mask
            bilinearly.

    Raises:
        PixelCAMError: a file is missing, unreadable, without partner or of another size, or a map leaves [0, 1].
    """
    _check_threshold(threshold)
    source, truth = open_maps(maps), files_by_stem(masks)
    ignored = {} if ignore is None else files_by_stem(ignore)
    _check_partners(source.names, truth, maps=maps, masks=masks)
    if strangers := sorted(set(ignored) - set(truth)):
        raise PixelCAMError(
            f"{ignored[strangers[0]]}: there is no mask '{strangers[0]}' in {masks}; remove or rename it"
        )

    def pairs() -> Iterator[_Pair]:
        for name in source.names:
            heat, mask = torch.from_numpy(source.read(name)), torch.from_numpy(read_mask(truth[name]))
            skipped = _read_ignored(ignored[name], mask) if name in ignored else None
            if at_map_size:
                mask = resize_labels(mask, heat.shape)
                skipped = None if skipped is None else resize_labels(skipped, heat.shape)
            yield heat, mask, skipped

    return _score(pairs(), threshold)


def _score(pairs: Iterable[_Pair], threshold: float | None) -> dict[str, Any]:
    """Score maps, each brought to the size of its mask."""
    tally, images = LocalizationTally(), 0
    for heat, mask, ignore in pairs:
        resized = resize_map(heat.unsqueeze(0), mask.shape).clamp(0, 1)
        skipped = None if ignore is None else ignore.unsqueeze(0)
        tally.add(measure_maps(count_maps(resized, target=mask.unsqueeze(0), ignore=skipped)))
        images += 1
    chosen = {} if threshold is None else {"validation": threshold}
    scores = asdict(tally.scores(chosen)) | {"images": images}
    return {key: jsonable(value) for key, value in scores.items()}


def describe_scores(scores: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what `score_maps` or `score_map_files` gave as titles and values, for a table."""
    for key, title in TITLES.items():
        yield title, _text(scores[key])
    for name, region in scores["regions"].items():
        known_as = {"validation": "given", "half": "fixed", "oracle": "oracle, chosen on these masks"}[name]
        yield f"threshold, {known_as}", _text(region["threshold"])
        for key, title in REGION_TITLES.items():
            yield f"  {title}", _text(region[key])
    for key, title in BOX_TITLES.items():
        yield title, _text(scores["boxes"][key])
    yield "images", str(scores["images"])
    yield "images without region of interest", str(scores["images_without_roi"])


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _check_threshold(threshold: float | None) -> None:
    if threshold is not None and not (0 <= threshold <= 1 and abs(threshold * STEPS - round(threshold * STEPS)) < 1e-6):
        raise PixelCAMError(f"threshold must be a multiple of {1 / STEPS} in [0, 1], got {threshold}; round it")


def _check_partners(names: tuple[str, ...], truth: Mapping[str, Path], *, maps: Path, masks: Path) -> None:
    """Refuse a map without mask, and a mask without map, which would be scored as if it had never been missed."""
    for missing, there, here in (
        (sorted(set(names) - set(truth)), maps, masks),
        (sorted(set(truth) - set(names)), masks, maps),
    ):
        if missing:
            raise PixelCAMError(
                f"{here}: nothing is called '{missing[0]}', which {there} holds ({len(missing)} such); "
                "maps and masks are matched by name without suffix: add the missing ones or remove their partners"
            )


def _read_ignored(path: Path, mask: Tensor) -> Tensor:
    """Return the pixels that do not count, bool (H, W), of the size of the mask."""
    ignored = torch.from_numpy(read_mask(path))
    if ignored.shape != mask.shape:
        raise PixelCAMError(
            f"{path}: expected the size of its mask, {tuple(mask.shape)}, got {tuple(ignored.shape)}; "
            "save both at one size"
        )
    return ignored
