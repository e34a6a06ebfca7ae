"""Adapted models on the page: verdicts that follow the intervals, plain warnings, and the same images twice."""

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from test_page import HOSTILE, Page, content, gallery_image, matrix, view, without_charts

from pipeline.evaluation.adapted import AdaptationEpoch
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import AdaptationMethod
from pipeline.report.adaptation_files import read_adaptations
from pipeline.report.adaptation_parts import AdaptedDomain, AdaptedModel
from pipeline.report.adaptation_wording import (
    DEEDS,
    Effect,
    describe_alarms,
    describe_deed,
    describe_effect,
    describe_kept,
    describe_source,
    effect_on,
)
from pipeline.report.page import render_report
from pipeline.report.parts import GalleryImage, ReportContent


def scores(pxap: float | None, accuracy: float, *, metastatic: float = 0.5) -> dict[str, Any]:
    shares = {"normal": 1 - metastatic, "metastatic": metastatic}
    return {
        "pxap": pxap,
        "dice": pxap,
        "accuracy": accuracy,
        "balanced_accuracy": accuracy,
        "predicted_classes": shares,
    }


def over(low: float | None, high: float | None, p_value: float | None = 0.01) -> dict[str, float | None]:
    return {"low": low, "high": high, "p_value": p_value}


def adapted_model(
    *,
    accuracy: tuple[float, float] = (0.55, 0.8),
    pxap: tuple[float | None, float | None] = (0.4, 0.41),
    accuracy_over: dict[str, float | None] | None = None,
    pxap_over: dict[str, float | None] | None = None,
) -> AdaptedModel:
    """Return a model that was collapsed and no longer is, with a clear gain in accuracy alone."""
    of_accuracy, of_pxap = accuracy_over or over(0.1, 0.4), pxap_over or over(-0.03, 0.05, 0.6)
    return AdaptedModel(
        source_only=scores(pxap[0], accuracy[0], metastatic=1.0),
        adapted=scores(pxap[1], accuracy[1]),
        supervised=None,
        over_source_only={"accuracy": of_accuracy, "balanced_accuracy": of_accuracy, "pxap": of_pxap, "dice": of_pxap},
        source_before=scores(0.85, 0.95),
        source_after=scores(0.82, 0.96),
        chosen_by="mutual_information",
        chosen_epoch=1,
        stopped=None,
        start_collapsed=False,
        course=[
            AdaptationEpoch(epoch=0, mutual_information=0.02, largest_class="metastatic", largest_share=1.0),
            AdaptationEpoch(epoch=1, mutual_information=0.4, largest_class="metastatic", largest_share=0.5),
            AdaptationEpoch(epoch=2, mutual_information=0.1, largest_class="normal", largest_share=0.96),
        ],
    )


def adapted_domain(name: str = "lymph_node", **changes: Any) -> AdaptedDomain:  # noqa: ANN401 - any field
    given = AdaptedDomain(
        name=name,
        source="colon",
        method=AdaptationMethod.SELF_TRAINING,
        transductive=False,
        images=48,
        models={"teacher": adapted_model(), "pixelcam": adapted_model()},
    )
    return replace(given, **changes)


def adapted_image(name: str = "b.png") -> GalleryImage:
    """Return a malignant image that PixelCAM calls benign before it was adapted, and rightly after."""
    right = replace(view(0.625), predicted_class="malignant")
    return replace(gallery_image(name), pixelcam=view(0.25), adapted=right)


def adapted_content(*domains: AdaptedDomain, image: GalleryImage | None = None) -> ReportContent:
    given = content()
    home, away = given.domains
    extra = matrix().iloc[[2, 3]].assign(adapted_to="lymph_node", adaptation="self_training", pxap=0.625)
    return replace(
        given,
        domains=[home, replace(away, gallery=[image or adapted_image()])],
        matrix=pd.concat([matrix(), extra], ignore_index=True),
        adaptations=domains or (adapted_domain(),),
    )


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(render_report(adapted_content()))


