"""Pixel labels that a model gives itself, beside what it says of whole images."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.adaptation.losses import NO_LABEL
from pipeline.adaptation.own_pixels import OwnPixelLabels, foreground_shares
from pipeline.params.vocabulary import PixelClasses
from pipeline.pseudo_labels.store import PseudoLabelStore, StoredImage, write_store

LABELS = np.array([[0, 1], [255, 1]], dtype=np.uint8)
MAPS = ([[0.9, 0.5], [0.2, 0.1]], [[0.0, 0.1], [0.2, 0.49]])


@pytest.fixture
def store(tmp_path: Path) -> PseudoLabelStore:
    return _store(tmp_path, MAPS)


def _store(tmp_path: Path, maps: tuple[list[list[float]], ...]) -> PseudoLabelStore:
    rows = (StoredImage(LABELS, np.array(each, dtype=np.float16), 0) for each in maps)
    write_store(
        tmp_path / "store.zarr",
        rows,
        image_count=2,
        label_size=(2, 2),
        cam_size=(2, 2),
        pixel_classes=("background", "foreground"),
        attributes={"image_ids": ["a", "b"]},
    )
    return PseudoLabelStore(tmp_path / "store.zarr")


def _own(store: PseudoLabelStore, labels: list[int], pixel_classes: PixelClasses) -> OwnPixelLabels:
    return OwnPixelLabels(store, torch.tensor(labels), background_class_idx=0, pixel_classes=pixel_classes)


def test_the_share_of_foreground_is_that_of_likely_pixels(store: PseudoLabelStore) -> None:
    found = foreground_shares(store)
    assert found is not None
    assert found.tolist() == [0.5, 0.0]


def test_an_image_of_the_background_class_is_background_all_over(store: PseudoLabelStore) -> None:
    own = _own(store, [0, 1], PixelClasses.FOREGROUND)
    assert own.read("a").labels.tolist() == [[0, 0], [0, 0]]
    assert own.read("b").labels.tolist() == LABELS.tolist()


def test_foreground_is_of_the_images_class_or_ignored(store: PseudoLabelStore) -> None:
    own = _own(store, [NO_LABEL, 1], PixelClasses.IMAGE_CLASSES)
    assert own.read("a").labels.tolist() == [[0, 255], [255, 255]]
    assert own.read("b").labels.tolist() == [[0, 2], [255, 2]]


def test_other_labels_of_images_are_another_training(store: PseudoLabelStore) -> None:
    first = _own(store, [0, 1], PixelClasses.FOREGROUND)
    others = (
        first.with_labels(torch.tensor([1, 1])),
        _own(store, [0, 1], PixelClasses.IMAGE_CLASSES),
        OwnPixelLabels(store, torch.tensor([0, 1]), background_class_idx=1, pixel_classes=PixelClasses.FOREGROUND),
    )
    assert all(other.describe() != first.describe() for other in others)


def test_shares_that_are_all_alike_tell_no_class(tmp_path: Path) -> None:
    store = _store(tmp_path, ([[0.9, 0.5], [0.2, 0.1]], [[0.9, 0.1], [0.2, 0.7]]))
    assert foreground_shares(store) is None
