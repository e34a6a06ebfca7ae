"""Verdicts in words: as plain when PixelCAM lost as when it won, and never at odds with the printed figures."""

from typing import Any

import pandas as pd
import pytest

from pipeline.report.wording import describe_convergence, describe_verdict, more_rows, percent, score_rows

Scores = dict[str, dict[str, Any]]


def scores(teacher: tuple[float | None, float], pixelcam: tuple[float | None, float]) -> Scores:
    """Make scores from (PxAP, accuracy) of each model."""
    return {
        model: {"pxap": pxap, "accuracy": accuracy, "balanced_accuracy": accuracy, "dice": pxap, "iou": pxap}
        for model, (pxap, accuracy) in {"teacher": teacher, "pixelcam": pixelcam}.items()
    }


class TestIntervals:
    def rows(self, over_teacher: dict[str, float | None]) -> list[tuple[str, ...]]:
        given = scores((0.6, 0.9), (0.7, 0.9))
        for model, (low, high) in {"teacher": (0.555, 0.65), "pixelcam": (None, None)}.items():
            given[model]["intervals"] = {"pxap": {"low": low, "high": high}}
        given["pixelcam"]["over_teacher"] = {"pxap": over_teacher}
        return [
            (row.teacher_interval, row.pixelcam_interval, row.difference_interval, row.p_value)
            for row in score_rows(given)
        ]

    def test_are_in_per_cent_and_empty_where_unknown(self) -> None:
        rows = self.rows({"difference": 0.1, "low": -0.0125, "high": 0.2, "p_value": 0.0619})
        assert rows[0] == ("55.5 to 65.0", "", "−1.2 to 20.0", "p = 0.062")
        assert set(rows[1:]) == {("", "", "", "")}

    def test_a_tiny_p_value_is_no_zero(self) -> None:
        assert self.rows({"difference": 0.1, "low": 0.05, "high": 0.2, "p_value": 0.0002})[0][3] == "p < 0.001"

    def test_an_undefined_comparison_is_empty(self) -> None:
        assert self.rows(dict.fromkeys(("difference", "low", "high", "p_value")))[0][2:] == ("", "")


class TestVerdict:
    def test_better_in_both_tasks(self) -> None:
        assert describe_verdict([("glas", True, scores((0.573, 0.962), (0.752, 0.98)))]) == (
            "In domain (glas), PixelCAM localizes better than its teacher (PxAP 75.2 against 57.3) "
            "and classifies better (accuracy 98.0 against 96.2)."
        )

    def test_worse_in_both_tasks(self) -> None:
        assert describe_verdict([("glas", True, scores((0.752, 0.98), (0.573, 0.962)))]) == (
            "In domain (glas), PixelCAM localizes worse than its teacher (PxAP 57.3 against 75.2) "
            "and classifies worse (accuracy 96.2 against 98.0)."
        )

    def test_the_tasks_may_disagree(self) -> None:
        assert "localizes better than its teacher (PxAP 75.2 against 57.3) but classifies worse" in describe_verdict(
            [("glas", True, scores((0.573, 0.98), (0.752, 0.962)))]
        )

    def test_level_is_neither(self) -> None:
        assert describe_verdict([("glas", True, scores((0.6, 1.0), (0.6, 1.0)))]) == (
            "In domain (glas), PixelCAM localizes as well as its teacher (PxAP 60.0) "
            "and classifies as well (accuracy 100.0)."
        )

    def test_a_difference_too_small_to_print_is_none(self) -> None:
        assert "localizes as well as its teacher (PxAP 60.0)" in describe_verdict(
            [("glas", True, scores((0.60001, 1.0), (0.60002, 1.0)))]
        )

    def test_every_domain_has_its_clause(self) -> None:
        verdict = describe_verdict(
            [
                ("colon", True, scores((0.5, 0.9), (0.6, 0.9))),
                ("lymph_node", False, scores((0.4, 0.9), (0.3, 0.8))),
            ]
        )
        assert verdict.endswith(
            "; out of domain (lymph_node), it localizes worse (PxAP 30.0 against 40.0) "
            "and classifies worse (accuracy 80.0 against 90.0)."
        )

    def test_what_cannot_be_scored_is_said(self) -> None:
        assert describe_verdict([("glas", True, scores((None, 0.9), (None, 0.95)))]) == (
            "In domain (glas), PixelCAM cannot be scored for localization "
            "and classifies better than its teacher (accuracy 95.0 against 90.0)."
        )