@pytest.mark.parametrize(
    ("before", "after", "bounds", "effect"),
    [
        (0.5, 0.6, over(0.01, 0.2), Effect.BETTER),
        (0.6, 0.5, over(-0.2, -0.01), Effect.WORSE),
        (0.5, 0.6, over(-0.01, 0.2), Effect.CHANCE),
        (0.5, 0.6, over(0.0004, 0.2), Effect.CHANCE),  # is printed as 0.0
        (0.5, 0.5, over(-0.1, 0.1), Effect.CHANCE),
        (0.5, 0.5, over(0.0, 0.0), Effect.SAME),
        (0.5, 0.6, over(None, None), Effect.UNKNOWN),
        (0.5, 0.5, over(None, None), Effect.SAME),
    ],
)
def test_an_effect_is_what_its_interval_tells(
    before: float, after: float, bounds: dict[str, float | None], effect: Effect
) -> None:
    assert effect_on("accuracy", adapted_model(accuracy=(before, after), accuracy_over=bounds)) is effect


BETTER, WORSE, CHANCE, SAME = over(0.01, 0.2), over(-0.2, -0.01), over(-0.1, 0.1), over(0.0, 0.0)


@pytest.mark.parametrize(
    ("accuracy", "pxap", "said"),
    [
        (BETTER, CHANCE, "Adapting helped it. "),
        (BETTER, WORSE, "Adapting helped it at one task and hurt it at the other. "),
        (CHANCE, WORSE, "Adapting hurt it. "),
        (CHANCE, SAME, "Adapting did nothing to it that can be told from chance. "),
        (SAME, SAME, "Adapting did nothing to the scores of it. "),
    ],
)
def test_the_verdict_goes_by_both_tasks(
    accuracy: dict[str, float | None], pxap: dict[str, float | None], said: str
) -> None:
    moved = {id(BETTER): 0.1, id(WORSE): -0.1, id(CHANCE): 0.01, id(SAME): 0.0}
    model = adapted_model(
        accuracy=(0.5, 0.5 + moved[id(accuracy)]),
        pxap=(0.5, 0.5 + moved[id(pxap)]),
        accuracy_over=accuracy,
        pxap_over=pxap,
    )
    assert describe_effect("it", model).startswith(said)


def test_the_sentence_names_both_scores_with_their_intervals() -> None:
    assert describe_effect("PixelCAM", adapted_model()) == (
        "Adapting helped PixelCAM. It names the right class for 80.0 % of the images instead of 55.0 % "
        "(+25.0 points, 95 % interval 10.0 to 40.0), and its map of the region has a PxAP of 41.0 instead of 40.0 "
        "(+1.0 points, 95 % interval −3.0 to 5.0, which may be chance)."
    )
    unscored = describe_effect("PixelCAM", adapted_model(pxap=(None, None), pxap_over=over(None, None, None)))
    assert unscored.endswith("; how well it marks the region cannot be scored here.")


def test_says_with_what_the_models_were_adapted() -> None:
    assert "lymph_node with 48 images of lymph_node alone, without any label or outline" in describe_deed(
        adapted_domain()
    )
    assert "with 1 image of" in describe_deed(adapted_domain(images=1))
    assert set(DEEDS) == set(AdaptationMethod)


def test_alarms_tell_of_a_collapse_before_while_and_after() -> None:
    model = adapted_model()
    assert describe_alarms(model) == []
    begun = replace(model, start_collapsed=True)
    assert describe_alarms(begun) == [
        ("Before", "it said metastatic of 100.0 % of the images that it was adapted to, whatever they show.")
    ]
    stopped = replace(model, stopped="epoch 2: 96 % of the images are predicted as normal")
    ((when, said),) = describe_alarms(stopped)
    assert when == "Stopped"
    assert said.endswith("(epoch 2: 96 % of the images are predicted as normal); the state after epoch 1 was kept.")
    ((_, said),) = describe_alarms(replace(stopped, chosen_epoch=0))
    assert said.endswith("the model from before was kept.")
    (found,) = describe_alarms(replace(model, chosen_epoch=2))
    assert found == ("Alarm", "now it says normal of 96.0 % of the images that it was adapted to, whatever they show.")


