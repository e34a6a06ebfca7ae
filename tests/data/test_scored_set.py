"""What is scored: images as they are, masks by the nearest pixel, and what is known of which image."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import make_row, noise_images, write_images

from pipeline.data import image_store, scored_set
from pipeline.data.manifest import Manifest, PreparedDomain, Split
from pipeline.data.maps import EvaluationBatch
from pipeline.data.scored_set import ScoredSet, validation_images
from pipeline.params.errors import PixelCAMError

MASK = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]], dtype=bool)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four images of 4x4, a mask and an ignore mask."""
    write_images(tmp_path, noise_images(4, size=4))
    Image.fromarray(MASK).save(tmp_path / "mask.png")
    Image.fromarray(MASK[::-1].copy()).save(tmp_path / "ignore.png")
    return tmp_path


def _manifest(root: Path) -> Manifest:
    """An image with a selectable mask, one with another, one of class 1 without mask, one of class 0 without."""
    return Manifest(
        (
            make_row("0.png", root=root, mask="mask.png", mask_selectable=True),
            make_row("1.png", root=root, mask="mask.png", ignore_mask="ignore.png", class_idx=1),
            make_row("2.png", root=root, class_idx=1),
            make_row("3.png", root=root, class_idx=0),
        ),
        root,
    )


def _scored(
    manifest: Manifest,
    *,
    batch_size: int = 4,
    mask_size: int = 4,
    background: int | None = None,
    selectable_only: bool = False,
    repeated: bool = False,
) -> ScoredSet:
    return ScoredSet(
        manifest,
        image_size=4,
        mask_size=mask_size,
        batch_size=batch_size,
        background_class_idx=background,
        selectable_only=selectable_only,
        repeated=repeated,
    )


def _only_batch(scored: ScoredSet) -> EvaluationBatch:
    (batch,) = scored
    return batch


def test_images_are_as_they_are(root: Path) -> None:
    batch = _only_batch(_scored(_manifest(root)))
    assert batch.image_ids == ("0.png", "1.png", "2.png", "3.png")
    assert batch.class_idx.tolist() == [0, 1, 1, 0]
    for image, name in zip(batch.images, batch.image_ids, strict=True):
        pixels = np.asarray(Image.open(root / name)).transpose(2, 0, 1)
        assert np.allclose(image.numpy(), pixels / 255)


def test_known_masks_are_told_from_unknown_ones(root: Path) -> None:
    batch = _only_batch(_scored(_manifest(root)))
    assert batch.has_mask.tolist() == [True, True, False, False]
    assert batch.masks.dtype == torch.bool
    assert np.array_equal(batch.masks[0].numpy(), MASK)


def test_a_background_class_has_a_known_empty_mask(root: Path) -> None:
    batch = _only_batch(_scored(_manifest(root), background=0))
    assert batch.has_mask.tolist() == [True, True, False, True]
    assert not batch.masks[3].any()
    assert np.array_equal(batch.masks[0].numpy(), MASK), "a mask that is there is read, whatever the class"


def test_selection_sees_no_mask_that_it_must_not(root: Path) -> None:
    batch = _only_batch(_scored(_manifest(root), background=0, selectable_only=True))
    assert batch.has_mask.tolist() == [True, False, False, False]


def test_ignored_pixels_are_those_of_the_ignore_mask(root: Path) -> None:
    batch = _only_batch(_scored(_manifest(root)))
    assert batch.ignore is not None
    assert batch.ignore.any(dim=(1, 2)).tolist() == [False, True, False, False]
    assert np.array_equal(batch.ignore[1].numpy(), MASK[::-1])


def test_without_ignore_masks_every_pixel_counts(root: Path) -> None:
    first, second = _scored(_manifest(root), batch_size=2)
    assert first.ignore is not None
    assert second.ignore is None


def test_masks_are_resized_by_the_nearest_pixel_centre(root: Path) -> None:
    # At half the size the centres lie at 1 and 3; at twice the size each pixel is doubled.
    small = _only_batch(_scored(_manifest(root), mask_size=2)).masks[0]
    assert small.tolist() == [[MASK[1, 1], MASK[1, 3]], [MASK[3, 1], MASK[3, 3]]] == [[False, False], [False, True]]
    large = _only_batch(_scored(_manifest(root), mask_size=8)).masks[0]
    assert np.array_equal(large.numpy(), MASK.repeat(2, axis=0).repeat(2, axis=1))


def test_masks_need_not_be_square(root: Path) -> None:
    Image.fromarray(MASK[:2]).save(root / "wide.png")
    manifest = Manifest((make_row("0.png", root=root, mask="wide.png"),), root)
    mask = _only_batch(_scored(manifest)).masks[0]
    assert np.array_equal(mask.numpy(), MASK[:2].repeat(2, axis=0))


