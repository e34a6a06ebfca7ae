"""The report: whole without a network, safe with any name, the same every time, and honest about what is missing."""

from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.labels import IGNORE
from pipeline.reporting import (
    DomainReport,
    GalleryImage,
    LabelQuality,
    ModelView,
    ReportContent,
    TrainingImage,
    render_report,
)

HOSTILE = "<script>alert('x')</script>\"&.png"
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Parse a page strictly enough to notice an unclosed element; collect what the tests ask for."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def values(self, attribute: str) -> list[str]:
        return [value for _, attrs in self.elements if (value := attrs.get(attribute)) is not None]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def model_scores(pxap: float | None, accuracy: float) -> dict[str, Any]:
    return {
        "pxap": pxap,
        "accuracy": accuracy,
        "balanced_accuracy": accuracy,
        "dice": pxap,
        "iou": pxap,
        "threshold": 0.412,
        "threshold_source": "validation",
        "foreground_share": None if pxap is None else 0.3,
        "predicted_classes": {"benign": 0.25, "malignant": 0.75},
        "images": 40,
        "images_with_mask": 30,
    }


def view(dice: float | None = 0.5, false_positive_share: float | None = 0.125) -> ModelView:
    rng = np.random.default_rng(0)
    return ModelView(
        map=rng.random((7, 7), dtype=np.float32),
        predicted_class="benign",
        dice=dice,
        false_positive_share=false_positive_share,
    )


def gallery_image(name: str = "a.png") -> GalleryImage:
    mask = np.zeros((40, 60), dtype=np.bool_)
    mask[10:20, 10:30] = True
    return GalleryImage(
        name=name,
        label="malignant",
        reason="best of 40",
        image=np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8),
        mask=mask,
        teacher=view(0.25),
        pixelcam=replace(view(0.75), predicted_class="malignant"),
    )


def content(*, gallery: tuple[GalleryImage, ...] = (), names: str = "a.png") -> ReportContent:
    shown = gallery_image(names)
    labels = np.full((20, 20), IGNORE, dtype=np.uint8)
    labels[:5], labels[5:7] = 0, 1
    history = pd.DataFrame({"epoch": [1, 2], "step": [6, 12], "image_loss": [0.7, 0.5], "val_accuracy": [0.5, 0.75]})
    curves = pd.DataFrame(
        [
            (domain, model, threshold, 0.5 + threshold / 4, 1 - threshold)
            for domain in ("colon", "lymph_node")
            for model in ("teacher", "pixelcam")
            for threshold in (0.0, 0.5, 1.0)
        ],
        columns=["domain", "model", "threshold", "precision", "recall"],
    )
    return ReportContent(
        domains=[
            DomainReport(
                name="colon",
                in_domain=True,
                scores={"teacher": model_scores(0.5, 0.9), "pixelcam": model_scores(0.625, 0.875)},
                gallery=gallery or (shown,),
            ),
            DomainReport(
                name="lymph_node",
                in_domain=False,
                scores={"teacher": model_scores(0.4, 0.8), "pixelcam": model_scores(0.3, 0.8)},
                gallery=(replace(shown, mask=None, teacher=view(None, None), pixelcam=view(None, None)),),
            ),
        ],
        histories={"teacher": history, "pixelcam": history.assign(pixel_loss=[0.6, float("nan")])},
        curves=curves,
        label_rule="foreground is where the map is at least 0.5",
        redrawn=True,
        label_quality=[
            LabelQuality(
                class_name="benign",
                foreground_share=0.1,
                background_share=0.25,
                ignore_share=0.65,
                foreground_precision=0.875,
                background_precision=None,
                foreground_recall=0.3125,
                background_recall=None,
            )
        ],
        learned_from=[
            TrainingImage(
                name=names,
                label="benign",
                image=shown.image,
                mask=shown.mask,
                cam=shown.teacher.map,
                pseudo_labels=labels,
            )
        ],
        provenance={"Versions": {"torch": "2.13.0"}, "Parameters": {names: names}},
    )


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(render_report(content()))


def test_the_labels_table_says_rule_precision_and_recall(page: Page) -> None:
    for said in ("foreground is where the map is at least 0.5", "True foreground found", "87.5", "31.2"):
        assert said in page.words


@pytest.mark.parametrize(("redrawn", "said"), [(True, "drawn anew in each step"), (False, "the same in each step")])
def test_the_page_says_whether_pixels_are_drawn_anew(redrawn: bool, said: str) -> None:
    words = Page(render_report(replace(content(), redrawn=redrawn))).words
    assert said in words
    assert words.count("in each step") == 1


def test_is_the_same_every_time() -> None:
    assert render_report(content()) == render_report(content())


def test_is_well_formed_with_unique_ids_and_links_that_lead_somewhere(page: Page) -> None:
    assert page.open == []
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    targets = [value.removeprefix("#") for value in page.values("href") if value.startswith("#")]
    assert set(targets) | set(page.values("aria-labelledby")) <= set(ids)


def test_asks_nothing_of_a_network(page: Page) -> None:
    assert all(value.startswith(("#", "data:")) for value in [*page.values("href"), *page.values("src")])
    assert "http:" not in render_report(content())
    assert "https:" not in render_report(content())
    assert "@import" not in render_report(content())
    assert page.of("script") == []


def test_names_from_outside_stay_text() -> None:
    page = Page(render_report(content(names=HOSTILE)))
    assert page.of("script") == []
    assert page.open == []
    assert HOSTILE in page.words
    assert any(HOSTILE in alt for alt in page.values("alt"))


