"""The report: whole without a network, safe with any name, the same every time, and honest about what is missing."""

import hashlib
import re
from base64 import b64encode
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.params.vocabulary import IGNORE, Approach, PixelHeadName, TestTime, Weights
from pipeline.report.page import render_report
from pipeline.report.parts import (
    DomainReport,
    GalleryImage,
    LabelQuality,
    LabelRound,
    ModelView,
    PixelLabels,
    ReportContent,
    Setting,
    TrainingImage,
)

HOSTILE = "<script>alert('x')</script>\"&.png"
VOID = {"meta", "link", "br", "hr", "input"}
SETTING = Setting(
    approach=Approach.JOINT,
    pixel_head=PixelHeadName.LINEAR,
    pixel_classes=("background", "foreground"),
    redraw=True,
    scored=Weights.SELECTED,
    test_time=TestTime.NONE,
    selections={"teacher": "last", "pixelcam": "last"},
    masks_select=False,
)


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
        if not {"script", "style"} & set(self.open):
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


def matrix() -> pd.DataFrame:
    """Two seeds, two options at test time and two selections, of two models on two domains."""
    columns = ["seed", "weights", "test_time", "domain", "in_domain", "model", "pxap", "accuracy"]
    variants = [(0, "selected", "none"), (0, "selected", "macenko"), (0, "val_pxap", "none"), (1, "selected", "none")]
    rows = [
        (*variant, domain, domain == "colon", model, 0.5 + 0.1 * number, 0.75)
        for number, variant in enumerate(variants)
        for domain in ("colon", "lymph_node")
        for model in ("teacher", "pixelcam")
    ]
    drops = {"pxap_drop": 0.125, "accuracy_drop": -0.25}
    return pd.DataFrame(rows, columns=columns).assign(adapted_to="", adaptation="source_only", **drops)


def label_round(learner: str = "pixelcam", maps: str = "the teacher's CAM (layercam)") -> LabelRound:
    quality = LabelQuality(
        class_name="benign",
        foreground_share=0.1,
        background_share=0.25,
        ignore_share=0.65,
        foreground_precision=0.875,
        background_precision=None,
        foreground_recall=0.3125,
        background_recall=None,
    )
    return LabelRound(learner=learner, maps=maps, rule="foreground is where the map is at least 0.5", quality=[quality])


def content(*, gallery: tuple[GalleryImage, ...] = (), names: str = "a.png") -> ReportContent:
    shown = gallery_image(names)
    labels = np.full((20, 20), IGNORE, dtype=np.uint8)
    labels[:5], labels[5:7] = 0, 1
    confidences = pd.DataFrame(
        [
            (domain, model, confidence, correct)
            for domain in ("colon", "lymph_node")
            for model in ("teacher", "pixelcam")
            for confidence, correct in ((0.75, True), (0.875, False), (0.875, True))
        ],
        columns=["domain", "model", "confidence", "correct"],
    )
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
        confidences=confidences,
        matrix=matrix(),
        rounds=[label_round()],
        learned_from=[
            TrainingImage(
                name=names,
                label="benign",
                image=shown.image,
                mask=shown.mask,
                rounds=[PixelLabels(map=shown.teacher.map, labels=labels)],
            )
        ],
        setting=SETTING,
        provenance={"Versions": {"torch": "2.13.0"}, "Parameters": {names: names}},
    )


@pytest.fixture(scope="module")
def html() -> str:
    return render_report(content())


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def without_charts(given: ReportContent) -> Page:
    """Return the page but for its charts, which take most of the time."""
    curves, confidences = given.curves.iloc[:0], given.confidences.iloc[:0]
    return Page(render_report(replace(given, curves=curves, confidences=confidences, histories={})))


def test_the_labels_table_says_rule_precision_and_recall(page: Page) -> None:
    assert "Cut from the teacher's CAM (layercam): foreground is where the map is at least 0.5." in page.words
    assert "Of these labels right (precision) foreground 87.5 background –" in page.words
    assert "Of the truth labelled so (recall) foreground 31.2 background –" in page.words


