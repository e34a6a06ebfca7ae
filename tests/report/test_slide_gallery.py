"""Slides on the page: scores side by side, curves, every slide with both maps, and its false regions by size."""

from base64 import b64decode
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image
from test_page import HOSTILE, Page

from pipeline.evaluation.tables import jsonable
from pipeline.metrics.froc import SlideDetections
from pipeline.metrics.slides import ScoredSlide, score_slides
from pipeline.report import slides as report_slides
from pipeline.report.charts import Line
from pipeline.report.page import TEMPLATES
from pipeline.report.parts import MODELS
from pipeline.report.slide_parts import FalseRegion, SlideCard, SlidesReport
from pipeline.report.slides import outline_colours, slide_gallery
from pipeline.report.wording import percent


def png(seed: int = 0, *, size: tuple[int, int] = (640, 480)) -> bytes:
    """Return a picture that is as hard to compress as tissue; size is width and height."""
    small = np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    content = BytesIO()
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(content, format="PNG")
    return content.getvalue()


Scores = dict[str, Any]
SLIDE, MAP, CROP = png(0), png(1), png(2, size=(256, 256))


def card(slide: str = "tumour_1", model: str = "pixelcam", **changes: object) -> SlideCard:
    given = SlideCard(
        slide=slide,
        label="metastatic",
        is_normal=False,
        model=model,
        score=0.9,
        dice=0.75,
        lesions=3,
        found=2,
        overview=MAP,
        thumbnail=SLIDE,
    )
    return replace(given, **changes)  # type: ignore[arg-type]


def normal_card(*areas: float, model: str = "pixelcam", picture: bytes | None = CROP) -> SlideCard:
    regions = [FalseRegion(area_mm2=area, maximum=0.8, picture=picture) for area in areas]
    return card(
        "normal_1",
        model=model,
        label="normal",
        is_normal=True,
        score=0.4,
        dice=None,
        lesions=0,
        found=0,
        false_positives=regions,
    )


def scores(*found: float, false: tuple[float, ...] = (0.5, 0.3), with_normal: bool = True) -> Scores:
    """Return the scores of a slide with a lesion for each of `found`, and of one without, as JSON has them."""
    slides = [
        ScoredSlide(
            slide=name,
            patient=name,
            class_idx=int(not normal),
            is_normal=normal,
            score=0.1 if normal else 0.9,
            detections=SlideDetections(
                lesion_scores=np.array(() if normal else found, dtype=np.float64),
                false_scores=np.array(false, dtype=np.float64),
                normal=normal,
                isolated=0 if normal else 2,
            ),
            true_positive=0 if normal else 30,
            predicted=40,
            annotated=0 if normal else 60,
        )
        for name, normal in (("tumour_1", False), ("normal_1", True))[: 1 + with_normal]
    ]
    told = jsonable(score_slides(slides, resamples=100, seed=0).to_dict())
    assert isinstance(told, dict)
    return told


def report(*cards: SlideCard, name: str = "nodes", **by_model: Scores) -> SlidesReport:
    of_models = {"teacher": scores(0.4, -np.inf), "pixelcam": scores(0.9, 0.4)} | by_model
    return SlidesReport(name=name, scores=of_models, cards=cards)


def section(*domains: SlidesReport) -> str:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["percent"] = percent  # which the macros beside it use
    return environment.get_template("slides.html.j2").render(
        slides=slide_gallery(domains), models=MODELS, heat_gradient="red", outline_colours=outline_colours()
    )


def picture_bytes(uri: str) -> bytes:
    return b64decode(uri.partition(",")[2])


@pytest.fixture(scope="module")
def page() -> Page:
    both = [card(model="teacher", found=1, dice=0.5), card(), normal_card(model="teacher"), normal_card(0.1, 0.5)]
    return Page(section(report(*both)))


def test_scores_stand_side_by_side(page: Page) -> None:
    assert "AUROC over slides 100.0" in page.words
    assert "2 slides of 2 patients, 1 of them without lesion; 2 lesions to be found, and 2 left out as" in page.words
    (found,) = slide_gallery([report()])
    froc = next(row for row in found.rows if row.title == "FROC score")
    # PixelCAM: (0, 1/2), (1, 1/2), (1, 1), (2, 1); teacher: (0, 0), (1, 0), (1, 1/2), (2, 1/2), over six rates
    assert (froc.teacher, froc.pixelcam, froc.better) == ("33.3", "83.3", "pixelcam")
    assert [row.title for row in found.rates] == ["1/4", "1/2", "1", "2", "4", "8"]
    assert [row.pixelcam for row in found.rates] == ["50.0", "50.0", "100.0", "100.0", "100.0", "100.0"]


