"""One slide from the scanner's file to all that is written of it: heatmap, regions, overview, scores and provenance."""

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import shapely

from pipeline.data.pixels import read_lesions
from pipeline.evaluation.prediction import Predictor, load_model
from pipeline.evaluation.slide_windows import lay_windows, map_windows
from pipeline.params.config import Params
from pipeline.params.errors import PixelCAMError
from pipeline.runtime.files import replacing_folder, write_json
from pipeline.slides.geojson import write_geojson
from pipeline.slides.heat import CERTAIN, Heat
from pipeline.slides.overview import draw_overview, write_overview
from pipeline.slides.pyramids import write_ome_tiff, write_ome_zarr
from pipeline.slides.reading import Slide, fingerprint
from pipeline.slides.regions import Region, find_regions
from pipeline.slides.tissue import BoolMap, find_tissue, tissue_area

HEAT: Final = "heatmap.ome.zarr"
HEAT_TIFF: Final = "heatmap.ome.tiff"
REGIONS: Final = "regions.geojson"
OVERVIEW: Final = "overview.png"
THUMBNAIL: Final = "thumbnail.png"
DESCRIPTION: Final = "slide.json"
REGION_COLOUR: Final = (213, 94, 0)
OVERVIEW_SIDE: Final = 1024  # pixels of the overview's longer side
DIGITS: Final = 6


@dataclass(frozen=True, kw_only=True)
class SlideJob:
    """What is to be done with a slide.

    Attributes:
        slide: the file.
        name: of the folder that is written for it.
        slide_mpp: overrules what the file says of its mpp.
        model: a model's folder.
        params: how maps are read, and slides.
        mpp: micrometres per pixel at which windows are read.
        size: side of a tile in pixels; windows are `slides.window` tiles wide.
        threshold: of regions.
        background_class: name of the class without lesions, if there is one.
        lesions: what is annotated, as `prepare` writes it, and its SHA-256; None where that is not known.
        output: the folder that holds one folder for each slide.
        scratch: for windows that have been looked at.
        keep_scratch: leave them for another run; else they go when the slide is done.
    """

    slide: Path
    name: str
    slide_mpp: float | None
    model: Path
    params: Params
    mpp: float
    size: int
    threshold: float
    background_class: str | None
    lesions: tuple[Path, str] | None
    output: Path
    scratch: Path
    keep_scratch: bool = False

    @property
    def folder(self) -> Path:
        """The folder that is written."""
        return self.output / self.name


def run_slide(job: SlideJob) -> dict[str, Any]:
    """Write all about a slide and return what `slide.json` says. What was written by the same job before is left.

    Raises:
        PixelCAMError: the slide is damaged, without mpp or tissue; or the model, or the annotation, is damaged.
    """
    predictor = _predictor(job.model, job.params.model_dump_json())
    enlarge = job.params.slides.window
    look = partial(predictor.look_for, background_class_idx=_background(job, predictor), enlarge=enlarge)
    key = _key_of(job, predictor)
    done = _read_done(job, key)
    if done is not None:
        return done
    scratch = job.scratch / key
    slides = job.params.slides
    with Slide(job.slide, mpp=job.slide_mpp) as slide:
        tissue = find_tissue(slide, slides.tissue)
        windows = lay_windows(slide, tissue, size=job.size * slides.window, mpp=job.mpp, params=slides)
        heat = map_windows(slide, windows, tissue, look=look, batch_size=slides.batch_size, scratch=scratch)
        regions = find_regions(heat, threshold=job.threshold, smallest_mm2=slides.smallest_region)
        regions = [_on_slide(region, slide.size) for region in regions]
        about = {
            "slide": job.slide.name,
            "slide_sha256": fingerprint(job.slide),
            "width": slide.size[0],
            "height": slide.size[1],
            "mpp": slide.mpp,
            "tissue_mm2": round(tissue_area(tissue, mpp=slides.tissue.mpp), DIGITS),
            "windows": len(windows),
            "window": {"mpp": job.mpp, "size": windows.size},
            "threshold": job.threshold,
            "scores": slide_scores(heat, regions),
            "model": predictor.describe(),
            "params": slides.model_dump(mode="json"),
            "pixelcam": version("pixelcam"),
            "key": key,
        }
        _write(job, slide, tissue, heat, regions, about)
    if not job.keep_scratch:
        shutil.rmtree(scratch, ignore_errors=True)
    return about


