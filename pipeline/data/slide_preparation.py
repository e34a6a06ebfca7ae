"""From whole slides to the manifest of their tiles: each slide a unit of work, which a rerun does not repeat.

A unit's result is kept, by a key of what determines it, in the folder of decoded images.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import shapely
from numpy.typing import NDArray

from pipeline.data.adapters.slides import ListedSlide, name_of
from pipeline.data.image_store import images_folder
from pipeline.data.manifest import ManifestRow, Split, refuse_way_out
from pipeline.data.pixels import tile_sha256
from pipeline.data.slides import LESIONS, SlideRecord, write_slides
from pipeline.data.text_rows import raise_faults
from pipeline.params.errors import PixelCAMError, shown
from pipeline.params.slides import TissueParams
from pipeline.params.types import TilesDomain
from pipeline.runtime.cluster import side_by_side
from pipeline.runtime.console import say
from pipeline.runtime.files import replacing_file, sha256_of
from pipeline.slides.annotations import read_annotation
from pipeline.slides.grid import draw_tiles, lay_grid
from pipeline.slides.masks import covered_shares
from pipeline.slides.nuclei import doubt_about_mpp
from pipeline.slides.reading import Slide, fingerprint
from pipeline.slides.tissue import find_tissue, tissue_area

UNIT_VERSION: Final = 1  # also to be raised when tiles come to be chosen in another way
DIGITS: Final = 6  # of areas


@dataclass(frozen=True, kw_only=True)
class _Job:
    listed: ListedSlide
    root: Path
    domain: TilesDomain
    tissue: TissueParams
    kept: Path


@dataclass(frozen=True, kw_only=True)
class _Unit:
    """A slide's tiles, or what is wrong with it.

    `corners` are x and y of each tile in pixels of level 0, `lesion` says which show the slide's class; `lesions` is
    GeoJSON, or "" where they are not known.
    """

    faults: list[str]
    remarks: list[str]
    slide_sha256: str = ""
    mpp: float = 0.0
    size: tuple[int, int] = (0, 0)
    tissue_mm2: float = 0.0
    lesions: str = ""
    corners: list[tuple[int, int]]
    lesion: list[bool]


def prepare_slides(
    listed: Sequence[ListedSlide],
    domain: TilesDomain,
    *,
    root: Path,
    folder: Path,
    tissue: TissueParams,
    scheduler: str | None,
) -> list[ManifestRow]:
    """Choose the tiles of every slide and write the table of slides, and their lesions, into `folder`.

    Args:
        listed: the slides.
        domain: how tiles are cut.
        root: the folder that paths of slides start from.
        folder: of the prepared domain.
        tissue: where there is tissue.
        scheduler: see `side_by_side`.

    Returns:
        Rows for the tiles, sorted by split, slide and place.

    Raises:
        PixelCAMError: lists every slide that is missing, damaged, without mpp or tissue, or in the wrong class, and
            every annotation that does not fit.
    """
    kept = images_folder() / "tiles"
    kept.mkdir(parents=True, exist_ok=True)
    jobs = [_Job(listed=each, root=root, domain=domain, tissue=tissue, kept=kept) for each in listed]
    units = list(side_by_side(_prepare_once, jobs, label="preparing slides", scheduler=scheduler))
    raise_faults([fault for unit in units for fault in unit.faults], source=root)
    for unit in units:
        for remark in unit.remarks:
            say(f"{root}: {remark}")
    order = list(Split)
    pairs = sorted(zip(listed, units, strict=True), key=lambda pair: (order.index(pair[0].split), pair[0].slide))
    records = [_record(each, unit, domain, folder) for each, unit in pairs]
    write_slides(records, folder)
    return [row for record, (_, unit) in zip(records, pairs, strict=True) for row in _rows(record, unit, domain)]


def _prepare_once(job: _Job) -> _Unit:
    """Return a slide's unit, from what is kept of it if there is anything."""
    try:
        path = job.kept / f"{_key_of(job)}.json"
    except PixelCAMError as error:
        return _Unit(faults=[str(error)], remarks=[], corners=[], lesion=[])
    if path.exists():
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return _Unit(**{**kept, "size": tuple(kept["size"])})
    unit = _prepare(job)
    if not unit.faults:
        with replacing_file(path) as temporary:
            temporary.write_text(json.dumps(asdict(unit)), encoding="utf-8")
    return unit


def _key_of(job: _Job) -> str:
    """Return what tells a unit from others; raise a `PixelCAMError` for files that are missing or out of the root."""
    checksums = []
    for name, checksum in ((job.listed.slide, fingerprint), (job.listed.annotation, sha256_of)):
        if name:
            refuse_way_out(name, root=job.root)
            if not (job.root / name).is_file():
                raise PixelCAMError(f"{job.root / name}: there is no such file; restore it, or mend the table")
        checksums.append(checksum(job.root / name) if name else "")
    rules = job.domain.model_dump(mode="json", include=set(TilesDomain.model_fields))
    listed = {**asdict(job.listed), "split": ""}
    determining = [UNIT_VERSION, checksums, rules, job.tissue.model_dump(mode="json"), listed]
    return hashlib.sha256(json.dumps(determining, sort_keys=True).encode()).hexdigest()[:32]


