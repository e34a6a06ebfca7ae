"""Score anyone's maps on the terms of this project: the same pixels, thresholds and boxes, for any method."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.data.images import read_mask
from pipeline.data.maps import resize_labels, resize_map
from pipeline.evaluation.map_files import files_by_stem, open_maps
from pipeline.evaluation.tables import jsonable
from pipeline.metrics.localization import LocalizationTally, count_maps, measure_maps
from pipeline.metrics.pixel_histogram import STEPS
from pipeline.metrics.protocols import ScoreProtocol
from pipeline.metrics.published import PUBLISHED_STEPS, PublishedTally
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


PUBLISHED_DIGITS: Final = 15  # as many as a float64 surely has: who compares wants no rounding
PUBLISHED_TITLES: Final = {
    "threshold": "threshold",
    "reported_threshold": "  as the published evaluator calls it",
    "dice": "  Dice",
    "background_dice": "  Dice of the background",
    "mean_iou": "  mean IoU",
}

Bools = NDArray[np.bool_]
_Pair = tuple[NDArray[np.floating], Bools, Bools | None]  # a map (h, w) in [0, 1], its mask (H, W), what does not count


def score_maps(
    *,
    preds: Sequence[NDArray[np.floating]],
    target: Sequence[Bools],
    ignore: Sequence[Bools | None] | None = None,
    threshold: float | None = None,
    protocol: ScoreProtocol = ScoreProtocol.PIXELCAM,
    steps: int | None = None,
) -> dict[str, Any]:
    """Return the scores of maps against masks: `pxap` and the rest by name, None where one is not defined.

    They are those of docs/evaluation.md, pooled over the images or their mean.

    Args:
        preds: floating point (h_i, w_i) in [0, 1], higher is foreground; brought to the size of its mask, bilinearly,
            but by a published protocol, which brings the mask to the size of its map.
        target: bool (H_i, W_i), True is region of interest.
        ignore: bool (H_i, W_i), True is a pixel that does not count; None for an image of which every pixel counts.
        threshold: one that was chosen on validation images; a multiple of 0.001.
        protocol: whose definitions; a published one gives the fields of `PublishedScores`.
        steps: thresholds of a published protocol, 1000 or 100; 1000 if None.

    Raises:
        PixelCAMError: numbers, shapes or types do not fit, or a map leaves [0, 1].
    """
    _check_options(protocol, threshold=threshold, steps=steps)
    ignored = [None] * len(target) if ignore is None else ignore
    if not len(preds) == len(target) == len(ignored):
        raise PixelCAMError(f"expected one map for each mask, got {len(preds)} preds and {len(target)} in target")
    pairs = (_pair(*each) for each in zip(preds, target, ignored, strict=True))
    if protocol is ScoreProtocol.PIXELCAM:
        return _score(pairs, threshold, at_map_size=False)
    return _score_as_published(pairs, protocol, steps)


def _pair(heat: NDArray[np.floating], mask: Bools, ignore: Bools | None) -> _Pair:
    if heat.ndim != 2 or not np.issubdtype(heat.dtype, np.floating):
        raise PixelCAMError(f"preds: expected maps of floating point (h, w), got {heat.dtype} {heat.shape}; convert it")
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise PixelCAMError(f"target: expected masks bool (H, W), got {mask.dtype} {mask.shape}; convert it: mask > 0")
    if not (heat.min() >= 0 and heat.max() <= 1):
        raise PixelCAMError(f"preds: expected maps in [0, 1], got {heat.min()} to {heat.max()}; rescale them all alike")
    if ignore is not None and (ignore.shape != mask.shape or ignore.dtype != np.bool_):
        raise PixelCAMError(f"ignore: expected bool {mask.shape} as its mask, got {ignore.dtype} {ignore.shape}")
    return heat, mask, ignore


def score_map_files(
    maps: Path,
    masks: Path,
    *,
    ignore: Path | None,
    threshold: float | None,
    at_map_size: bool,
    protocol: ScoreProtocol = ScoreProtocol.PIXELCAM,
    steps: int | None = None,
) -> dict[str, Any]:
    """Return the scores of maps against masks, ready for JSON: `pxap` and the rest, None where one is not defined.

    Args:
        maps: a folder of maps or a Zarr array, as `open_maps` reads them.
        masks: a folder of masks, one per map, matched by name without suffix.
        ignore: a folder of masks of pixels that do not count, for any of the images.
        threshold: one that was chosen on validation images; a multiple of 0.001.
        at_map_size: bring masks to the size of their map by the nearest pixel, rather than maps to that of their mask
            bilinearly. A published protocol always does, by a rule of its own.
        protocol: whose definitions, as in `score_maps`.
        steps: thresholds of a published protocol, likewise.

    Raises:
        PixelCAMError: a file is missing, unreadable, without partner or of another size, or a map leaves [0, 1].
    """
    _check_options(protocol, threshold=threshold, steps=steps)
    source, truth = open_maps(maps), files_by_stem(masks)
    ignored = {} if ignore is None else files_by_stem(ignore)
    _check_partners(source.names, truth, maps=maps, masks=masks)
    if strangers := sorted(set(ignored) - set(truth)):
        raise PixelCAMError(
            f"{ignored[strangers[0]]}: there is no mask '{strangers[0]}' in {masks}; remove or rename it"
        )
    ours = protocol is ScoreProtocol.PIXELCAM

    def pairs() -> Iterator[_Pair]:
        for name in source.names:
            mask = read_mask(truth[name])
            skipped = _read_ignored(ignored[name], mask) if name in ignored else None
            yield source.read(name) if ours else source.read_exactly(name), mask, skipped

    return (
        _score(pairs(), threshold, at_map_size=at_map_size) if ours else _score_as_published(pairs(), protocol, steps)
    )


def _score(pairs: Iterable[_Pair], threshold: float | None, *, at_map_size: bool) -> dict[str, Any]:
    """Score maps, each brought to the size of its mask, or the mask to that of its map."""
    tally, images = LocalizationTally(), 0
    for values, truth, ignore in pairs:
        heat, mask = torch.from_numpy(values).float().unsqueeze(0), torch.from_numpy(truth).unsqueeze(0)
        skipped = None if ignore is None else torch.from_numpy(ignore).unsqueeze(0)
        if at_map_size:
            mask = resize_labels(mask, heat.shape[1:])
            skipped = None if skipped is None else resize_labels(skipped, heat.shape[1:])
        resized = resize_map(heat, mask.shape[1:]).clamp(0, 1)
        tally.add(measure_maps(count_maps(resized, target=mask, ignore=skipped)))
        images += 1
    chosen = {} if threshold is None else {"validation": threshold}
    scores = asdict(tally.scores(chosen)) | {"images": images}
    return {key: jsonable(value) for key, value in scores.items()}


def _score_as_published(pairs: Iterable[_Pair], protocol: ScoreProtocol, steps: int | None) -> dict[str, Any]:
    """Score maps at their own size by the published definitions."""
    tally = PublishedTally(
        steps=PUBLISHED_STEPS[0] if steps is None else steps,
        stretched=protocol is ScoreProtocol.WSOLEVALUATION_STRETCHED,
    )
    for heat, mask, ignore in pairs:
        tally.add(heat.astype(np.float64), mask=mask, ignore=ignore)
    scores = {"protocol": str(protocol)} | asdict(tally.scores())
    return {key: jsonable(value, digits=PUBLISHED_DIGITS) for key, value in scores.items()}


def describe_scores(scores: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what `score_maps` or `score_map_files` gave as titles and values, for a table."""
    yield from _describe_published(scores) if "protocol" in scores else _describe_ours(scores)
    for key, title in BOX_TITLES.items():
        yield title, _text(scores["boxes"][key])
    yield "images", str(scores["images"])
    yield "images without region of interest", str(scores["images_without_roi"])


