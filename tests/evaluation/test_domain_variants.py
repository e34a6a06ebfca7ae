"""What is scored beside the scores proper: each variant differs in one thing."""

from pathlib import Path

from tiny import tiny_params

from pipeline.evaluation.domains import Variant, list_variants
from pipeline.params.vocabulary import TestTime, Weights

NONE = TestTime.NONE


def test_without_anything_asked_for_there_are_the_scores_proper_alone(tmp_path: Path) -> None:
    params = tiny_params(tmp_path, {"evaluate_ood.weights": ["selected"]})
    assert list_variants(params) == (Variant(0, Weights.SELECTED, NONE),)


def test_each_variant_differs_in_one_thing(tmp_path: Path) -> None:
    changes = {
        "seeds": [5, 0, 2],
        "evaluate_ood.test_time": ["reinhard", "none"],
        "evaluate_ood.weights": ["selected", "last", "val_pxap"],
    }
    assert list_variants(tiny_params(tmp_path, changes)) == (
        Variant(0, Weights.SELECTED, TestTime.REINHARD),
        Variant(0, Weights.SELECTED, NONE),
        Variant(0, Weights.LAST, TestTime.REINHARD),
        Variant(0, Weights.VAL_PXAP, TestTime.REINHARD),
        Variant(5, Weights.SELECTED, TestTime.REINHARD),
        Variant(2, Weights.SELECTED, TestTime.REINHARD),
    )


def test_weights_may_be_one_name_alone(tmp_path: Path) -> None:
    params = tiny_params(tmp_path, {"evaluate_ood.weights": "last"})
    assert list_variants(params) == (Variant(0, Weights.LAST, NONE),)
