"""Masks read as pixel labels, and an image without one is named."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import make_row

from pipeline.data.manifest import Manifest
from pipeline.data.training_set import MaskLabels
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import PixelClasses


@pytest.fixture
def root(tmp_path: Path) -> Path:
    left = np.zeros((4, 4), dtype=np.uint8)
    left[:, :2] = 255
    for name, values in (("image.png", left), ("mask.png", left), ("ignore.png", left.T)):
        Image.fromarray(values).save(tmp_path / name)
    return tmp_path


def test_labels_are_the_mask_without_what_is_to_be_ignored(root: Path) -> None:
    row = make_row("image.png", root=root, mask="mask.png", ignore_mask="ignore.png")
    found = MaskLabels(Manifest((row,), root), size=2, background_class_idx=None).read("image.png")
    assert found.labels.tolist() == [[255, 255], [1, 0]]
    assert found.cam.tolist() == [[0, 0], [1, 0]]
    assert (str(found.labels.dtype), str(found.cam.dtype)) == ("uint8", "float16")


def test_labels_of_classes_carry_the_class_of_the_image(root: Path) -> None:
    row = make_row("image.png", root=root, mask="mask.png", ignore_mask="ignore.png", class_idx=2)
    manifest = Manifest((row,), root)
    masks = MaskLabels(manifest, size=2, background_class_idx=None, pixel_classes=PixelClasses.IMAGE_CLASSES)
    found = masks.read("image.png")
    assert found.labels.tolist() == [[255, 255], [3, 0]]
    assert found.cam.tolist() == [[0, 0], [1, 0]]
    assert masks.describe() != MaskLabels(manifest, size=2, background_class_idx=None).describe()


def test_an_image_of_the_background_class_needs_no_mask(root: Path) -> None:
    manifest = Manifest((make_row("image.png", root=root, class_idx=1),), root)
    assert not MaskLabels(manifest, size=2, background_class_idx=1).read("image.png").labels.any()
    with pytest.raises(PixelCAMError, match=r"approach: 'supervised' needs masks, and 1 training images .*image\.png"):
        MaskLabels(manifest, size=2, background_class_idx=0)
