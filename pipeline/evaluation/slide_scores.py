"""Whole test slides mapped and scored: which are suspicious (AUROC), which lesions are found (FROC, Dice)."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import shapely
import torch
from numpy.typing import NDArray

from pipeline.data.manifest import PreparedDomain, Split
from pipeline.data.pixels import read_lesions
from pipeline.data.slides import SlideRecord, read_slides
from pipeline.evaluation.domains import Chain
from pipeline.evaluation.slide_maps import HEAT, SlideJob, run_slide
from pipeline.evaluation.tables import jsonable
from pipeline.metrics.froc import group_lesions, match_detections
from pipeline.metrics.scores import Evaluation, ModelName
from pipeline.metrics.slides import ScoredSlide, score_slides
from pipeline.params.config import Params
from pipeline.params.errors import PixelCAMError
from pipeline.params.types import TilesDomain
from pipeline.runtime.cluster import side_by_side
from pipeline.runtime.files import replacing_folder, write_csv, write_json
from pipeline.runtime.seeding import derive_seed
from pipeline.slides.heat import Heat
from pipeline.slides.masks import rasterize
from pipeline.slides.peaks import find_peaks
from pipeline.slides.pyramids import read_ome_zarr

SCORES: Final = "slides.json"
PER_SLIDE: Final = "per_slide.csv"
STRIP: Final = 64  # rows of a heatmap whose annotation is rasterized at once
COLUMNS: Final = (
    "domain",
    "model",
    "slide",
    "patient",
    "label",
    "threshold",
    "score",
    "maximum",
    "share_of_tissue",
    "largest_region_mm",
    "regions",
    "dice",
    "lesions",
    "found",
    "false_positives",
)


@dataclass(frozen=True, kw_only=True)
class SlideModel:
    """A model to be scored on the slides of a domain.

    Attributes:
        name: which of the two it is.
        folder: where it lies.
        thresholds: of its regions, by domain.
    """

    name: ModelName
    folder: Path
    thresholds: Mapping[str, float]


def slide_models(chain: Chain, evaluations: Sequence[Evaluation]) -> list[SlideModel]:
    """Return both models of a chain, with the thresholds that were found for tiles."""
    folders = {ModelName.TEACHER: chain.teacher, ModelName.PIXELCAM: chain.pixelcam}
    return [
        SlideModel(
            name=name,
            folder=folder,
            thresholds={each.domain: each.scores.threshold for each in evaluations if each.model is name},
        )
        for name, folder in folders.items()
    ]


def evaluate_slides(
    domains: Sequence[PreparedDomain],
    models: Sequence[SlideModel],
    *,
    params: Params,
    output: Path,
    scratch: Path,
    scheduler: str | None = None,
) -> dict[str, dict[str, Any]]:
    """Map the test slides of every domain of slides with every model, and score the maps.

    Args:
        domains: those without slides are passed over.
        models: to be scored.
        params: all parameters.
        output: gets `slides.json`, `per_slide.csv` and, for each domain, model and slide, what `run_slide` writes.
        scratch: what is finished is kept here until all is, so that a run that was killed goes on there.
        scheduler: see `side_by_side`.

    Returns:
        what `slides.json` holds, `{domain: {model: SlideScores}}`, of domains with slides.

    Raises:
        PixelCAMError: a slide or a model is damaged.
    """
    scores: dict[str, dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    for domain in domains:
        records = _test_slides(domain)
        for model in models if records else ():
            jobs = [_job(domain, record, model, params, scratch) for record in records]
            workers = 1 if torch.cuda.is_available() else None
            label = f"slides of {domain.name}, {model.name}"
            told = list(side_by_side(run_slide, jobs, label=label, scheduler=scheduler, workers=workers))
            scored = [_score(record, job, domain) for record, job in zip(records, jobs, strict=True)]
            seed = derive_seed(params.seed, "bootstrap", domain.name)
            found = score_slides(scored, resamples=params.evaluate_ood.resamples, seed=seed)
            scores.setdefault(domain.name, {})[model.name.value] = jsonable(found.to_dict())
            rows += _rows(domain, model, records, scored, told)
    with replacing_folder(output) as folder:
        for name in scores:
            shutil.copytree(scratch / name, folder / name)
        write_json(folder / SCORES, scores)
        write_csv(folder / PER_SLIDE, pd.DataFrame(rows, columns=list(COLUMNS)).round(6))
    shutil.rmtree(scratch, ignore_errors=True)
    return scores


def _test_slides(domain: PreparedDomain) -> list[SlideRecord]:
    slides = () if domain.manifest.folder is None else read_slides(domain.manifest.folder)
    return [record for record in slides if record.split == Split.TEST]


def _job(domain: PreparedDomain, record: SlideRecord, model: SlideModel, params: Params, scratch: Path) -> SlideJob:
    described = params.domain(domain.name)
    if not isinstance(described, TilesDomain):
        raise PixelCAMError(
            f"domains.{domain.name}: its prepared folder holds slides, its adapter is '{described.adapter}'; run "
            f"'dvc repro -f prepare@{domain.name}'"
        )
    folder = domain.manifest.folder or domain.manifest.root
    background = domain.background_class_idx
    return SlideJob(
        slide=(domain.manifest.root / record.slide).absolute(),
        name=record.name,
        slide_mpp=record.mpp,
        model=model.folder.absolute(),
        params=params,
        mpp=described.mpp,
        size=described.tile_size,
        threshold=model.thresholds[domain.name],
        background_class=None if background is None else params.domain(params.source).classes[background],
        lesions=((folder / record.lesions).absolute(), record.lesions_sha256) if record.lesions else None,
        output=(scratch / domain.name / model.name.value).absolute(),
        scratch=(scratch / ".windows").absolute(),
    )


def _score(record: SlideRecord, job: SlideJob, domain: PreparedDomain) -> ScoredSlide:
    """Hold a slide's map against its annotation."""
    heat = read_ome_zarr(job.folder / HEAT)
    lesions = shapely.MultiPolygon() if job.lesions is None else read_lesions(*job.lesions)
    normal = record.class_idx == domain.background_class_idx
    peaks = find_peaks(heat)
    found = match_detections(peaks.points, peaks.scores, group_lesions(lesions, mpp=record.mpp), normal=normal)
    fine = job.params.slides.map_stride
    region = heat.seen & (heat.probabilities >= job.threshold)
    hit = annotated = 0
    for rows, counts in annotated_pixels(lesions, heat, fine=fine):
        hit += int(counts[region[rows]].sum())
        annotated += int(counts.sum())
    return ScoredSlide(
        slide=record.name,
        patient=record.patient,
        class_idx=record.class_idx,
        is_normal=normal,
        score=float(peaks.scores[0]) if len(peaks.scores) else 0.0,
        detections=found,
        true_positive=hit,
        predicted=int(region.sum()) * fine**2,
        annotated=annotated if record.lesions else None,
    )