def test_every_round_says_whose_maps_its_labels_were_cut_from() -> None:
    given = content()
    rounds = [label_round(), label_round("round_2", "the map of pixelcam")]
    learned = [replace(shown, rounds=[*shown.rounds, *shown.rounds]) for shown in given.learned_from]
    words = without_charts(replace(given, rounds=rounds, learned_from=learned)).words
    assert "Round 1: labels for pixelcam Cut from the teacher's CAM (layercam): " in words
    assert "Round 2: labels for round_2 Cut from the map of pixelcam: " in words
    assert words.count("10% foreground, 25% background") == 2
    assert "PixelCAM is the model of the last round, round_2." in words


def test_a_supervised_run_does_not_pass_for_weakly_supervised(page: Page) -> None:
    assert "no mask took part in training" in page.words
    setting = replace(SETTING, approach=Approach.SUPERVISED)
    words = without_charts(replace(content(), setting=setting)).words
    assert "no mask took part in training" not in words
    assert "PixelCAM learned from masks, not from the pseudo-labels below" in words
    assert "this is an upper bound, not a result of weak supervision" in words


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "of the teacher the last epoch, of PixelCAM the last epoch."),
        (
            {"selections": {"teacher": "val_accuracy", "pixelcam": "val_pxap"}, "masks_select": True},
            "of PixelCAM the epoch with the best PxAP on validation masks. So masks of validation images had a say",
        ),
        ({"test_time": TestTime.REINHARD}, "with this done at test time: stain normalized (Reinhard)."),
        ({"scored": Weights.VAL_LOSS}, "of both models are those of the epoch with the lowest loss on validation"),
    ],
)
def test_says_what_is_scored(changes: dict[str, Any], said: str) -> None:
    assert said in without_charts(replace(content(), setting=replace(SETTING, **changes))).words


@pytest.mark.parametrize(("redrawn", "said"), [(True, "drawn anew in each step"), (False, "the same in each step")])
def test_the_page_says_whether_pixels_are_drawn_anew(redrawn: bool, said: str) -> None:
    words = without_charts(replace(content(), setting=replace(SETTING, redraw=redrawn))).words
    assert said in words
    assert words.count("in each step") == 1


def test_is_the_same_every_time(html: str) -> None:
    assert render_report(content()) == html


def test_is_well_formed_with_unique_ids_and_links_that_lead_somewhere(page: Page) -> None:
    assert page.open == []
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    targets = [value.removeprefix("#") for value in page.values("href") if value.startswith("#")]
    assert set(targets) | set(page.values("aria-labelledby")) <= set(ids)


def test_asks_nothing_of_a_network(html: str, page: Page) -> None:
    assert all(value.startswith(("#", "data:")) for value in [*page.values("href"), *page.values("src")])
    assert "http:" not in html
    assert "https:" not in html
    assert "@import" not in html
    assert page.of("script") == [{}], "one script, and that inline"


def test_names_from_outside_stay_text_and_reach_the_script_through_attributes_alone(html: str) -> None:
    hostile = content(names=HOSTILE)
    named = [replace(domain, name=HOSTILE) if not domain.in_domain else domain for domain in hostile.domains]
    shown = [replace(image, label=HOSTILE) for image in named[0].gallery]
    hostile_html = render_report(replace(hostile, domains=[replace(named[0], gallery=shown), named[1]]))
    other = Page(hostile_html)
    assert other.of("script") == [{}]
    assert other.open == []
    assert HOSTILE in other.words
    assert any(HOSTILE in label for label in other.values("aria-label"))
    assert HOSTILE in other.values("data-label")
    assert HOSTILE in other.values("data-domain")
    assert f"={HOSTILE}" in other.values("value")
    assert _script(hostile_html) == _script(html), "no data is written into the script"


def _script(html: str) -> str:
    found = re.fullmatch(r".*<script>(.*?)</script>.*", html, flags=re.DOTALL)
    assert found is not None
    return found.group(1)


def test_the_policy_lets_this_script_run_and_no_other(html: str, page: Page) -> None:
    digest = b64encode(hashlib.sha256(_script(html).encode()).digest()).decode("ascii")
    policy = next(value for value in page.values("content") if "default-src" in value)
    assert "default-src 'none'" in policy
    assert re.findall(r"script-src ([^;]*)", policy) == [f"'sha256-{digest}'"]