def _prepare(job: _Job) -> _Unit:
    """Find a slide's tissue, lay the grid and choose tiles."""
    listed, domain = job.listed, job.domain
    path = job.root / listed.slide
    try:
        if listed.label not in domain.classes:
            raise PixelCAMError(
                f"{listed.slide}: expected a label out of {', '.join(domain.classes)}, got {shown(listed.label)}; mend "
                "it, or classes in the params"
            )
        with Slide(path, mpp=listed.mpp) as slide:
            tissue = find_tissue(slide, job.tissue)
            lesions, remarks = _lesions(job, slide)
            downsample = domain.mpp / slide.mpp
            side = domain.tile_size * downsample
            scale = job.tissue.mpp / slide.mpp
            corners = lay_grid(tissue, scale=scale, side=side, step=side, least=domain.tissue_share)
            corners, lesion = _choose(corners, lesions, job, side=side)
            remarks += doubt_about_mpp(slide, corners, side=side)
            if not len(corners):
                raise PixelCAMError(
                    f"{listed.slide}: gives no tile of {domain.tile_size} pixels at {domain.mpp} micrometres per pixel "
                    "with enough tissue and a class beyond doubt; lower tissue_share or mpp, or remove the slide"
                )
            return _Unit(
                faults=[],
                remarks=remarks,
                slide_sha256=fingerprint(path),
                mpp=slide.mpp,
                size=slide.size,
                tissue_mm2=round(tissue_area(tissue, mpp=job.tissue.mpp), DIGITS),
                lesions="" if lesions is None else shapely.to_geojson(lesions),
                corners=[(int(x), int(y)) for x, y in corners],
                lesion=lesion.tolist(),
            )
    except PixelCAMError as error:
        return _Unit(faults=[str(error)], remarks=[], corners=[], lesion=[])


def _lesions(job: _Job, slide: Slide) -> tuple[shapely.Geometry | None, list[str]]:
    """Return the lesions of a slide, None where they are not known, and what was mended."""
    listed, domain = job.listed, job.domain
    normal = listed.label == domain.background_class
    if not listed.annotation:
        return (shapely.MultiPolygon() if normal else None), []
    path = job.root / listed.annotation
    annotation = read_annotation(path, groups=domain.annotation_groups, size=slide.size)
    if normal and not annotation.lesions.is_empty:
        raise PixelCAMError(
            f"{listed.annotation}: marks lesions, but {listed.slide} is of the background class "
            f"'{listed.label}'; mend the label or set background_class to null"
        )
    if not normal and annotation.lesions.is_empty:
        raise PixelCAMError(
            f"{listed.annotation}: marks no lesion, but {listed.slide} is of class {shown(listed.label)}; mend it, "
            "or list no annotation where none is known"
        )
    return annotation.lesions, list(annotation.remarks)


def _choose(
    corners: NDArray[np.int64], lesions: shapely.Geometry | None, job: _Job, *, side: float
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the tiles that are taken, and which of them show the slide's class; the others show the background."""
    domain = job.domain
    known = lesions is not None
    if job.listed.label == domain.background_class or not known:
        lesion = np.full(len(corners), not known)
        certain = np.ones(len(corners), dtype=np.bool_)
    else:
        shares = covered_shares(lesions, corners, side=side)
        lesion = shares >= domain.lesion_share
        certain = lesion | ((shares <= domain.doubt_share) & (domain.background_class is not None))
    corners, lesion = corners[certain], lesion[certain]
    name = int.from_bytes(hashlib.sha256(job.listed.slide.encode()).digest()[:8], "big")
    drawn = draw_tiles(lesion & known, most=domain.tiles_per_slide, rng=np.random.default_rng([domain.seed, name]))
    return corners[drawn], lesion[drawn]


def _record(listed: ListedSlide, unit: _Unit, domain: TilesDomain, folder: Path) -> SlideRecord:
    """Write a slide's lesions, where they are known, and return its record."""
    name = name_of(listed.slide)
    lesions = f"{LESIONS}/{name}.geojson" if unit.lesions else ""
    if lesions:
        (folder / lesions).parent.mkdir(parents=True, exist_ok=True)
        (folder / lesions).write_text(unit.lesions + "\n", encoding="utf-8")
    return SlideRecord(
        slide=listed.slide,
        name=name,
        label=listed.label,
        class_idx=domain.classes.index(listed.label),
        split=listed.split,
        patient=listed.patient or name,
        lesions=lesions,
        lesions_sha256=sha256_of(folder / lesions) if lesions else "",
        mpp=unit.mpp,
        width=unit.size[0],
        height=unit.size[1],
        tissue_mm2=unit.tissue_mm2,
        tiles=len(unit.corners),
        slide_sha256=unit.slide_sha256,
    )


def _rows(record: SlideRecord, unit: _Unit, domain: TilesDomain) -> list[ManifestRow]:
    """Return the rows of a slide's tiles."""
    downsample = domain.mpp / record.mpp
    rows = []
    for (x, y), lesion in zip(unit.corners, unit.lesion, strict=True):
        label = record.label if lesion or domain.background_class is None else domain.background_class
        masked = lesion and bool(record.lesions)
        row = ManifestRow(
            image=f"{record.name}_x{x}_y{y}",
            mask=record.lesions if masked else "",
            ignore_mask="",
            label=label,
            class_idx=domain.classes.index(label),
            split=record.split,
            patient=record.patient,
            width=domain.tile_size,
            height=domain.tile_size,
            image_sha256="",
            mask_sha256=record.lesions_sha256 if masked else "",
            mask_selectable=record.split == Split.VAL,
            slide=record.slide,
            x=x,
            y=y,
            downsample=downsample,
            slide_sha256=record.slide_sha256,
        )
        rows.append(replace(row, image_sha256=tile_sha256(row)))
    return rows
