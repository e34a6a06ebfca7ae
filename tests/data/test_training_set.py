"""Training batches: each view depends on seed, epoch and image alone; labels and CAM follow their image."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tiny import NO_AUGMENTATION, noise_images, write_images
from torch import Tensor

from pipeline.data import image_store
from pipeline.data.manifest import Manifest
from pipeline.data.training_set import TrainingBatch, TrainingSet, _with_colours
from pipeline.params.config import AugmentationParams
from pipeline.params.errors import PixelCAMError

GEOMETRY = NO_AUGMENTATION.model_copy(update={"enlarge": 1.5, "flip": True, "rotate": True})
FULL = GEOMETRY.model_copy(update={"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.03})


@dataclass(frozen=True)
class _Labels:
    labels: npt.NDArray[np.uint8]
    cam: npt.NDArray[np.float16]


class _Store:
    """Labels and CAM by image; anything else is refused."""

    def __init__(self, rows: dict[str, _Labels]) -> None:
        self.rows = rows

    def describe(self) -> dict[str, Any]:
        return {}

    def read(self, image_id: str) -> _Labels:
        return self.rows[image_id]


def _set(
    manifest: Manifest, *, seed: int = 0, augmentation: AugmentationParams = FULL, store: _Store | None = None
) -> TrainingSet:
    return TrainingSet(manifest, input_size=8, augmentation=augmentation, seed=seed, store=store)


def _views(training_set: TrainingSet, *, epoch: int = 1, batch_size: int = 1) -> dict[int, Tensor]:
    """Return each image of an epoch by its number."""
    return {
        number: image
        for batch in training_set.batches(epoch, batch_size)
        for number, image in zip(batch.class_idx.tolist(), batch.images, strict=True)
    }


def _order(training_set: TrainingSet, epoch: int, *, batch_size: int = 1) -> list[int]:
    return [number for batch in training_set.batches(epoch, batch_size) for number in batch.class_idx.tolist()]


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return write_images(tmp_path, noise_images(7, size=10))


def test_a_view_depends_on_seed_epoch_and_image_alone(manifest: Manifest) -> None:
    views = _views(_set(manifest))
    turned = Manifest(manifest.rows[:2:-1], manifest.root)
    for others in (_views(_set(turned)), _views(_set(manifest), batch_size=7)):
        assert len(others) >= 4
        assert all(torch.equal(view, views[number]) for number, view in others.items())
    for changed in (_views(_set(manifest), epoch=2), _views(_set(manifest, seed=1))):
        assert all(not torch.equal(view, views[number]) for number, view in changed.items())


def test_views_are_the_same_from_memory_and_from_disk(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = _views(_set(manifest))
    monkeypatch.setenv("PIXELCAM_IMAGES", str(manifest.root / "stores"))
    monkeypatch.setattr(image_store, "KEPT_BYTES", 0)
    read = _views(_set(manifest))
    assert all(torch.equal(read[number], view) for number, view in kept.items())


def test_every_epoch_has_an_order_of_its_own(manifest: Manifest) -> None:
    training_set = _set(manifest)
    orders = [_order(training_set, epoch) for epoch in range(1, 7)]
    assert all(sorted(order) == list(range(7)) for order in orders)
    assert len({tuple(order) for order in orders}) >= 5
    assert _order(training_set, 3) == orders[2]
    assert _order(_set(manifest, seed=1), 1) != orders[0]


@pytest.mark.parametrize(
    ("batch_size", "sizes"),
    [(1, [1] * 7), (2, [2, 2, 2]), (3, [3, 3]), (7, [7]), (8, [7]), (100, [7])],
)
def test_a_small_last_batch_is_left_out_unless_it_is_the_only(
    manifest: Manifest, batch_size: int, sizes: list[int]
) -> None:
    training_set = _set(manifest)
    assert [len(batch.images) for batch in training_set.batches(1, batch_size)] == sizes
    assert training_set.batch_count(batch_size) == len(sizes)


def test_left_out_images_differ_from_epoch_to_epoch(manifest: Manifest) -> None:
    training_set = _set(manifest)
    seen = [set(_order(training_set, epoch, batch_size=4)) for epoch in range(1, 6)]
    assert all(len(numbers) == 4 for numbers in seen)
    assert set.union(*seen) == set(range(7))


def test_batches_hold_images_in_0_to_1_and_no_labels_without_a_store(manifest: Manifest) -> None:
    batch = next(_set(manifest).batches(1, 3))
    assert batch.images.shape == (3, 3, 8, 8)
    assert batch.images.dtype == torch.float32
    assert 0 <= float(batch.images.min()) < float(batch.images.max()) <= 1
    assert batch.class_idx.dtype == torch.int64
    assert batch.pseudo_labels is None
    assert batch.cam is None


def test_colours_can_be_changed_when_the_batch_is_together(manifest: Manifest) -> None:
    training_set = _set(manifest, augmentation=FULL.model_copy(update={"stain": 0.2}))
    before, after = ([training_set._view(i, epoch=1, with_colours=w) for i in range(4)] for w in (True, False))
    plain = training_set._collate([0, 1, 2, 3], after)
    assert plain.images.dtype == torch.uint8
    coloured = _with_colours(plain, [view.augmentation for view in after])
    assert torch.equal(coloured.images, training_set._collate([0, 1, 2, 3], before).images)
    assert torch.equal(coloured.class_idx, torch.arange(4))


def test_batches_come_to_the_device_with_all_their_parts(manifest: Manifest) -> None:
    rows = {row.image: _Labels(np.ones((4, 4), np.uint8), np.ones((2, 2), np.float16)) for row in manifest.rows}
    batch = next(_set(manifest, store=_Store(rows)).batches(1, 3, device=torch.device("meta")))
    parts = (batch.images, batch.class_idx, batch.pseudo_labels, batch.cam)
    assert [part.device.type for part in parts if part is not None] == ["meta"] * 4
    assert batch.images.shape == (3, 3, 8, 8)
    assert batch.images.dtype == torch.float32


def test_without_augmentation_an_image_is_its_pixels(tmp_path: Path) -> None:
    image = noise_images(1, size=8)[0]
    batch = next(_set(write_images(tmp_path, [image]), augmentation=NO_AUGMENTATION).batches(1, 4))
    assert np.allclose(batch.images[0].numpy(), image.transpose(2, 0, 1) / 255)


def test_labels_and_cam_follow_their_image(tmp_path: Path) -> None:
    # The left quarter is black, foreground, CAM 1; the lower half of the rest is ignored.
    image = np.full((48, 48, 3), 255, dtype=np.uint8)
    image[:, :12] = 0
    labels = np.zeros((16, 16), dtype=np.uint8)
    labels[8:] = 255
    labels[:, :4] = 1
    cam = np.zeros((8, 8), dtype=np.float16)
    cam[:, :2] = 1
    images = [image] * 12
    manifest = write_images(tmp_path, images)
    store = _Store({row.image: _Labels(labels, cam) for row in manifest.rows})
    training_set = TrainingSet(manifest, input_size=32, augmentation=GEOMETRY, seed=0, store=store)
    batch = next(training_set.batches(1, 12))
    assert batch.pseudo_labels is not None
    assert batch.cam is not None
    assert batch.pseudo_labels.shape == batch.cam.shape == (12, 32, 32)
    assert batch.pseudo_labels.dtype == torch.uint8
    assert batch.cam.dtype == torch.float32
    assert set(batch.pseudo_labels.flatten().tolist()) == {0, 1, 255}
    black = batch.images[:, 0] == 0
    assert torch.equal(black, batch.pseudo_labels == 1)
    assert bool(black.any())
    # The CAM rises over the two coarse cells at the border: it is above one half exactly where the image is black.
    assert torch.equal(batch.cam > 0.5, black)
    assert len({tuple(view.flatten().tolist()) for view in batch.pseudo_labels}) > 4


def test_a_store_that_lacks_an_image_stops_the_batch(manifest: Manifest) -> None:
    with pytest.raises(KeyError, match=r"\.png"):
        next(_set(manifest, store=_Store({})).batches(1, 2))


def test_a_changed_image_is_named(manifest: Manifest) -> None:
    (manifest.root / "4.png").write_bytes((manifest.root / "5.png").read_bytes())
    with pytest.raises(PixelCAMError, match=r"4\.png: has changed"):
        _set(manifest)


def test_to_moves_every_part() -> None:
    batch = TrainingBatch(torch.zeros(1, 3, 2, 2), torch.zeros(1), torch.zeros(1, 2, 2), torch.zeros(1, 2, 2))
    moved = batch.to(torch.device("meta"))
    parts = (moved.images, moved.class_idx, moved.pseudo_labels, moved.cam)
    assert all(part is not None and part.is_meta for part in parts)
    bare = TrainingBatch(batch.images, batch.class_idx).to(torch.device("meta"))
    assert bare.images.is_meta
    assert bare.pseudo_labels is bare.cam is None