def test_every_picture_and_chart_has_words(page: Page) -> None:
    described = [attrs["aria-label"] for _, attrs in page.elements if attrs.get("role") == "img"]
    pictures, charts = 3 * 3, 2 + 1 + 2 + 2
    assert len(described) == pictures + charts
    assert all(described)
    assert len([uri for uri in page.values("href") if uri.startswith("data:image/")]) == 3 * 3 + 2, "two have outlines"
    ids = {f"#{name}" for name in page.values("id")}
    assert {attrs["href"] for attrs in page.of("use") if attrs.get("href")} <= ids


def test_parts_stand_in_the_order_of_an_argument(page: Page) -> None:
    sections = [attrs["id"] for attrs in page.of("section")]
    order = ["scores", "training", "curves", "labels", "domains", "calibration", "gallery", "provenance"]
    assert sections == order


def test_the_matrix_shows_drops_selections_and_spread(page: Page) -> None:
    assert "images as they are colon in domain 50.0 50.0 75.0 75.0 lymph_node 50.0 drop 12.5" in page.words
    assert "75.0 gain 25.0" in page.words
    assert "stain normalized (Macenko) colon in domain 60.0" in page.words
    assert "best PxAP on validation masks (B-LOC) 70.0 70.0 75.0 75.0" in page.words
    assert "Mean over 2 seeds" in page.words
    assert "colon 65.0 ± 21.2 65.0 ± 21.2 75.0 ± 0.0 75.0 ± 0.0" in page.words
    alone = without_charts(replace(content(), matrix=matrix().iloc[:4])).words
    assert "What each model selection would have given" not in alone
    assert "Over seeds" not in alone


def test_both_tasks_share_the_epochs_of_one_chart(page: Page) -> None:
    assert "Of 2 epochs, the teacher classifies best in epoch 2 (accuracy 75.0)." in page.words
    assert "Localization was not validated while training" in page.words
    given = content()
    histories = {model: history.assign(val_pxap=[0.625, 0.5]) for model, history in given.histories.items()}
    other = Page(render_report(replace(given, histories=histories)))
    assert (
        "PixelCAM localizes best in epoch 1 (PxAP 62.5) and classifies best in epoch 2 (accuracy 75.0)." in other.words
    )
    assert "Localization was not validated" not in other.words
    assert any(
        "Teacher, localization, PxAP from 62.5 to 50.0; Teacher, classification, accuracy from 50.0 to 75.0" in label
        for label in other.values("aria-label")
    )


def test_reliability_is_drawn_with_the_error_of_the_bins(page: Page) -> None:
    # The bin of 0.75 is 0.25 off with one image, that of 0.875 is 0.375 off with two: (0.25 + 0.75) / 3.
    assert page.words.count("Teacher, error 33.3") == 2
    assert "no temperature can be fitted" not in page.words
    given = content()
    for scores in (scores for domain in given.domains for scores in domain.scores.values()):
        assert isinstance(scores, dict)
        scores["calibration"] = {"ece": 0.25, "temperature": 1.5, "ece_calibrated": 0.125}
    words = without_charts(given).words
    assert "temperature 1.50, fitted on validation images, the error is 12.5 instead of 25.0 on colon" in words


def test_reliability_of_pixels_is_drawn_where_it_is_known(page: Page) -> None:
    assert "Of the pixels" not in page.words
    given = content()
    low, high = ({"map": said, "foreground": 0.5, "share": share} for said, share in ((0.25, 0.75), (1.0, 0.25)))
    for scores in given.domains[0].scores.values():
        assert isinstance(scores, dict)
        scores |= {
            "reliability": {"0.20": low, "0.95": high},
            "foreground_share_map": 0.4375,
            "pixel_ece_corrected": 0.0625,
        }
    known = Page(render_report(given))
    # 0.75 of the pixels are 0.25 off, 0.25 of them 0.5.
    assert known.words.count("PixelCAM, error 31.2") == 1
    assert any("Reliability diagram of the pixels on colon" in label for label in known.values("aria-label"))
    assert "On colon 30.0 % of the pixels are foreground; the mean of the map says 43.8 (Teacher)" in known.words
    assert "Corrected without any mask, the error is 6.2 (Teacher) and 6.2 (PixelCAM)." in known.words
    assert "its highest value is 1 in every image" in known.words


