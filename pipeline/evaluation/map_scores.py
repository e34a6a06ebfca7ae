"""Score anyone's maps on the terms of this project: the same pixels, thresholds and boxes, for any method."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch
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


def score_maps(
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
    tally = LocalizationTally()
    for name in source.names:
        heat = torch.from_numpy(source.read(name))
        mask = torch.from_numpy(read_mask(truth[name]))
        skipped = _read_ignored(ignored[name], mask) if name in ignored else None
        if at_map_size:
            mask = resize_labels(mask, heat.shape)
            skipped = None if skipped is None else resize_labels(skipped, heat.shape)
        else:
            heat = resize_map(heat.unsqueeze(0), mask.shape).squeeze(0).clamp(0, 1)
        of_one = None if skipped is None else skipped.unsqueeze(0)
        tally.add(measure_maps(count_maps(heat.unsqueeze(0), target=mask.unsqueeze(0), ignore=of_one)))
    chosen = {} if threshold is None else {"validation": threshold}
    scores = asdict(tally.scores(chosen)) | {"images": len(source.names)}
    return {key: jsonable(value) for key, value in scores.items()}


def describe_scores(scores: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what `score_maps` gave as titles and values, for a table."""
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