@pytest.mark.parametrize(("batch_size", "sizes"), [(1, [1, 1, 1, 1]), (3, [3, 1]), (4, [4]), (9, [4])])
def test_every_image_is_scored_once(root: Path, batch_size: int, sizes: list[int]) -> None:
    scored = _scored(_manifest(root), batch_size=batch_size)
    for _ in range(2):
        batches = list(scored)
        assert [len(batch.image_ids) for batch in batches] == sizes
        assert [name for batch in batches for name in batch.image_ids] == ["0.png", "1.png", "2.png", "3.png"]
    assert len(scored) == len(sizes)


def test_no_images_give_no_batches(root: Path) -> None:
    scored = _scored(Manifest((), root))
    assert len(scored) == 0
    assert list(scored) == []


def test_a_changed_mask_is_named(root: Path) -> None:
    scored = _scored(_manifest(root))
    Image.fromarray(~MASK).save(root / "mask.png")
    with pytest.raises(PixelCAMError, match=r"mask\.png: has changed since it was prepared"):
        list(scored)


def test_a_missing_mask_is_named(root: Path) -> None:
    scored = _scored(_manifest(root))
    (root / "mask.png").unlink()
    with pytest.raises(PixelCAMError, match=r"mask\.png: does not exist"):
        list(scored)


def _same(one: EvaluationBatch, other: EvaluationBatch) -> bool:
    return one.image_ids == other.image_ids and all(
        torch.equal(getattr(one, name), getattr(other, name)) and getattr(one, name).dtype == getattr(other, name).dtype
        for name in ("images", "class_idx", "masks", "has_mask", "ignore")
        if getattr(one, name) is not None or getattr(other, name) is not None
    )


@pytest.mark.parametrize("kept_bytes", [2**20, 0])
def test_repeated_batches_are_the_same_and_their_files_are_read_once(
    root: Path, kept_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIXELCAM_IMAGES", str(root / "stores"))
    monkeypatch.setattr(image_store, "KEPT_BYTES", kept_bytes)
    manifest = _manifest(root)
    expected = list(_scored(manifest, batch_size=3, mask_size=7, background=0))
    repeated = _scored(manifest, batch_size=3, mask_size=7, background=0, repeated=True)
    for _ in range(3):
        assert all(_same(one, other) for one, other in zip(repeated, expected, strict=True))
        for path in root.glob("*.png"):
            path.unlink()
    assert (root / "stores").exists() is (kept_bytes == 0)


def test_a_random_order_is_the_seeds_and_holds_every_image_once(root: Path) -> None:
    scored = _scored(_manifest(root), batch_size=3, repeated=True)
    everything = [name for batch in scored for name in batch.image_ids]
    for path in root.glob("?.png"):
        path.unlink()  # decoded no second time
    orders = [[name for batch in scored.in_random_order(seed) for name in batch.image_ids] for seed in (0, 0, 1, 2, 3)]
    assert orders[0] == orders[1]
    assert all(sorted(order) == everything for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    assert [name for batch in scored for name in batch.image_ids] == everything, "the set itself keeps its order"


def test_many_masks_are_read_anew(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = _manifest(root)  # with three files of masks, of 8x8 pixels here
    for limit, kept in ((3 * 8, True), (3 * 8 - 1, False)):
        monkeypatch.setattr(scored_set, "KEPT_MASK_BYTES", limit)
        repeated = _scored(manifest, mask_size=8, repeated=True)
        first = _only_batch(repeated)
        assert _same(_only_batch(repeated), first)
        (root / "mask.png").rename(root / "away.png")
        if kept:
            assert _same(_only_batch(repeated), first)
        else:
            with pytest.raises(PixelCAMError, match=r"mask\.png: does not exist"):
                _only_batch(repeated)
        (root / "away.png").rename(root / "mask.png")


def test_an_image_at_fault_is_told_before_the_first_batch(root: Path) -> None:
    repeated = _scored(_manifest(root), repeated=True, batch_size=1)
    (root / "3.png").unlink()
    with pytest.raises(PixelCAMError, match=r"3\.png: does not exist"):
        next(iter(repeated))


def test_a_process_keeps_its_share_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TORCHELASTIC_RUN_ID", "test"), ("RANK", "1"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    manifest = _manifest(root)
    everything = list(_scored(manifest, batch_size=1))
    for name in ("0.png", "2.png"):
        (root / name).unlink()
    share = _scored(manifest, batch_size=1, repeated=True).share()
    for _ in range(2):
        assert all(_same(one, other) for one, other in zip(share, everything[1::2], strict=True))


def test_validation_needs_no_mask(root: Path) -> None:
    rows = tuple(replace(row, split=Split.VAL) for row in _manifest(root).rows[:3])
    train = make_row("3.png", root=root)
    for name in ("mask.png", "ignore.png"):
        (root / name).write_bytes(b"")
    source = PreparedDomain("home", ("benign", "malignant"), 0, Manifest((train, *rows), root))
    batches = list(validation_images(source, input_size=4, batch_size=2, with_masks=False))
    assert [name for batch in batches for name in batch.image_ids] == ["0.png", "1.png", "2.png"]
    assert not any(batch.has_mask.any() for batch in batches)
