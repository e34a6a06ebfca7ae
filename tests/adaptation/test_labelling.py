"""Labels that a model gives itself, on images where they can be told by looking."""

import pytest
import torch

from pipeline.adaptation.labelling import class_evidence, labels_by_centres, surest_labels, unlearning_labels
from pipeline.adaptation.losses import NO_LABEL, UNLEARN


def test_centres_tell_groups_apart_that_a_biased_classifier_calls_one_class() -> None:
    features = torch.tensor([[5.0, 0.1], [4.0, 0.0], [6.0, 0.2], [0.1, 5.0], [0.0, 4.0], [0.3, 6.0]])
    probabilities = torch.tensor([[0.45, 0.55]] * 3 + [[0.05, 0.95]] * 3)
    assert probabilities.argmax(dim=1).tolist() == [1] * 6
    assert labels_by_centres(features, probabilities).tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("length", [60.0, 60000.0])
def test_the_length_of_features_tells_no_class(length: float) -> None:
    rows = [[100.0, 0.0]] * 3 + [[length, length]] + [[0.0, 100.0]] * 2 + [[50.0, 87.0]]
    probabilities = torch.tensor([[0.9, 0.1]] * 4 + [[0.1, 0.9]] * 2 + [[0.4, 0.6]])
    assert labels_by_centres(torch.tensor(rows), probabilities).tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_a_class_that_no_image_speaks_for_has_no_centre() -> None:
    # The last points away from the centre of class 1, so that a centre at nothing would be closer.
    features = torch.tensor([[1.0, 0.0]] * 5 + [[-50.0, 0.0]])
    assert labels_by_centres(features, torch.tensor([[0.0, 1.0]] * 6)).tolist() == [1] * 6


def test_evidence_is_told_beside_the_mean_image() -> None:
    logits = torch.tensor([[0.0, 4.0], [0.0, 2.0], [0.0, 3.0]])  # all are of class 1, the second the least
    evidence = class_evidence(logits, None, None)
    assert (evidence[:, 1] - evidence[:, 0]).tolist() == [1.0, -1.0, 0.0]


def test_evidence_by_pixels_calls_what_has_least_foreground_background() -> None:
    logits = torch.tensor([[0.0, 9.0], [0.0, 9.0], [0.0, 9.0]])
    evidence = class_evidence(logits, torch.tensor([0.5, 0.1, 0.9]), 0)
    assert evidence[:, 0].argsort().tolist() == [2, 0, 1]
    assert evidence[:, 1].argsort().tolist() == [1, 0, 2]


def test_the_image_head_decides_among_classes_with_foreground() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [0.0, 1.0, 3.0], [0.0, 2.0, 2.0], [0.0, 2.0, 2.0]])
    evidence = class_evidence(logits, torch.tensor([0.9, 0.8, 0.1, 0.2]), 0)
    assert evidence.argmax(dim=1).tolist() == [1, 2, 0, 0]


def test_the_surest_of_each_class_are_labelled_and_the_others_not() -> None:
    evidence = torch.tensor([[3.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.0, 0.5], [0.0, 0.1], [0.0, 4.0]])
    assert surest_labels(evidence, share=0.67).tolist() == [0, 0, NO_LABEL, 1, NO_LABEL, 1]


def test_every_class_gets_as_many_labels_even_where_the_model_prefers_one() -> None:
    evidence = torch.tensor([[0.0, 5.0], [0.0, 4.0], [0.0, 3.0], [0.0, 1.0]])
    assert surest_labels(evidence, share=0.5).tolist() == [1, NO_LABEL, NO_LABEL, 0]


def test_the_least_sure_of_the_over_predicted_class_unlearn_it() -> None:
    probabilities = torch.tensor([[0.1, 0.9], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7], [0.35, 0.65], [0.8, 0.2]])
    assert unlearning_labels(probabilities, share=0.34).tolist() == [1, UNLEARN - 1, 1, 1, UNLEARN - 1, 0]


def test_no_more_unlearn_than_are_above_an_even_share() -> None:
    probabilities = torch.tensor([[0.1, 0.9], [0.2, 0.8], [0.4, 0.6], [0.7, 0.3]])
    assert unlearning_labels(probabilities, share=0.9).tolist() == [1, 1, UNLEARN - 1, 0]


@pytest.mark.parametrize("classes", [[0, 0, 1, 1], [0, 1, 1, 2], [0, 1, 1]])
def test_where_predictions_are_evenly_divided_no_image_unlearns(classes: list[int]) -> None:
    probabilities = torch.nn.functional.one_hot(torch.tensor(classes)).float()
    assert unlearning_labels(probabilities, share=0.5).tolist() == classes


def test_an_image_of_another_class_does_not_unlearn() -> None:
    probabilities = torch.tensor(
        [[0.51, 0.49], [0.1, 0.9], [0.1, 0.9], [0.1, 0.9], [0.1, 0.9]]
    )  # the first is least sure
    assert unlearning_labels(probabilities, share=0.9).tolist() == [0, UNLEARN - 1, 1, 1, 1]