def test_more_scores_are_told_where_they_are_known(page: Page) -> None:
    assert "More scores" not in page.words
    given = content()
    for scores in given.domains[0].scores.values():
        assert isinstance(scores, dict)
        scores["pixel_auroc"] = 0.8125
        scores["regions"] = {"oracle": {"dice": 0.75}, "half": {"dice": None}}
    words = without_charts(given).words
    assert "Pixel AUROC 81.2 81.2 ±0.0 Dice, oracle threshold (chosen on these test images: a bound) 75.0" in words
    assert "Dice, threshold 0.5" not in words


def test_the_gallery_says_what_its_filters_ask_for() -> None:
    unmarked = replace(
        gallery_image("b.png"), mask=np.zeros((4, 4), dtype=np.bool_), teacher=view(None), pixelcam=view(None, 0.25)
    )
    cases = without_charts(content(gallery=(gallery_image(), unmarked))).of("article")
    facts = [{key.removeprefix("data-"): value for key, value in case.items() if key != "class"} for case in cases]
    assert facts[1:] == [  # the first is a training image
        {"domain": "colon", "label": "malignant", "teacher": "wrong", "pixelcam": "right"}
        | {"fit": "0.750000", "gain": "0.500000"},
        {"domain": "colon", "label": "malignant", "teacher": "wrong", "pixelcam": "wrong"}
        | {"fit": "0.750000", "gain": "-0.125000"},
        {"domain": "lymph_node", "label": "malignant", "teacher": "wrong", "pixelcam": "wrong", "fit": "", "gain": ""},
    ]


def test_says_who_won_and_who_lost(page: Page) -> None:
    assert (
        "In domain (colon), PixelCAM localizes better than its teacher (PxAP 62.5 against 50.0) but classifies worse "
        "(accuracy 87.5 against 90.0); out of domain (lymph_node), it localizes worse (PxAP 30.0 against 40.0) and "
        "classifies as well (accuracy 80.0)."
    ) in page.words


def test_emphasises_the_better_score_alone(html: str) -> None:
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
    words = without_charts(given).words
    assert "50.0 37.5 to 75.0 62.5 37.5 to 75.0 +12.5 −5.0 to 25.0 p = 0.030" in words
    assert "intervals of a bootstrap over patients" in words
    assert "How scores vary with the training is told by 2 seeds" in words
    words = without_charts(replace(given, matrix=matrix().iloc[:4])).words
    assert "How scores vary with the training is not in them" in words


def test_a_model_that_collapsed_onto_one_class_raises_the_alarm(page: Page) -> None:
    assert "Alarm" not in page.words
    given = content()
    for model, scores in given.domains[0].scores.items():
        assert isinstance(scores, dict)
        scores["collapsed"] = model == "teacher"
    words = without_charts(given).words
    assert words.count("Alarm") == 1
    assert "Alarm: Teacher predicts one class for nearly all images" in words
    assert "but classifies worse (accuracy 87.5 against 90.0), though its teacher predicts one class for" in words


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
    page = without_charts(content(gallery=(empty,)))
    assert "benign, wrong; marks 12.5% in vain" in page.words
    assert "no region of interest" in page.words


def test_says_where_the_thresholds_come_from(page: Page) -> None:
    assert "Teacher 0.412 and PixelCAM 0.412, chosen on validation masks of colon." in page.words
    fixed = content()
    for scores in fixed.domains[0].scores.values():
        assert isinstance(scores, dict)
        scores["threshold_source"] = "fixed"
    assert "fixed, because no validation mask of colon may be used." in without_charts(fixed).words


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
    assert "Accuracy, training" not in page.words
    assert "Image loss, validation" not in page.words
    labels = page.values("aria-label")
    assert "Image loss, training over the epochs: Teacher from 0.7 to 0.5, PixelCAM from 0.7 to 0.5." in labels
    assert "Pixel loss, training over the epochs: PixelCAM from 0.6 to 0.6." in labels


def test_parts_that_do_not_apply_are_left_out() -> None:
    page = without_charts(replace(content(), rounds=[], learned_from=[], histories={}, provenance={}))
    assert page.open == []
    assert "Pseudo-labels" not in page.words