def annotated_pixels(lesions: shapely.Geometry, heat: Heat, *, fine: int) -> Iterator[tuple[slice, NDArray[np.int64]]]:
    """Yield, for strips of rows of a heatmap, how many of the `fine` x `fine` parts of each pixel lie in a lesion.

    So maps and annotations are compared at the resolution at which the slide was read, strip by strip.
    """
    height, width = heat.values.shape
    for top in range(0, height, STRIP):
        rows = min(STRIP, height - top)
        mask = rasterize(
            lesions,
            corner=(0, top * heat.stride),
            size=(width * fine, rows * fine),
            downsample=heat.stride / fine,
        )
        yield slice(top, top + rows), mask.reshape(rows, fine, width, fine).sum(axis=(1, 3))


def _rows(
    domain: PreparedDomain,
    model: SlideModel,
    records: Sequence[SlideRecord],
    scored: Sequence[ScoredSlide],
    told: Sequence[Mapping[str, Any]],
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a model on a domain in the table of slides."""
    for record, slide, about in zip(records, scored, told, strict=True):
        threshold = model.thresholds[domain.name]
        yield {
            "domain": domain.name,
            "model": model.name.value,
            "slide": record.name,
            "patient": record.patient,
            "label": record.label,
            "threshold": threshold,
            "score": slide.score,
            **about["scores"],
            "dice": slide.dice,
            "lesions": len(slide.detections.lesion_scores),
            "found": int((slide.detections.lesion_scores >= threshold).sum()),
            "false_positives": int((slide.detections.false_scores >= threshold).sum()),
        }