class TestScoreRows:
    def test_the_better_is_named_and_the_difference_is_of_the_printed_figures(self) -> None:
        rows = score_rows(scores((0.4004, 0.98), (0.4496, 0.962)))
        pxap, accuracy = rows[0], rows[3]
        assert (pxap.title, pxap.teacher, pxap.pixelcam, pxap.difference, pxap.better) == (
            "PxAP",
            "40.0",
            "45.0",
            "+5.0",
            "pixelcam",
        )
        assert (accuracy.title, accuracy.difference, accuracy.better) == ("Accuracy", "−1.8", "teacher")

    def test_level_scores_have_no_better(self) -> None:
        row = score_rows(scores((0.5, 1.0), (0.5, 1.0)))[0]
        assert (row.difference, row.better) == ("±0.0", "")

    @pytest.mark.parametrize("missing", ["teacher", "pixelcam"])
    def test_what_is_undefined_is_a_dash_and_never_better(self, missing: str) -> None:
        values = scores((0.5, 1.0), (0.6, 1.0))
        values[missing]["pxap"] = None
        row = score_rows(values)[0]
        assert getattr(row, missing) == "–"
        assert (row.difference, row.better) == ("–", "")


def test_percent() -> None:
    assert [percent(value) for value in (0.0, 0.12345, 1.0, None)] == ["0.0", "12.3", "100.0", "–"]


@pytest.mark.parametrize(
    ("collapsed", "said"),
    [
        (("teacher", "pixelcam"), ", though both predict one class for nearly all images."),
        (("teacher",), ", though its teacher predicts one class for nearly all images."),
        (("pixelcam",), ", though it predicts one class for nearly all images."),
        ((), "(accuracy 90.0)."),
    ],
)
def test_a_collapse_qualifies_the_verdict(collapsed: tuple[str, ...], said: str) -> None:
    given = scores((0.6, 0.9), (0.7, 0.9))
    for model, values in given.items():
        values["collapsed"] = model in collapsed
    assert describe_verdict([("colon", True, given)]).endswith(said)


def test_each_task_has_its_best_epoch() -> None:
    history = pd.DataFrame({"epoch": [1, 2, 3], "val_pxap": [0.7, 0.6, 0.5], "val_accuracy": [0.5, 0.875, 0.875]})
    assert describe_convergence("it", history) == (
        "Of 3 epochs, it localizes best in epoch 1 (PxAP 70.0) and classifies best in epoch 2 (accuracy 87.5)."
    )
    assert "localizes" not in describe_convergence("it", history.drop(columns="val_pxap"))
    assert describe_convergence("it", history[["epoch"]]) == ""


def test_more_rows_are_those_that_a_model_has() -> None:
    given = scores((0.6, 0.9), (0.7, 0.9))
    given["teacher"] |= {"auroc": 0.75, "boxes": {"max_box_acc_v2": None}, "f1": {"benign": 0.5}}
    given["pixelcam"] |= {"auroc": 0.625, "boxes": {"max_box_acc_v2": None}, "f1": {"benign": None}}
    assert [(row.title, row.teacher, row.pixelcam, row.difference, row.better) for row in more_rows(given)] == [
        ("AUROC of the classifier", "75.0", "62.5", "−12.5", "teacher"),
        ("F1 of benign", "50.0", "–", "–", ""),
    ]
