"""The domain matrix: drops, and the spread over seeds, from scores given by hand."""

import json
from dataclasses import replace
from math import nan, sqrt

import pytest
from tiny import Run

from pipeline.data.manifest import read_domain
from pipeline.evaluation.domains import Chain, Variant, evaluate_models
from pipeline.evaluation.tables import headline, matrix_table, scores_by_domain, with_spread
from pipeline.metrics.scores import Evaluation
from pipeline.params.config import load_params
from pipeline.params.vocabulary import TestTime, Weights

FIRST = Variant(0, Weights.SELECTED, TestTime.NONE)


@pytest.fixture(scope="module")
def evaluations(finished: Run) -> list[Evaluation]:
    params = load_params(finished.params)
    domains = [read_domain(name, params, finished.prepared / name) for name in params.target_domains]
    chains = {params.seed: Chain(teacher=finished.teacher, pixelcam=finished.pixelcam)}
    return evaluate_models(domains, chains=chains, params=params)[FIRST]


def _scored(evaluations: list[Evaluation], pxaps: list[float]) -> list[Evaluation]:
    """Return evaluations whose PxAPs are these: home teacher, home pixelcam, away teacher, away pixelcam."""
    return [
        replace(each, scores=replace(each.scores, pxap=pxap, dice=nan, accuracy=pxap / 2))
        for each, pxap in zip(evaluations, pxaps, strict=True)
    ]


def test_a_drop_is_from_the_source_of_the_same_model_and_variant(evaluations: list[Evaluation]) -> None:
    other = replace(FIRST, test_time=TestTime.MACENKO)
    table = matrix_table(
        {FIRST: _scored(evaluations, [0.8, 0.9, 0.5, 0.7]), other: _scored(evaluations, [0.6, 0.6, 0.7, 0.5])},
        source="home",
    )
    assert table["pxap_drop"].tolist() == [0, 0, 0.3, 0.2, 0, 0, -0.1, 0.1]
    assert table["accuracy_drop"].tolist() == [0, 0, 0.15, 0.1, 0, 0, -0.05, 0.05]
    assert table["dice"].isna().all()
    assert table["in_domain"].tolist() == [True, True, False, False] * 2
    assert table["test_time"].tolist() == ["none"] * 4 + ["macenko"] * 4
    assert table["model"].tolist() == ["teacher", "pixelcam"] * 4
    assert (table["weights"] == "selected").all()
    assert (table["seed"] == 0).all()


def test_mean_and_standard_deviation_are_over_the_chains_alone(evaluations: list[Evaluation]) -> None:
    scored = {
        FIRST: _scored(evaluations, [0.2, 0.4, 0.5, 0.7]),
        replace(FIRST, weights=Weights.LAST): _scored(evaluations, [1, 1, 1, 1]),
        replace(FIRST, seed=1): _scored(evaluations, [0.4, 0.4, 0.5, 0.6]),
        replace(FIRST, seed=2): _scored(evaluations, [0.6, 0.4, 0.5, 0.5]),
    }
    scores = with_spread(scores_by_domain(scored[FIRST]), scored)
    assert scores["home"]["teacher"]["over_seeds"] == {
        "pxap": {"mean": 0.4, "standard_deviation": 0.2, "chains": 3},
        "dice": {"mean": None, "standard_deviation": None, "chains": 3},
        "accuracy": {"mean": 0.2, "standard_deviation": 0.1, "chains": 3},
        "balanced_accuracy": {
            "mean": pytest.approx(evaluations[0].scores.balanced_accuracy),
            "standard_deviation": 0,
            "chains": 3,
        },
    }
    away = scores["away"]["pixelcam"]["over_seeds"]
    assert isinstance(away, dict)
    assert away["pxap"]["mean"] == pytest.approx(0.6)
    assert away["pxap"]["standard_deviation"] == pytest.approx(sqrt(0.01))
    assert scores["home"]["teacher"]["pxap"] == 0.2


def test_one_chain_has_no_spread(evaluations: list[Evaluation]) -> None:
    scores = scores_by_domain(evaluations)
    assert with_spread(scores, {FIRST: evaluations}) == scores


def test_the_headline_is_the_same_scores(finished: Run, evaluations: list[Evaluation]) -> None:
    scores = scores_by_domain(evaluations)
    found = headline(scores)
    assert found == json.loads(finished.summary.read_text(encoding="utf-8"))
    assert list(found["away"]["teacher"]) == ["pxap", "dice", "accuracy"]
    assert all(
        found[domain][model][key] == scores[domain][model][key]
        for domain, model, key in [("away", "teacher", "pxap"), ("home", "pixelcam", "dice")]
    )
