"""What watches a model while it adapts: its score, and the guard against one class for all."""

import math

import pytest
import torch

from pipeline.adaptation.watching import Watched, describe_course, describe_stop, fell, from_row, watch

CLASSES = ("normal", "metastatic")


def _at(epoch: int, share: float) -> Watched:
    return Watched(epoch=epoch, mutual_information=0.1, largest_class=1, largest_share=share)


def test_sure_and_evenly_divided_predictions_have_all_the_information_there_is() -> None:
    found = watch(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), epoch=3)
    assert found.mutual_information == pytest.approx(math.log(2))
    assert (found.epoch, found.largest_share) == (3, 0.5)


@pytest.mark.parametrize("row", [[0.0, 1.0], [0.5, 0.5]])
def test_the_same_said_of_all_images_has_none(row: list[float]) -> None:
    assert watch(torch.tensor([row] * 4), epoch=0).mutual_information == pytest.approx(0)


def test_the_largest_class_is_counted() -> None:
    found = watch(torch.tensor([[0.4, 0.6], [0.2, 0.8], [0.9, 0.1], [0.3, 0.7]]), epoch=0)
    assert (found.largest_class, found.largest_share) == (1, 0.75)


def test_a_model_falls_that_stood_before() -> None:
    assert fell([_at(0, 0.6), _at(1, 0.95)])
    assert not fell([_at(0, 0.6), _at(1, 0.94)])


def test_a_model_that_said_one_class_from_the_start_may_be_lifted_and_then_fall() -> None:
    assert not fell([_at(0, 1.0), _at(1, 1.0)])
    assert fell([_at(0, 1.0), _at(1, 0.7), _at(2, 0.96)])


def test_a_model_falls_that_goes_from_one_class_to_another() -> None:
    other = Watched(epoch=0, mutual_information=0.1, largest_class=0, largest_share=0.98)
    assert fell([other, _at(1, 1.0)])


def test_a_stop_says_when_and_why() -> None:
    course = [_at(0, 0.6), _at(1, 0.96)]
    assert describe_stop(course, CLASSES) == "epoch 1: 96 % of the images are predicted as metastatic"
    assert describe_stop(course[:1], CLASSES) is None
    assert describe_course(course, CLASSES)[1]["largest_class"] == "metastatic"


def test_a_row_of_a_history_says_the_same() -> None:
    seen = _at(2, 0.7)
    assert from_row({"epoch": 2, "step": 9, **seen.row()}) == seen