def _describe_published(scores: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield f"PxAP, {scores['protocol']}", _text(scores["pxap"])
    for name, region in scores["regions"].items():
        known_as = {"best_mean_iou": "best mean IoU, chosen on these masks", "half": "fixed"}[name]
        for key, title in PUBLISHED_TITLES.items():
            yield f"{title}, {known_as}" if key == "threshold" else title, _text(region[key])


def _describe_ours(scores: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, title in TITLES.items():
        yield title, _text(scores[key])
    for name, region in scores["regions"].items():
        known_as = {"validation": "given", "half": "fixed", "oracle": "oracle, chosen on these masks"}[name]
        yield f"threshold, {known_as}", _text(region["threshold"])
        for key, title in REGION_TITLES.items():
            yield f"  {title}", _text(region[key])


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _check_options(protocol: ScoreProtocol, *, threshold: float | None, steps: int | None) -> None:
    if protocol is ScoreProtocol.PIXELCAM:
        if steps is not None:
            raise PixelCAMError("steps is for published protocols; leave it out, or name one of those, wsolevaluation")
        _check_threshold(threshold)
        return
    if threshold is not None:
        raise PixelCAMError(f"threshold: the protocol {protocol} has thresholds of its own; leave it out")
    if steps is not None and steps not in PUBLISHED_STEPS:
        raise PixelCAMError(f"steps must be {' or '.join(map(str, PUBLISHED_STEPS))}, as published, got {steps}")


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


def _read_ignored(path: Path, mask: Bools) -> Bools:
    """Return the pixels that do not count, bool (H, W), of the size of the mask."""
    ignored = read_mask(path)
    if ignored.shape != mask.shape:
        raise PixelCAMError(
            f"{path}: expected the size of its mask, {mask.shape}, got {ignored.shape}; save both at one size"
        )
    return ignored
