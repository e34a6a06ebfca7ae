"""What is learned from: images augmented anew in every epoch, with their pseudo-labels if there are any."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.ahead import prepared
from pipeline.augmentation import Augmentation
from pipeline.collectives import own_share
from pipeline.config import AugmentationParams
from pipeline.manifest import Manifest
from pipeline.resizing import resize_labels, resize_map
from pipeline.seeding import make_generator
from pipeline.square_images import SquareImages, UInt8Array


class PixelLabels(Protocol):
    """Labels uint8 (H, W): 0, 1, 255, and the CAM they came from, float16 (h, w) in [0, 1]."""

    @property
    def labels(self) -> npt.NDArray[np.uint8]: ...  # noqa: D102 - the class says it

    @property
    def cam(self) -> npt.NDArray[np.float16]: ...  # noqa: D102 - the class says it


class PixelLabelSource(Protocol):
    """Where pixel labels come from, such as a `PseudoLabelStore`; a protocol, so that a teacher depends on no store."""

    def read(self, image_id: str) -> PixelLabels:
        """Return the labels of an image, given the path that its manifest calls it by."""

    def describe(self) -> dict[str, Any]:
        """Return all that determines the labels, in JSON's types."""


@dataclass(frozen=True)
class TrainingBatch:
    """Images to learn from.

    Attributes:
        images: float32 (B, 3, S, S) in [0, 1].
        class_idx: int64 (B,).
        pseudo_labels: uint8 (B, S, S): 0, 1, 255; None for a teacher, which learns from image labels alone.
        cam: float32 (B, S, S) in [0, 1], the map the pseudo-labels came from; None likewise.
    """

    images: Tensor
    class_idx: Tensor
    pseudo_labels: Tensor | None = None
    cam: Tensor | None = None

    def to(self, device: torch.device) -> "TrainingBatch":
        """Return the batch on a device."""
        return TrainingBatch(
            self.images.to(device, non_blocking=True),
            self.class_idx.to(device, non_blocking=True),
            None if self.pseudo_labels is None else self.pseudo_labels.to(device, non_blocking=True),
            None if self.cam is None else self.cam.to(device, non_blocking=True),
        )


class TrainingSet:
    """The training images of a domain, augmented anew in every epoch, with their pseudo-labels if there is a store.

    What an image looks like in an epoch depends on the seed, the epoch and the image alone, so that neither the order
    nor the number of workers matters.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        input_size: int,
        augmentation: AugmentationParams,
        seed: int,
        store: PixelLabelSource | None = None,
    ) -> None:
        self.input_size = input_size
        self.augmentation = augmentation
        self.seed = seed
        self.store = store
        self.images = SquareImages(manifest, size=round(augmentation.enlarge * input_size))

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, epoch: int, batch_size: int, *, first: int = 0) -> Iterator[TrainingBatch]:
        """Yield an epoch's batches from the `first` on, in an order of the epoch's own.

        A last, smaller batch is left out unless it is the only one. Of several processes each yields its share of every
        batch.
        """
        order = torch.randperm(len(self), generator=make_generator(self.seed, "order", epoch)).tolist()
        starts = range(first * batch_size, self.batch_count(batch_size) * batch_size, batch_size)
        batches = (own_share(order[start : start + batch_size]) for start in starts)
        for indices, pictures in prepared(batches, partial(self._picture, epoch=epoch)):
            yield self._collate(indices, pictures, epoch)

    def batch_count(self, batch_size: int) -> int:
        """Return the number of batches of an epoch."""
        return max(1, len(self) // batch_size)

    def describe(self) -> dict[str, Any]:
        """Return all that determines the batches, in JSON's types."""
        return {
            "images": [asdict(row) for row in self.images.manifest.rows],
            "input_size": self.input_size,
            "augmentation": self.augmentation.model_dump(mode="json"),
            "seed": self.seed,
            "labels": None if self.store is None else self.store.describe(),
        }

    def _collate(self, indices: list[int], pictures: list[UInt8Array], epoch: int) -> TrainingBatch:
        labels = [self._labels(index, epoch) for index in indices] if self.store is not None else []
        class_idx = torch.tensor([self.images.manifest.rows[index].class_idx for index in indices])
        stacked = torch.from_numpy(np.stack(pictures))
        images = stacked.permute(0, 3, 1, 2).contiguous().float().div_(255)
        return TrainingBatch(images, class_idx, *(torch.stack(part) for part in zip(*labels, strict=True)))

    def _picture(self, index: int, *, epoch: int) -> UInt8Array:
        """Return a view of an image, uint8 (S, S, 3); may be called in any thread."""
        augmentation = self._augmentation(index, epoch)
        return augmentation.colours(augmentation.geometry(torch.from_numpy(self.images[index])).numpy())

    def _labels(self, index: int, epoch: int) -> tuple[Tensor, Tensor]:
        """Return the same view of an image's labels, uint8 (S, S), and of its CAM, float32 (S, S)."""
        if self.store is None:
            raise ValueError("there are no labels without a store")
        augmentation = self._augmentation(index, epoch)
        stored = self.store.read(self.images.manifest.rows[index].image)
        size = (self.images.size, self.images.size)
        labels = augmentation.geometry(resize_labels(torch.from_numpy(stored.labels), size))
        cam = resize_map(torch.from_numpy(stored.cam).float().unsqueeze(0), size).squeeze(0)
        return labels, augmentation.geometry(cam)

    def _augmentation(self, index: int, epoch: int) -> Augmentation:
        """Return the draw of an image in an epoch."""
        generator = make_generator(self.seed, "augmentation", epoch, self.images.manifest.rows[index].image)
        return Augmentation(self.augmentation, size=self.input_size, generator=generator)
