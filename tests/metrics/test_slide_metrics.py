"""Scores of slides: AUROC against scikit-learn, Dice and FROC by hand, and intervals of whole patients."""

import json
import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pipeline.metrics.froc import SlideDetections
from pipeline.metrics.slides import ScoredSlide, SlideScores, score_slides

SCORES = ("auroc", "froc", "dice", "mean_dice")


def scored(
    name: str,
    *,
    score: float = 0.5,
    normal: bool = False,
    patient: str = "",
    lesions: tuple[float, ...] = (),
    false: tuple[float, ...] = (),
    isolated: int = 0,
    pixels: tuple[int, int, int | None] = (0, 0, None),
) -> ScoredSlide:
    """Return a slide; `pixels` are those shared, predicted and annotated."""
    return ScoredSlide(
        slide=name,
        patient=patient,
        class_idx=int(not normal),
        is_normal=normal,
        score=score,
        detections=SlideDetections(
            lesion_scores=np.array(lesions, dtype=np.float64),
            false_scores=np.array(false, dtype=np.float64),
            normal=normal,
            isolated=isolated,
        ),
        true_positive=pixels[0],
        predicted=pixels[1],
        annotated=pixels[2],
    )


def many(seed: int, *, slides: int = 24, patients: int = 8) -> list[ScoredSlide]:
    """Return random slides, a third of them normal, with ties among their scores."""
    generator = np.random.default_rng(seed)
    found = []
    for index in range(slides):
        normal = index % 3 == 0
        shared, other, annotated = (int(value) for value in generator.integers(0, 500, 3))
        found.append(
            scored(
                f"s{index}",
                score=float(generator.integers(0, 6) + 3 * (not normal)) / 10,
                normal=normal,
                patient=f"p{index % patients}",
                lesions=() if normal else tuple(generator.choice([-np.inf, 0.3, 0.6, 0.9], 2)),
                false=tuple(generator.random(3)),
                pixels=(0, other, 0) if normal else (shared, shared + other, shared + annotated),
            )
        )
    return found


def plain(slides: list[ScoredSlide], *, resamples: int = 200, seed: int = 0) -> SlideScores:
    return score_slides(slides, resamples=resamples, seed=seed)


@pytest.mark.parametrize("seed", range(5))
def test_auroc_is_that_of_scikit_learn_with_ties(seed: int) -> None:
    slides = many(seed)
    expected = roc_auc_score([not slide.is_normal for slide in slides], [slide.score for slide in slides])
    assert plain(slides).auroc == pytest.approx(expected)


@pytest.mark.parametrize("normal", [True, False])
def test_auroc_is_not_defined_for_one_kind_of_slides(normal: bool) -> None:
    found = plain([scored("a", normal=normal), scored("b", normal=normal)])
    assert math.isnan(found.auroc)
    assert math.isnan(found.froc)
    assert math.isnan(found.intervals["auroc"].low)


def test_slides_and_lesions_are_counted() -> None:
    found = plain(
        [
            scored("a", patient="p", lesions=(0.9, 0.2), isolated=2, pixels=(1, 2, 3)),
            scored("b", patient="p", normal=True, pixels=(0, 1, 0)),
            scored("c", lesions=(0.1,)),
            scored("d", normal=True),
        ]
    )
    assert (found.slides, found.normal_slides, found.annotated_slides, found.patients) == (4, 2, 2, 3)
    assert (found.lesions, found.isolated) == (3, 2)


def test_dice_by_hand() -> None:
    a = scored("a", pixels=(30, 50, 40))  # 60 / 90
    b = scored("b", pixels=(0, 0, 10))  # 0
    normal = scored("c", normal=True, pixels=(0, 20, 0))  # no Dice of its own, but counts in the pool
    unknown = scored("d", pixels=(0, 1000, None))
    found = plain([a, b, normal, unknown])
    assert a.dice == pytest.approx(60 / 90)
    assert b.dice == 0
    assert math.isnan(normal.dice)
    assert math.isnan(unknown.dice)
    assert found.dice == pytest.approx(60 / (90 + 10 + 20))
    assert found.mean_dice == pytest.approx(60 / 90 / 2)


def test_dice_is_not_defined_where_nothing_is_annotated() -> None:
    found = plain([scored("a", pixels=(0, 10, None)), scored("b", normal=True, pixels=(0, 10, 0))])
    assert math.isnan(found.dice)
    assert math.isnan(found.mean_dice)


def test_froc_is_that_of_all_slides() -> None:
    found = plain(
        [
            scored("a", lesions=(0.9, 0.4), false=(0.99,)),
            scored("b", lesions=(0.6, -np.inf), isolated=1),
            scored("c", normal=True, false=(0.7, 0.5)),
            scored("d", normal=True),
        ]
    )
    assert found.froc == pytest.approx((0.25 + 0.5 + 4 * 0.75) / 6)
    assert found.sensitivity_at == {"0.25": 0.25, "0.5": 0.5, "1": 0.75, "2": 0.75, "4": 0.75, "8": 0.75}
    assert found.false_positives == (0, 0, 0.5, 0.5, 1, 1)
    assert found.sensitivity == (0, 0.25, 0.25, 0.5, 0.5, 0.75)


def test_intervals_hold_the_score_and_are_the_same_again() -> None:
    slides = many(2)
    found, again = plain(slides), plain(slides)
    assert found == again
    assert plain(slides, seed=1).intervals != found.intervals
    for name in SCORES:
        assert found.intervals[name].low < getattr(found, name) < found.intervals[name].high


def test_a_resample_holds_all_slides_of_the_patients_that_it_draws() -> None:
    """Of two patients, each with one normal slide: however they are drawn, AUROC is defined and one of three."""
    slides = [
        scored("a", patient="p", score=0.9),
        scored("b", patient="p", score=0.1, normal=True),
        scored("c", patient="q", score=0.2),
        scored("d", patient="q", score=0.3, normal=True),
    ]
    interval = plain(slides).intervals["auroc"]
    assert (interval.low, interval.high) == (0, 1)  # q alone, p alone


def test_slides_without_patient_are_drawn_by_themselves() -> None:
    known = [scored(name, score=score, normal=score < 0.5, patient="p") for name, score in (("a", 0.9), ("b", 0.1))]
    assert math.isnan(plain(known).intervals["auroc"].low), "one patient: nothing varies"
    alone = [scored(slide.slide, score=slide.score, normal=slide.is_normal) for slide in known]
    assert plain(alone).patients == 2
    assert plain(alone).intervals["auroc"].low == 1


def test_all_of_it_goes_into_json() -> None:
    told = plain(many(3)).to_dict()
    read = json.loads(json.dumps(told, allow_nan=False))
    assert set(read["intervals"]) == set(SCORES)
    assert set(read["intervals"]["froc"]) == {"low", "high"}


def test_no_slide_is_no_score() -> None:
    found = plain([])
    assert found.slides == found.patients == 0
    assert all(math.isnan(getattr(found, name)) for name in SCORES)
