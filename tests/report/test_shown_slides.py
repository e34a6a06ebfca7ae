"""Slides from files to cards: which are shown, what is said of them, and errors that name the file and the remedy."""

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.data.manifest import Manifest, PreparedDomain
from pipeline.params.errors import PixelCAMError
from pipeline.report.slide_files import read_slides
from pipeline.slides.overview import REGION_COLOUR

WIDTH, HEIGHT = 4000, 2000  # of level 0
SHOWN = (400, 200)
MODELS = ("teacher", "pixelcam")


def domain(name: str = "nodes") -> PreparedDomain:
    return PreparedDomain(name, ("normal", "metastatic"), 0, Manifest((), Path()))


def region(left: int, top: int, side: int, *, area: float) -> dict[str, object]:
    ring = [(left, top), (left, top + side), (left + side, top + side), (left + side, top), (left, top)]
    return {
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"measurements": {"area mm2": area, "maximum probability": 0.75}},
    }


def write(folder: Path, *, slides: int = 4) -> None:
    """Write slides of which every other one is normal; regions are a small one in a corner and large ones amid."""
    rows = []
    for model in MODELS:
        for index in range(slides):
            name = f"slides/{index:03d}"
            of_slide = folder / "nodes" / model / name
            of_slide.mkdir(parents=True)
            Image.new("RGB", SHOWN, (250, 250, 250)).save(of_slide / "thumbnail.png")
            Image.new("RGB", SHOWN, (index, 0, MODELS.index(model))).save(of_slide / "overview.png")
            (of_slide / "slide.json").write_text(json.dumps({"width": WIDTH, "height": HEIGHT}))
            regions = [region(0, 0, 40, area=0.25), *(region(2000, 1000, 200 + k, area=1 + k) for k in range(5))]
            (of_slide / "regions.geojson").write_text(json.dumps({"features": regions}))
            normal = index % 2 == 0
            rows.append(
                {
                    "domain": "nodes",
                    "model": model,
                    "slide": name,
                    "patient": "007",
                    "label": "normal" if normal else "metastatic",
                    "score": 0.5,
                    "dice": float("nan") if normal else 0.625,
                    "lesions": 0 if normal else 3,
                    "found": 0 if normal else 2,
                }
            )
    pd.DataFrame(rows).to_csv(folder / "per_slide.csv", index=False)
    (folder / "slides.json").write_text(json.dumps({"nodes": {model: {"slides": slides} for model in MODELS}}))


def colours(picture: bytes) -> set[tuple[int, ...]]:
    pixels = np.asarray(Image.open(BytesIO(picture)).convert("RGB")).reshape(-1, 3)
    return {tuple(int(value) for value in pixel) for pixel in np.unique(pixels, axis=0)}


def test_cards_say_what_was_found(tmp_path: Path) -> None:
    write(tmp_path)
    (report,) = read_slides(tmp_path, [domain("tiles"), domain()], most=10)
    assert report.name == "nodes"
    assert report.scores["pixelcam"] == {"slides": 4}
    assert [(card.model, card.slide) for card in report.cards] == [
        (model, f"slides/{index:03d}") for model in MODELS for index in range(4)
    ]
    normal, tumour = report.cards[4:6]
    assert (normal.is_normal, normal.dice, normal.lesions) == (True, None, 0)
    assert (tumour.is_normal, tumour.dice, tumour.lesions, tumour.found) == (False, 0.625, 3, 2)
    assert tumour.false_positives == ()
    assert colours(tumour.overview) == {(1, 0, 1)}


def test_false_regions_are_framed_the_largest_first(tmp_path: Path) -> None:
    write(tmp_path)
    (report,) = read_slides(tmp_path, [domain()], most=1)
    regions = report.cards[0].false_positives
    assert [each.area_mm2 for each in regions] == [5, 4, 3, 2, 1, 0.25]
    assert regions[0].maximum == 0.75
    assert [each.picture is not None for each in regions] == [True] * 4 + [False] * 2
    picture = regions[0].picture
    assert picture is not None
    assert Image.open(BytesIO(picture)).size == (96, 96)
    assert colours(picture) == {(250, 250, 250), REGION_COLOUR}


@pytest.mark.parametrize(("left", "top", "side"), [(0, 0, 40), (3960, 1960, 40), (0, 0, 2000), (1000, 0, 3000)])
def test_a_crop_stays_on_the_slide(tmp_path: Path, left: int, top: int, side: int) -> None:
    write(tmp_path, slides=1)
    for model in MODELS:
        path = tmp_path / "nodes" / model / "slides/000/regions.geojson"
        path.write_text(json.dumps({"features": [region(left, top, side, area=1)]}))
    (report,) = read_slides(tmp_path, [domain()], most=1)
    picture = report.cards[0].false_positives[0].picture
    assert picture is not None
    assert (0, 0, 0) not in colours(picture), "nothing from beyond the edge"


def test_slides_are_chosen_evenly_and_alike_for_both_models(tmp_path: Path) -> None:
    write(tmp_path, slides=9)
    (report,) = read_slides(tmp_path, [domain()], most=3)
    assert [(card.model, card.slide[-3:]) for card in report.cards] == [
        (model, index) for model in MODELS for index in ("000", "004", "008")
    ]


def test_without_slides_there_is_nothing_to_show(tmp_path: Path) -> None:
    (tmp_path / "slides.json").write_text("{}")
    (tmp_path / "per_slide.csv").write_text("domain,model,slide,patient,label,score,dice,lesions,found\n")
    assert read_slides(tmp_path, [domain()], most=3) == []


@pytest.mark.parametrize(
    "name",
    ["slides.json", "per_slide.csv", *(f"nodes/teacher/slides/000/{name}" for name in ("thumbnail.png", "slide.json"))],
)
def test_what_is_missing_is_named(tmp_path: Path, name: str) -> None:
    write(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(PixelCAMError, match=rf"{name}: cannot be read .*; run 'dvc repro'"):
        read_slides(tmp_path, [domain()], most=3)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("slides.json", "[]", "expected a JSON object, got list"),
        ("per_slide.csv", "domain,model\n", "the column slide is missing"),
        ("nodes/teacher/slides/000/regions.geojson", "{}", "cannot be read"),
        ("nodes/teacher/slides/000/regions.geojson", '{"features": [{}]}', "cannot be read"),
    ],
)
def test_what_is_damaged_is_named(tmp_path: Path, name: str, content: str, said: str) -> None:
    write(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(PixelCAMError, match=rf"{name}: {said}.*; run 'dvc repro'"):
        read_slides(tmp_path, [domain()], most=3)
