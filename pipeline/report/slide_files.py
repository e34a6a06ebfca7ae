"""What evaluation wrote of whole slides, read for the page: scores, pictures, and where normal slides are marked."""

import json
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from pipeline.data.manifest import PreparedDomain
from pipeline.evaluation.slide_maps import DESCRIPTION, OVERVIEW, REGIONS, THUMBNAIL
from pipeline.evaluation.slide_scores import PER_SLIDE, SCORES
from pipeline.params.errors import PixelCAMError
from pipeline.report.slide_parts import FalseRegion, SlideCard, SlidesReport
from pipeline.report.slides import CROPS
from pipeline.slides.overview import REGION_COLOUR

TEXTS: Final = ("domain", "model", "slide", "patient", "label")
AROUND: Final = 1.8  # times the extent of a region is shown
LEAST_SIDE: Final = 96  # pixels of the thumbnail

Box = tuple[float, float, float, float]  # left, top, right, bottom


def read_slides(folder: Path, domains: Sequence[PreparedDomain], *, most: int) -> list[SlidesReport]:
    """Return what the page shows of every domain that has slides, in the order of `domains`.

    Args:
        folder: what `evaluate_slides` wrote.
        domains: those that were scored.
        most: so many slides of a domain are shown, evenly over their order.

    Raises:
        PixelCAMError: a file is missing or damaged.
    """
    scores = _read_json(folder / SCORES)
    table = _read_table(folder / PER_SLIDE)
    return [
        SlidesReport(
            name=domain.name,
            scores=scores[domain.name],
            cards=list(_cards(folder / domain.name, table[table["domain"] == domain.name], domain, most=most)),
        )
        for domain in domains
        if domain.name in scores
    ]


def _cards(folder: Path, rows: pd.DataFrame, domain: PreparedDomain, *, most: int) -> Iterator[SlideCard]:
    """Yield the cards of a domain's chosen slides, one for each model."""
    background = domain.background_class_idx
    normal = None if background is None else domain.classes[background]
    names = list(dict.fromkeys(rows["slide"]))
    places = np.linspace(0, len(names) - 1, min(most, len(names))).round().astype(int)
    chosen = {names[place] for place in places}
    for row in rows[rows["slide"].isin(chosen)].to_dict("records"):
        of_slide = folder / row["model"] / row["slide"]
        thumbnail = _read_bytes(of_slide / THUMBNAIL)
        is_normal = row["label"] == normal
        yield SlideCard(
            slide=row["slide"],
            label=row["label"],
            is_normal=is_normal,
            model=row["model"],
            score=row["score"],
            dice=None if pd.isna(row["dice"]) else row["dice"],
            lesions=row["lesions"],
            found=row["found"],
            overview=_read_bytes(of_slide / OVERVIEW),
            thumbnail=thumbnail,
            false_positives=_false_regions(of_slide, thumbnail) if is_normal else (),
        )


def _false_regions(folder: Path, thumbnail: bytes) -> list[FalseRegion]:
    """Return all regions of a slide, the largest first, and those that are shown with a picture."""
    about, regions = _read_json(folder / DESCRIPTION), _read_json(folder / REGIONS)
    try:
        found = [
            (float(measured["area mm2"]), float(measured["maximum probability"]), feature["geometry"]["coordinates"][0])
            for feature in regions["features"]
            for measured in (feature["properties"]["measurements"],)
        ]
        side = max(about["width"], about["height"])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise _damaged(folder / REGIONS, error) from error
    found.sort(key=lambda region: region[0], reverse=True)
    with Image.open(BytesIO(thumbnail)) as opened:
        picture = opened.convert("RGB")
    scale = max(picture.size) / side
    return [
        FalseRegion(
            area_mm2=area,
            maximum=maximum,
            picture=_crop(picture, _bounds(np.array(ring) * scale)) if rank < CROPS else None,
        )
        for rank, (area, maximum, ring) in enumerate(found)
    ]


def _bounds(ring: "np.ndarray[Any, np.dtype[np.float64]]") -> Box:
    (left, top), (right, bottom) = ring.min(axis=0), ring.max(axis=0)
    return float(left), float(top), float(right), float(bottom)


def _crop(picture: Image.Image, box: Box) -> bytes:
    """Return as PNG a square around a box, which is framed; the square stays on the picture."""
    left, top, right, bottom = box
    side = round(min(max(LEAST_SIDE, AROUND * max(right - left, bottom - top)), *picture.size))
    x, y = (
        round(min(max((low + high - side) / 2, 0), whole - side))
        for low, high, whole in ((left, right, picture.size[0]), (top, bottom, picture.size[1]))
    )
    crop = picture.crop((x, y, x + side, y + side))
    frame = (left - x - 1, top - y - 1, right - x, bottom - y)
    ImageDraw.Draw(crop).rectangle(frame, outline=REGION_COLOUR, width=max(1, side // 64))
    content = BytesIO()
    crop.save(content, format="PNG")
    return content.getvalue()


def _read_table(path: Path) -> pd.DataFrame:
    """Read the table of slides; names stay text, even "NA" or "007", and an empty Dice is NaN."""
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(TEXTS, "str"), keep_default_na=False, na_values={"dice": [""]})
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    missing = [name for name in (*TEXTS, "score", "dice", "lesions", "found") if name not in table.columns]
    if missing:
        raise PixelCAMError(f"{path}: the column {missing[0]} is missing; run 'dvc repro'")
    return table


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    if not isinstance(content, dict):
        raise PixelCAMError(f"{path}: expected a JSON object, got {type(content).__name__}; run 'dvc repro'")
    return content


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> PixelCAMError:
    return PixelCAMError(f"{path}: cannot be read ({error}); run 'dvc repro'")
