"""Pseudo-labels of one image cut anew, by the run's rule with other values, and how good these are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from pipeline.data.image_store import square_batch
from pipeline.data.manifest import ManifestRow, PreparedDomain
from pipeline.data.maps import EvaluationBatch, resize_labels, resize_map
from pipeline.data.pixels import read_row, read_row_mask
from pipeline.params.config import ExtractionParams
from pipeline.params.errors import PixelCAMError, shown
from pipeline.params.vocabulary import BACKGROUND, FOREGROUND, IGNORE, ForegroundRule, PixelClasses, Refinement
from pipeline.pseudo_labels.quality import LabelQuality
from pipeline.pseudo_labels.refinement import PARAMETERS, refine_cams
from pipeline.pseudo_labels.store import PseudoLabelStore
from pipeline.pseudo_labels.thresholding import make_pseudo_labels, name_foreground
from pipeline.report.overlays import describe_rule
from pipeline.viewer.pictures import read_truth

SLIDERS: Final[Mapping[ForegroundRule, tuple[str, ...]]] = {  # what a rule can be given other values of
    ForegroundRule.THRESHOLD: ("foreground_threshold", "background_fraction"),
    ForegroundRule.PERCENTILE: ("foreground_fraction", "background_fraction"),
    ForegroundRule.OTSU: ("background_fraction",),
}


@dataclass(frozen=True, eq=False)
class Cut:
    """Labels uint8 (S, S): 0, 1 or 1, 2, ... by class, 255; and their quality, as `LabelQuality` says it."""

    labels: NDArray[np.uint8]
    quality: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Prepared:
    """What labels of one image are cut from, and compared with: all that stays while a slider moves.

    Attributes:
        cam: float32 (1, S, S) in [0, 1], refined where the rule says so.
        batch: the truth, as the pipeline's own count takes it.
        is_background: the image is of the class without any region of interest.
    """

    cam: Tensor
    batch: EvaluationBatch
    is_background: bool


def run_rule(section: ExtractionParams, store: PseudoLabelStore | None) -> ExtractionParams:
    """Return the rule that labels were cut by: the store's where it says so, else that of the params."""
    said = {} if store is None else store.attributes
    known = {name: said[name] for name in ExtractionParams.model_fields if name in said}
    if store is not None:
        known.setdefault("refine", Refinement.NONE)
    return ExtractionParams.model_validate(section.model_dump() | known)


def describe_run_rule(
    section: ExtractionParams, store: PseudoLabelStore | None, *, background_class: str | None
) -> str:
    """Say in words how labels were cut, or would be."""
    if store is not None:
        return describe_rule(store.attributes)
    said = section.model_dump(mode="json") | {"background_class": background_class}
    if section.refine is Refinement.NONE:
        return describe_rule(said | {"refine": None})
    return describe_rule(said | {"refine_parameters": PARAMETERS[section.refine]})


def change_rule(rule: ExtractionParams, values: Mapping[str, str]) -> ExtractionParams:
    """Return a rule with other values, of what its sliders move.

    Raises:
        PixelCAMError: a value is no number in (0, 1).
    """
    changed: dict[str, float] = {}
    for name in SLIDERS[rule.foreground_rule]:
        if name in values:
            try:
                changed[name] = float(values[name])
                rule = ExtractionParams.model_validate(rule.model_dump() | changed)
            except (ValueError, ValidationError) as error:
                raise PixelCAMError(f"{name} must lie in (0, 1), got {shown(values[name])}") from error
    return rule


def prepare(
    domain: PreparedDomain, row: ManifestRow, heat: NDArray[np.floating], *, side: int, rule: ExtractionParams
) -> Prepared:
    """Return what labels of an image are cut from.

    Args:
        domain: the image's.
        row: the image.
        heat: its CAM, floating point (h, w) in [0, 1].
        side: of the labels, in pixels.
        rule: how maps are refined before they are cut.
    """
    cam = resize_map(torch.from_numpy(heat.astype(np.float32)).unsqueeze(0), (side, side))
    if rule.refine is not Refinement.NONE:
        cam = refine_cams(cam, square_batch([read_row(domain.manifest, row)], side), rule)
    truth = read_truth(domain, row, side=side)
    ignore = read_row_mask(domain.manifest, row, row.ignore_mask) if row.ignore_mask else None
    empty = torch.zeros(1, side, side, dtype=torch.bool)
    batch = EvaluationBatch(
        image_ids=(row.image,),
        images=torch.empty(1, 3, 0, 0),
        class_idx=torch.tensor([row.class_idx]),
        masks=empty if truth is None else torch.from_numpy(truth).unsqueeze(0),
        has_mask=torch.tensor([truth is not None]),
        ignore=None if ignore is None else resize_labels(torch.from_numpy(ignore), (side, side)).unsqueeze(0),
    )
    return Prepared(cam, batch, row.class_idx == domain.background_class_idx)


def cut(prepared: Prepared, rule: ExtractionParams) -> Tensor:
    """Cut labels as the stage extract_pseudo_labels does, uint8 (1, S, S): 0, 1, 255."""
    labels = make_pseudo_labels(prepared.cam, rule)
    return labels.fill_(BACKGROUND) if prepared.is_background else labels


def judge(labels: Tensor, prepared: Prepared, *, classes: tuple[str, ...], pixel_classes: PixelClasses) -> Cut:
    """Count how good labels are, uint8 (1, S, S): 0, 1, 255, or 1, 2, ... where they are called by image class."""
    is_foreground = (labels != BACKGROUND) & (labels != IGNORE)
    plain = labels.masked_fill(is_foreground, FOREGROUND)
    quality = LabelQuality(classes)
    quality.update(plain, prepared.batch)
    if pixel_classes is PixelClasses.IMAGE_CLASSES:
        labels = name_foreground(plain, prepared.batch.class_idx)
    return Cut(labels[0].numpy(), quality.summary()["all"])