def test_says_which_state_was_kept() -> None:
    model = adapted_model()
    assert describe_kept(model).startswith("Kept is the state after epoch 1 of 2, chosen by mutual information, ")
    assert describe_kept(replace(model, chosen_epoch=0)).endswith("this is the model from before.")
    assert describe_kept(replace(model, chosen_by="none")) == "It was adapted at once, without steps to choose among."
    assert describe_kept(replace(model, chosen_by="none", chosen_epoch=0)) == ""


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ((0.82, 0.96), "it has lost 3.0 points of PxAP and gained 1.0 points of accuracy."),
        ((0.82, 0.9), "it has lost 5.0 points of accuracy and 3.0 points of PxAP."),
        ((0.86, 0.95), "Nothing is forgotten of colon, where it comes from: it has gained 1.0 points of PxAP there."),
        ((0.85, 0.95), "Nothing is forgotten of colon, where it comes from: its scores there are as before."),
    ],
)
def test_says_what_is_forgotten(after: tuple[float, float], said: str) -> None:
    assert describe_source("colon", replace(adapted_model(), source_after=scores(*after))).endswith(said)


def test_the_section_stands_after_the_matrix_and_is_linked(page: Page) -> None:
    assert page.open == []
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    sections = [attrs["id"] for attrs in page.of("section")]
    assert sections.index("adapted-1") == sections.index("domains") + 1
    assert "#adapted-1" in page.values("href")
    assert {attrs["href"] for attrs in page.of("use")} <= {f"#{name}" for name in ids}
    assert "Adapted to a domain without its labels" in page.words
    assert "self-training other images of the domain, without labels 62.5 gain 12.5" in page.words


def test_tables_set_before_and_after_side_by_side(page: Page) -> None:
    assert page.words.count("Accuracy 55.0 80.0 +25.0 10.0 to 40.0 p = 0.010") == 2, "one for each model"
    assert "PxAP 40.0 41.0 +1.0 −3.0 to 5.0 p = 0.600" in page.words
    assert "metastatic 100.0 50.0 −50.0" in page.words
    assert "Where it comes from: colon PxAP 85.0 82.0 −3.0" in page.words
    assert "Supervised" not in page.words


def test_a_bound_has_a_column_of_its_own() -> None:
    models = {name: replace(adapted_model(), supervised=scores(0.75, 0.9)) for name in ("teacher", "pixelcam")}
    words = without_charts(adapted_content(adapted_domain(models=models))).words
    assert "Source only Adapted Change Supervised" in words
    assert "Accuracy 55.0 80.0 +25.0 10.0 to 40.0 p = 0.010 90.0" in words
    assert "what as many labelled images give" in words


def test_a_transductive_run_is_called_that_everywhere(page: Page) -> None:
    assert "ransductive" not in page.words
    words = without_charts(adapted_content(adapted_domain(transductive=True))).words
    assert "Transductive: the models were adapted to the very images that they are scored on." in words
    assert "not to be compared with those of models that never saw these images" in words
    assert words.count("Change Transductive: adapted to the very images that are scored PxAP") == 2
    assert words.count("self-training, transductive") == 2
    assert "are others, which the models saw neither before" not in words


def test_the_same_image_is_shown_before_and_after_in_words(page: Page) -> None:
    assert "lymph_node, best of 40; class wrong before, right after" in page.words
    assert "PixelCAM before benign, wrong; Dice 25.0" in page.words
    assert "PixelCAM adapted malignant, right; Dice 62.5" in page.words
    images = [attrs for attrs in page.of("image") if attrs.get("id") == "image-2-1"]
    assert len(images) == 1, "the picture stands in the page once"
    assert sum(attrs["href"] == "#image-2-1" for attrs in page.of("use")) == 2 * 2 + 1 + 2 * 2


