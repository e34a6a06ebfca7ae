"""What is scored: a split's images as they are, with their masks."""

from collections.abc import Iterator
from copy import copy
from dataclasses import replace

import torch
from torch import Tensor

from pipeline.ahead import prepared
from pipeline.domains import PreparedDomain
from pipeline.images import read_mask
from pipeline.localization import EvaluationBatch
from pipeline.manifest import Manifest, ManifestRow, Split
from pipeline.processes import count, rank
from pipeline.resizing import resize_labels
from pipeline.square_images import SquareReader, UInt8Array, check_unchanged


class ScoredSet:
    """The images of a split, as they are, with masks for evaluation; iterated any number of times.

    Args:
        manifest: the images, one split.
        image_size: side of the square images, in pixels.
        mask_size: side of the square masks, in pixels.
        batch_size: images per batch.
        background_class_idx: the class whose images hold no region of interest: their mask is empty, file or not.
        selectable_only: leave out masks that must not be used to choose a threshold.
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
    ) -> None:
        self.manifest = manifest
        self.batch_size = batch_size
        self._images = SquareReader(manifest, size=image_size)  # each is wanted once
        self.mask_size = mask_size
        self._background_class_idx = background_class_idx
        self._selectable_only = selectable_only
        self._starts = range(0, len(manifest), batch_size)

    def share(self) -> "ScoredSet":
        """Return the batches that this process takes of several: every one of them where it is alone."""
        shared = copy(self)
        shared._starts = self._starts[rank() :: count()]
        return shared

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._starts)

    def __iter__(self) -> Iterator[EvaluationBatch]:
        batches = (list(range(start, min(start + self.batch_size, len(self.manifest)))) for start in self._starts)
        for indices, pictures in prepared(batches, self._images.__getitem__):
            yield self._batch(indices, pictures)

    def _batch(self, indices: list[int], pictures: list[UInt8Array]) -> EvaluationBatch:
        rows = [self.manifest.rows[index] for index in indices]
        images = torch.stack([torch.tensor(picture) for picture in pictures])
        masks = [self._mask(row) for row in rows]
        empty = torch.zeros(self.mask_size, self.mask_size, dtype=torch.bool)
        ignore = [self._read_mask(row, row.ignore_mask) if row.ignore_mask else empty for row in rows]
        return EvaluationBatch(
            image_ids=tuple(row.image for row in rows),
            images=images.permute(0, 3, 1, 2).float().div_(255),
            class_idx=torch.tensor([row.class_idx for row in rows]),
            masks=torch.stack([empty if mask is None else mask for mask in masks]),
            has_mask=torch.tensor([mask is not None for mask in masks]),
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
        path = self.manifest.root / name
        mask = read_mask(path)
        if name == row.mask:
            check_unchanged(path, row.mask_sha256)
        return resize_labels(torch.from_numpy(mask), (self.mask_size, self.mask_size))


def validation_images(source: PreparedDomain, *, input_size: int, batch_size: int, with_masks: bool) -> ScoredSet:
    """Return the validation images: without masks, or with those that may be used to choose a model.

    Masks have the size of the images.
    """
    images = source.manifest.of_split(Split.VAL)
    if not with_masks:
        images = Manifest(tuple(replace(row, mask="", ignore_mask="") for row in images.rows), images.root)
    return ScoredSet(
        images,
        image_size=input_size,
        mask_size=input_size if with_masks else 1,
        batch_size=batch_size,
        background_class_idx=source.background_class_idx if with_masks else None,
        selectable_only=True,
    )