def slide_scores(heat: Heat, regions: list[Region]) -> dict[str, float | int]:
    """Return what is said of a slide as a whole.

    Returns:
        `maximum` probability; `share_of_tissue` within regions; `largest_region_mm`, the largest extent of one;
        `regions`, their number.
    """
    seen = float(heat.seen.sum()) * heat.pixel_size**2 / 1e6
    return {
        "maximum": round(float(heat.values.max(where=heat.seen, initial=0)) / CERTAIN, DIGITS),
        "share_of_tissue": round(sum(region.area_mm2 for region in regions) / seen, DIGITS) if seen else 0.0,
        "largest_region_mm": round(max((region.diameter_mm for region in regions), default=0.0), DIGITS),
        "regions": len(regions),
    }


def _on_slide(region: Region, size: tuple[int, int]) -> Region:
    """Cut a region where the last pixels of the map hang over the slide's edge."""
    inside = shapely.intersection(region.polygon, shapely.box(0, 0, *size))
    return replace(region, polygon=shapely.orient_polygons(inside)) if inside.geom_type == "Polygon" else region


def _write(
    job: SlideJob, slide: Slide, tissue: BoolMap, heat: Heat, regions: list[Region], about: dict[str, Any]
) -> None:
    """Write the folder of a slide, whole or not at all."""
    lesions = None if job.lesions is None else read_lesions(*job.lesions)
    class_name = "lesion"
    if job.background_class is not None and len(about["model"]["classes"]) == 2:
        (class_name,) = set(about["model"]["classes"]) - {job.background_class}
    mpp = max(slide.size) * slide.mpp / OVERVIEW_SIDE
    thumbnail = slide.thumbnail(mpp=mpp)
    with replacing_folder(job.folder) as folder:
        write_ome_zarr(folder / HEAT, heat, name=job.name, attributes=about)
        write_ome_tiff(folder / HEAT_TIFF, heat, name=job.name)
        write_geojson(folder / REGIONS, regions, name=class_name, colour=REGION_COLOUR)
        picture = draw_overview(thumbnail, heat, thumbnail_mpp=mpp, tissue=tissue, regions=regions, annotation=lesions)
        write_overview(folder / OVERVIEW, picture)
        write_overview(folder / THUMBNAIL, thumbnail)
        write_json(folder / DESCRIPTION, about)


def _background(job: SlideJob, predictor: Predictor) -> int | None:
    if job.background_class is None:
        return None
    if job.background_class not in predictor.classes:
        raise PixelCAMError(
            f"{job.model}: knows the classes {', '.join(predictor.classes)}, and no '{job.background_class}'; give "
            "the params that it was trained with"
        )
    return predictor.classes.index(job.background_class)


def _key_of(job: SlideJob, predictor: Predictor) -> str:
    """Return what determines all that is written of a slide."""
    told = {
        name: str(value)
        for name, value in asdict(job).items()
        if name not in ("params", "output", "scratch", "keep_scratch", "slide", "model", "lesions")
    }
    determining = [
        told,
        fingerprint(job.slide) if job.slide.exists() else "",
        None if job.lesions is None else job.lesions[1],
        job.params.slides.model_dump(mode="json"),
        predictor.describe(),
        version("pixelcam"),
    ]
    return hashlib.sha256(json.dumps(determining, sort_keys=True).encode()).hexdigest()[:16]


def _read_done(job: SlideJob, key: str) -> dict[str, Any] | None:
    """Return what an earlier run of the same job said, None if there was none."""
    try:
        about: dict[str, Any] = json.loads((job.folder / DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return about if isinstance(about, dict) and about.get("key") == key else None


@lru_cache(maxsize=2)
def _predictor(model: Path, params: str) -> Predictor:
    """Return a model that this process keeps, since it looks at many slides."""
    return load_model(model, params=Params.model_validate_json(params))