def test_the_curve_goes_on_to_the_highest_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Line] = []

    def draw(lines: list[Line], **_: object) -> str:
        drawn.extend(lines)
        return "<svg/>"

    monkeypatch.setattr(report_slides, "draw_lines", draw)
    many = scores(0.9, 0.01, false=tuple(np.linspace(0.1, 0.8, 20)))
    (found,) = slide_gallery([report(pixelcam=many)])
    assert found.chart is not None
    assert [line.name for line in found.chart.legend] == ["Teacher 33.3", "PixelCAM 50.0"]
    teacher, pixelcam = drawn
    assert (teacher.x[-1], teacher.y[-1]) == (8, 0.5)
    assert (pixelcam.x.max(), pixelcam.y[-1]) == (8, 0.5), "the lesion that 20 false positives bring is off the chart"


def test_without_normal_slide_there_is_no_curve_and_the_page_says_why() -> None:
    alone = scores(0.9, with_normal=False)
    given = report(card(), teacher=alone, pixelcam=alone)
    (found,) = slide_gallery([given])
    assert found.chart is None
    words = Page(section(given)).words
    assert "FROC takes a lesion to be found and a slide without any; one of them is missing here." in words
    assert "1 slide of 1 patient, none of them without lesion" in words
    assert "FROC score – – –" in words


def test_every_slide_stands_once_with_both_maps(page: Page) -> None:
    assert page.open == []
    assert len(page.of("article")) == 2
    titles = ["Slide", "Teacher's map", "PixelCAM's map"]
    assert [text for text in page.text if text in titles] == titles * 2
    assert "score 90.0; Dice 50.0; finds 1 of 3" in page.words
    assert "score 90.0; Dice 75.0; finds 2 of 3" in page.words
    assert "tumour_1 nodes; metastatic, 3 lesions to be found" in page.words


def test_false_regions_of_a_normal_slide_come_by_size(page: Page) -> None:
    assert "score 40.0; no false regions" in page.words
    assert "score 40.0; 2 false regions" in page.words
    assert page.words.index("0.5 mm², up to 80.0") < page.words.index("0.1 mm², up to 80.0")
    (found,) = slide_gallery([report(normal_card(*np.linspace(1, 7, 7)))])
    (view,) = found.cases[0].views
    assert [said for _, said in view.crops] == [f"{area} mm², up to 80.0" for area in (7, 6, 5, 4)]
    assert view.more == 3


def test_a_false_region_without_picture_is_told_in_words() -> None:
    html = section(report(normal_card(0.25, picture=None)))
    assert "1 false region" in Page(html).words
    assert "0.25 mm², up to 80.0" in Page(html).words
    assert len(Page(html).of("img")) == 2


def test_a_slide_of_which_no_lesion_is_known_is_no_normal_one() -> None:
    words = Page(section(report(card(lesions=0, found=0, dice=None)))).words
    assert "metastatic, no annotated lesion to be found" in words
    assert "score 90.0" in words
    assert "finds" not in words.partition("Slide by slide")[2].partition("tumour_1")[2]
    assert "false region" not in words.partition("tumour_1")[2]


def test_every_picture_has_words_and_lies_in_the_page(page: Page) -> None:
    pictures = page.of("img")
    assert len(pictures) == 2 * 3 + 2
    assert all(picture["alt"] for picture in pictures)
    assert all((picture["src"] or "").startswith("data:image/webp;base64,") for picture in pictures)
    first = pictures[0]
    assert Image.open(BytesIO(picture_bytes(first["src"] or ""))).size == (
        int(first["width"] or 0),
        int(first["height"] or 0),
    )
    assert len([attrs for attrs in page.of("input") if attrs.get("aria-label", "")]) == 2 * 3


def test_pictures_grow_coarser_so_that_the_page_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_slides, "BYTES_FOR_SLIDES", 100_000)

    def take(count: int) -> tuple[int, int]:
        (found,) = slide_gallery([report(*(card(f"s{index}") for index in range(count)))])
        shown = [picture for case in found.cases for picture in (case.picture, case.views[0].picture)]
        return sum(len(picture_bytes(picture.uri)) for picture in shown), shown[0].width

    (few, fine), (many, coarse) = take(1), take(4)
    assert fine > coarse
    assert max(few, many) <= 100_000


def test_names_from_outside_stay_text() -> None:
    html = section(report(card(HOSTILE, label=HOSTILE), name=HOSTILE))
    assert Page(html).of("script") == []
    assert Page(html).open == []
    assert HOSTILE in Page(html).words
    assert "http:" not in html


def test_without_slides_there_is_no_section() -> None:
    assert section().strip() == ""
    assert "Slide by slide" not in section(report())


def test_is_the_same_every_time() -> None:
    given = report(card(), normal_card(0.1))
    assert section(given) == section(given)