def test_the_course_says_in_words_what_it_draws(page: Page) -> None:
    labels = page.values("aria-label")
    assert any(
        "Teacher from 100.0 % metastatic to 50.0 % metastatic in the state that was kept" in label for label in labels
    )
    assert any("PixelCAM from 0.02 to 0.40 in the state that was kept" in label for label in labels)


def test_without_adaptation_the_page_is_as_before() -> None:
    words = without_charts(content()).words
    assert "dapted" not in words
    assert "ransductive" not in words


def test_names_from_outside_stay_text() -> None:
    epoch = AdaptationEpoch(epoch=0, mutual_information=0.1, largest_class=HOSTILE, largest_share=1.0)
    model = replace(adapted_model(), course=[epoch], chosen_epoch=0, start_collapsed=True, stopped=HOSTILE)
    models = {"teacher": model, "pixelcam": model}
    html = render_report(adapted_content(adapted_domain(models=models, source=HOSTILE), image=adapted_image(HOSTILE)))
    assert Page(html).of("script") == [{}]
    assert Page(html).open == []
    assert "http:" not in html


WRITTEN: dict[str, Any] = {
    "method": "shot",
    "transductive": True,
    "images": 24,
    "models": {
        model: {
            "source_only": scores(None, 0.5) | {"pixel_ece": 0.1},
            "adapted": scores(None, 0.75) | {"pixel_ece": None},
            "supervised": None,
            "over_source_only": {
                score: {"difference": 0.25, "low": None, "high": None, "p_value": None}
                for score in ("pxap", "dice", "accuracy", "balanced_accuracy")
            },
            "source_domain": {"name": "colon", "source_only": scores(0.9, 0.9), "adapted": scores(0.8, 0.9)},
            "course": {
                "chosen_by": "mutual_information",
                "chosen_epoch": 1,
                "stopped": None,
                "start_collapsed": True,
                "course": [
                    {"epoch": epoch, "mutual_information": 0.1, "largest_class": "normal", "largest_share": 1.0}
                    for epoch in (0, 1)
                ],
            },
        }
        for model in ("teacher", "pixelcam")
    },
}


def test_reads_what_evaluation_wrote(tmp_path: Path) -> None:
    path = tmp_path / "adaptation.json"
    path.write_text(json.dumps({"far": WRITTEN, "away": WRITTEN}), encoding="utf-8")
    away, far = read_adaptations(path, ["away", "far"])
    assert (away.name, far.name, away.source) == ("away", "far", "colon")
    assert (away.method, away.transductive, away.images) == (AdaptationMethod.SHOT, True, 24)
    model = away.models["pixelcam"]
    assert (model.source_only["pxap"], model.adapted["accuracy"], model.source_after["pxap"]) == (None, 0.75, 0.8)
    assert (model.supervised, model.stopped, model.start_collapsed, model.chosen.epoch) == (None, None, True, 1)
    path.write_text("{}", encoding="utf-8")
    assert read_adaptations(path, []) == []


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("method",), "prayer"),
        (("models", "pixelcam", "course", "chosen_epoch"), 7),
        (("models", "teacher", "adapted"), None),
        (("models", "teacher", "over_source_only"), {}),
        (("models",), []),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, where: tuple[str, ...], value: object) -> None:
    written = deepcopy(WRITTEN)
    inner = written
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    path = tmp_path / "adaptation.json"
    path.write_text(json.dumps({"away": written}), encoding="utf-8")
    with pytest.raises(PixelCAMError, match=r"adaptation\.json: cannot be read as .*run 'dvc repro'"):
        read_adaptations(path, ["away"])


@pytest.mark.parametrize(("text", "said"), [(None, "cannot be read"), ("{", "cannot be read"), ("{}", "lacks the")])
def test_a_file_that_lacks_a_domain_is_named(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "adaptation.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(PixelCAMError, match=rf"adaptation\.json: {said}.*run 'dvc repro'"):
        read_adaptations(path, ["away"])
