"""What is scored: a split's images as they are, with their masks."""

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from pipeline.data.image_store import SquareImages, SquareReader, UInt8Array
from pipeline.data.manifest import Manifest, ManifestRow, PreparedDomain, Split
from pipeline.data.maps import EvaluationBatch, resize_labels
from pipeline.data.pixels import read_row_mask
from pipeline.runtime.processes import count, rank
from pipeline.runtime.seeding import make_generator
from pipeline.runtime.threads import prefetch

KEPT_MASK_BYTES: Final = 2**28  # of masks, at a bit a pixel; where there are more, they are read anew


@dataclass(frozen=True, eq=False)
class _Sample:
    """An image uint8 (H, W, 3), its mask and the pixels to ignore, both bool (S, S), None where there are none."""

    picture: UInt8Array
    mask: Tensor | None
    ignore: Tensor | None


class ScoredSet:
    """The images of a split, as they are, with masks for evaluation; iterated any number of times.

    Args:
        manifest: the images, one split.
        image_size: side of the square images, in pixels.
        mask_size: side of the square masks, in pixels.
        batch_size: images per batch.
        background_class_idx: the class whose images hold no region of interest: their mask is empty, file or not.
        selectable_only: leave out masks that must not be used to choose a threshold.
        repeated: it will be iterated again and again, so each file is decoded once, in the first iteration, and what
            has been decoded is kept in memory or on disk.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        image_size: int,
        mask_size: int,
        batch_size: int,
        background_class_idx: int | None,
        selectable_only: bool = False,
        repeated: bool = False,
    ) -> None:
        self.manifest = manifest
        self.batch_size = batch_size
        self.image_size = image_size
        self.mask_size = mask_size
        self._background_class_idx = background_class_idx
        self._selectable_only = selectable_only
        self._order = list(range(len(manifest)))
        self._starts = range(0, len(manifest), batch_size)
        self._images = None if repeated else SquareReader(manifest, size=image_size)
        self._kept: SquareImages | None = None
        self._shared: ScoredSet | None = None
        masks = sum(bool(row.mask) + bool(row.ignore_mask) for row in manifest.rows)
        self._keeps_masks = repeated and masks * mask_size**2 <= 8 * KEPT_MASK_BYTES
        self._packed: dict[tuple[str, str], UInt8Array] = {}  # masks, eight pixels to a byte, by image and file

    def share(self) -> "ScoredSet":
        """Return the batches that this process takes of several, the same object each time; all where it is alone."""
        if count() == 1:
            return self
        if self._shared is None:
            self._shared = copy(self)
            self._shared._starts = self._starts[rank() :: count()]
        return self._shared

    def in_random_order(self, seed: int) -> "ScoredSet":
        """Return all images in an order of the seed's, so that a batch holds images of all kinds."""
        mixed = copy(self)
        mixed._order = torch.randperm(len(self.manifest), generator=make_generator(seed, "mixed")).tolist()
        mixed._starts = range(0, len(self.manifest), self.batch_size)
        mixed._shared = None
        return mixed

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._starts)

    def __iter__(self) -> Iterator[EvaluationBatch]:
        batches = [self._order[start : start + self.batch_size] for start in self._starts]
        images = self._keep([index for batch in batches for index in batch]) if self._images is None else self._images
        for indices, samples in prefetch(batches, lambda index: self._sample(index, images)):
            yield self._batch(indices, samples)

    def _keep(self, wanted: list[int]) -> SquareImages:
        if self._kept is None:
            self._kept = SquareImages(self.manifest, size=self.image_size, only=wanted)
        return self._kept

    def _sample(self, index: int, images: SquareReader | SquareImages) -> _Sample:
        """Return an image with what is known of it; may be called in any thread."""
        row, picture = self.manifest.rows[index], images[index]
        return _Sample(picture, self._mask(row), self._read_mask(row, row.ignore_mask) if row.ignore_mask else None)

    def _batch(self, indices: list[int], samples: list[_Sample]) -> EvaluationBatch:
        rows = [self.manifest.rows[index] for index in indices]
        images = torch.from_numpy(np.stack([sample.picture for sample in samples]))
        empty = torch.zeros(self.mask_size, self.mask_size, dtype=torch.bool)
        masks = [empty if sample.mask is None else sample.mask for sample in samples]
        ignore = [empty if sample.ignore is None else sample.ignore for sample in samples]
        return EvaluationBatch(
            image_ids=tuple(row.image for row in rows),
            images=images.permute(0, 3, 1, 2).float().div_(255),
            class_idx=torch.tensor([row.class_idx for row in rows]),
            masks=torch.stack(masks),
            has_mask=torch.tensor([sample.mask is not None for sample in samples]),
            ignore=torch.stack(ignore) if any(row.ignore_mask for row in rows) else None,
        )

    def _mask(self, row: ManifestRow) -> Tensor | None:
        """Return the mask of an image, bool (S, S), None where there is none or it must not be used."""
        if self._selectable_only and not row.mask_selectable:
            return None
        if row.mask:
            return self._read_mask(row, row.mask)
        if row.class_idx == self._background_class_idx:
            return torch.zeros(self.mask_size, self.mask_size, dtype=torch.bool)
        return None

    def _read_mask(self, row: ManifestRow, name: str) -> Tensor:
        shape, packed = (self.mask_size, self.mask_size), self._packed.get((row.image, name))
        if packed is not None:
            return torch.from_numpy(np.unpackbits(packed, count=shape[0] * shape[1]).reshape(shape).view(np.bool_))
        mask = read_row_mask(self.manifest, row, name)
        resized = resize_labels(torch.from_numpy(mask), shape)
        if self._keeps_masks:
            self._packed[row.image, name] = np.packbits(resized.numpy())
        return resized


def validation_images(source: PreparedDomain, *, input_size: int, batch_size: int, with_masks: bool) -> ScoredSet:
    """Return the validation images of a training: without masks, or with those that may be used to choose a model.

    Masks have the size of the images.
    """
    images = source.manifest.of_split(Split.VAL)
    if not with_masks:
        images = replace(images, rows=tuple(replace(row, mask="", ignore_mask="") for row in images.rows))
    return ScoredSet(
        images,
        image_size=input_size,
        mask_size=input_size if with_masks else 1,
        batch_size=batch_size,
        background_class_idx=source.background_class_idx if with_masks else None,
        selectable_only=True,
        repeated=True,
    )
