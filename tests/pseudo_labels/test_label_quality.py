"""Shares, precision and recall of pseudo-labels, counted by hand."""

import torch
from torch import Tensor

from pipeline.data.maps import EvaluationBatch
from pipeline.pseudo_labels.quality import LabelQuality


def make_batch(
    masks: list[list[list[int]]], class_idx: list[int], *, has_mask: list[bool], ignore: Tensor | None = None
) -> EvaluationBatch:
    count = len(class_idx)
    return EvaluationBatch(
        image_ids=tuple(f"{number}.png" for number in range(count)),
        images=torch.zeros(count, 3, 2, 2),
        class_idx=torch.tensor(class_idx),
        masks=torch.tensor(masks, dtype=torch.bool),
        has_mask=torch.tensor(has_mask),
        ignore=ignore,
    )


def as_labels(values: list[list[list[int]]]) -> Tensor:
    return torch.tensor(values, dtype=torch.uint8)


UNKNOWN = {"background": None, "foreground": None}


def test_by_hand_over_two_batches() -> None:
    quality = LabelQuality(("benign", "malignant"))
    # benign: 2 background (1 right), 1 foreground (right), 1 ignore; malignant: 1 background (wrong), 3 foreground
    # (1 right).
    quality.update(
        as_labels([[[0, 0], [1, 255]], [[0, 1], [1, 1]]]),
        make_batch([[[0, 1], [1, 1]], [[1, 1], [0, 0]]], [0, 1], has_mask=[True, True]),
    )
    # malignant again: 4 background, all right.
    quality.update(as_labels([[[0, 0], [0, 0]]]), make_batch([[[0, 0], [0, 0]]], [1], has_mask=[True]))
    assert quality.summary() == {
        "all": {
            "share": {"background": 0.583333, "foreground": 0.333333, "ignore": 0.083333},
            "precision": {"background": 0.714286, "foreground": 0.5},
            "recall": {"background": 0.714286, "foreground": 0.4},
        },
        "benign": {
            "share": {"background": 0.5, "foreground": 0.25, "ignore": 0.25},
            "precision": {"background": 0.5, "foreground": 1.0},
            "recall": {"background": 1.0, "foreground": 0.333333},
        },
        "malignant": {
            "share": {"background": 0.625, "foreground": 0.375, "ignore": 0.0},
            "precision": {"background": 0.8, "foreground": 0.333333},
            "recall": {"background": 0.666667, "foreground": 0.5},
        },
    }


def test_two_images_of_one_class_in_one_batch_both_count() -> None:
    quality = LabelQuality(("benign",))
    quality.update(
        as_labels([[[0, 0], [0, 0]], [[1, 1], [1, 1]]]),
        make_batch([[[0, 0], [0, 1]], [[0, 1], [1, 1]]], [0, 0], has_mask=[True, True]),
    )
    assert quality.summary()["benign"] == {
        "share": {"background": 0.5, "foreground": 0.5, "ignore": 0.0},
        "precision": {"background": 0.75, "foreground": 0.75},
        "recall": {"background": 0.75, "foreground": 0.75},
    }


def test_without_masks_precision_is_unknown() -> None:
    quality = LabelQuality(("benign",))
    quality.update(as_labels([[[0, 1], [1, 1]]]), make_batch([[[1, 1], [1, 1]]], [0], has_mask=[False]))
    assert quality.summary()["all"] == {
        "share": {"background": 0.25, "foreground": 0.75, "ignore": 0.0},
        "precision": UNKNOWN,
        "recall": UNKNOWN,
    }


def test_only_images_with_a_mask_are_judged() -> None:
    quality = LabelQuality(("benign", "malignant"))
    quality.update(
        as_labels([[[1, 1], [1, 1]], [[1, 1], [0, 0]]]),
        make_batch([[[1, 1], [1, 1]], [[1, 0], [1, 1]]], [0, 1], has_mask=[False, True]),
    )
    summary = quality.summary()
    assert summary["all"]["precision"] == {"background": 0.0, "foreground": 0.5}
    assert summary["all"]["recall"] == {"background": 0.0, "foreground": 0.333333}
    assert summary["benign"]["precision"] == summary["benign"]["recall"] == UNKNOWN


def test_ignored_pixels_of_the_mask_have_a_share_but_are_not_judged() -> None:
    quality = LabelQuality(("benign",))
    ignore = torch.tensor([[[True, False], [True, False]]])
    quality.update(as_labels([[[1, 1], [0, 0]]]), make_batch([[[0, 1], [1, 0]]], [0], has_mask=[True], ignore=ignore))
    assert quality.summary()["all"] == {
        "share": {"background": 0.5, "foreground": 0.5, "ignore": 0.0},
        "precision": {"background": 1.0, "foreground": 1.0},
        "recall": {"background": 1.0, "foreground": 1.0},
    }


def test_ignored_labels_lower_the_recall_and_not_the_precision() -> None:
    quality = LabelQuality(("benign",))
    quality.update(as_labels([[[1, 255], [255, 0]]]), make_batch([[[1, 1], [0, 0]]], [0], has_mask=[True]))
    assert quality.summary()["all"]["precision"] == {"background": 1.0, "foreground": 1.0}
    assert quality.summary()["all"]["recall"] == {"background": 0.5, "foreground": 0.5}


def test_without_a_true_pixel_there_is_no_recall_and_without_a_label_no_precision() -> None:
    # All is background, of which a quarter is labelled foreground and nothing background.
    quality = LabelQuality(("normal",))
    quality.update(as_labels([[[1, 255], [255, 255]]]), make_batch([[[0, 0], [0, 0]]], [0], has_mask=[True]))
    assert quality.summary()["normal"]["precision"] == {"background": None, "foreground": 0.0}
    assert quality.summary()["normal"]["recall"] == {"background": 0.0, "foreground": None}


def test_without_images_nothing_is_known() -> None:
    nothing = {"background": None, "foreground": None, "ignore": None}
    assert LabelQuality(("benign",)).summary()["benign"] == {"share": nothing, "precision": UNKNOWN, "recall": UNKNOWN}