def test_every_picture_has_words_and_a_size(page: Page) -> None:
    images = page.of("img")
    assert len(images) == 4 + 4 + 4
    assert all(image["alt"] and image["width"] == "60" and image["height"] == "40" for image in images)
    assert len(page.of("svg")) == 2 + 3
    described = [attrs for _, attrs in page.elements if attrs.get("role") == "img"]
    assert len(described) == 2 + 3
    assert all(attrs["aria-label"] for attrs in described)


def test_says_who_won_and_who_lost(page: Page) -> None:
    assert (
        "In domain (colon), PixelCAM localizes better than its teacher (PxAP 62.5 against 50.0) but classifies worse "
        "(accuracy 87.5 against 90.0); out of domain (lymph_node), it localizes worse (PxAP 30.0 against 40.0) and "
        "classifies as well (accuracy 80.0)."
    ) in page.words


def test_emphasises_the_better_score_alone() -> None:
    html = render_report(content())
    assert '<td class="pixelcam"><strong>62.5</strong>' in "".join(html.split("\n"))
    assert '<td class="teacher"><strong>90.0</strong>' in "".join(html.split("\n"))
    assert html.count("<strong>") == 2 * 5 - 2  # of two domains with five scores each, two are level


def test_scores_have_intervals_where_they_are_known(page: Page) -> None:
    assert "bootstrap" not in page.words
    given = content()
    for model, scores in given.domains[0].scores.items():
        assert isinstance(scores, dict)
        scores["intervals"] = {"pxap": {"low": 0.375, "high": 0.75}}
        if model == "pixelcam":
            scores["over_teacher"] = {"pxap": {"difference": 0.125, "low": -0.05, "high": 0.25, "p_value": 0.03}}
    words = Page(render_report(given)).words
    assert "50.0 37.5 to 75.0 62.5 37.5 to 75.0 +12.5 −5.0 to 25.0 p = 0.030" in words
    assert "intervals of a bootstrap over patients" in words


def test_a_model_that_collapsed_onto_one_class_raises_the_alarm(page: Page) -> None:
    assert "Alarm" not in page.words
    given = content()
    for model, scores in given.domains[0].scores.items():
        assert isinstance(scores, dict)
        scores["collapsed"] = model == "teacher"
    words = Page(render_report(given)).words
    assert words.count("Alarm") == 1
    assert "Alarm: Teacher predicts one class for nearly all images" in words


def test_captions_say_class_and_dice(page: Page) -> None:
    assert "benign, wrong; Dice 25.0" in page.words
    assert "malignant, right; Dice 75.0" in page.words
    assert "8% region of interest" in page.words
    assert "no mask" in page.words
    assert "10% foreground, 25% background" in page.words
    assert "best of 40" in page.words


def test_an_image_without_region_of_interest_shows_what_is_marked_in_vain() -> None:
    shown = gallery_image()
    empty = replace(shown, mask=np.zeros((40, 60), dtype=np.bool_), teacher=view(None), pixelcam=view(None))
    page = Page(render_report(content(gallery=(empty,))))
    assert "benign, wrong; marks 12.5% in vain" in page.words
    assert "no region of interest" in page.words


def test_says_where_the_thresholds_come_from(page: Page) -> None:
    assert "Teacher 0.412 and PixelCAM 0.412, chosen on validation masks of colon." in page.words
    fixed = content()
    for scores in fixed.domains[0].scores.values():
        assert isinstance(scores, dict)
        scores["threshold_source"] = "fixed"
    assert "fixed, because no validation mask of colon may be used." in Page(render_report(fixed)).words


def test_undefined_scores_are_dashes_with_a_reason() -> None:
    given = content()
    unscored = {"teacher": model_scores(None, 0.9), "pixelcam": model_scores(None, 0.875)}
    domains = [replace(given.domains[0], scores=unscored), given.domains[1]]
    no_curves = given.curves[given.curves["domain"] != "colon"]
    page = Page(render_report(replace(given, domains=domains, curves=no_curves)))
    assert "PxAP – – –" in page.words
    assert "No mask here shows a region of interest" in page.words
    assert not {"nan", "none"} & set(page.words.lower().split())
    assert not any("curves on colon" in label for label in page.values("aria-label"))


def test_charts_cover_what_the_histories_hold(page: Page) -> None:
    assert "Image loss, training" in page.words
    assert "Pixel loss, training" in page.words
    assert "Accuracy, validation" in page.words
    assert "Image loss, validation" not in page.words
    labels = page.values("aria-label")
    assert "Image loss, training over the epochs: Teacher from 0.7 to 0.5, PixelCAM from 0.7 to 0.5." in labels
    assert "Pixel loss, training over the epochs: PixelCAM from 0.6 to 0.6." in labels


def test_parts_that_do_not_apply_are_left_out() -> None:
    page = Page(render_report(replace(content(), label_quality=[], learned_from=[], histories={}, provenance={})))
    assert page.open == []
    assert "Pseudo-labels" not in page.words


def test_a_page_of_large_images_stays_small() -> None:
    large = replace(gallery_image(), image=np.random.default_rng(2).integers(0, 256, (900, 1200, 3), dtype=np.uint8))
    html = render_report(content(gallery=(large,) * 3))
    assert Page(html).of("img")[0]["width"] == "256"
    assert len(html) < 3 * 4 * 100_000  # white noise is as large as a picture gets
