"""What is learned from: images augmented anew in every epoch, with their pseudo-labels if there are any."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.augmentation import Augmentation
from pipeline.config import AugmentationParams
from pipeline.manifest import Manifest
from pipeline.resizing import resize_labels, resize_map
from pipeline.seeding import make_generator
from pipeline.square_images import SquareImages


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

        A last, smaller batch is left out unless it is the only one.
        """
        order = torch.randperm(len(self), generator=make_generator(self.seed, "order", epoch)).tolist()
        for start in range(first * batch_size, self.batch_count(batch_size) * batch_size, batch_size):
            yield self._collate(order[start : start + batch_size], epoch)

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

    def _collate(self, indices: list[int], epoch: int) -> TrainingBatch:
        samples = [self._sample(index, epoch) for index in indices]
        class_idx = torch.tensor([self.images.manifest.rows[index].class_idx for index in indices])
        images = torch.stack([sample[0] for sample in samples])
        if self.store is None:
            return TrainingBatch(images, class_idx)
        labels, cams = (torch.stack([sample[part] for sample in samples]) for part in (1, 2))
        return TrainingBatch(images, class_idx, labels, cams)

    def _sample(self, index: int, epoch: int) -> tuple[Tensor, ...]:
        """Return a view of an image, float32 (3, S, S) in [0, 1], and of its labels and CAM, (S, S), if it has any."""
        image_id = self.images.manifest.rows[index].image
        generator = make_generator(self.seed, "augmentation", epoch, image_id)
        augmentation = Augmentation(self.augmentation, size=self.input_size, generator=generator)
        coloured = augmentation.colours(augmentation.geometry(torch.from_numpy(self.images[index])).numpy())
        image = torch.tensor(coloured).permute(2, 0, 1).float().div_(255)
        if self.store is None:
            return (image,)
        stored = self.store.read(image_id)
        size = (self.images.size, self.images.size)
        labels = augmentation.geometry(resize_labels(torch.from_numpy(stored.labels), size))
        cam = resize_map(torch.from_numpy(stored.cam).float().unsqueeze(0), size).squeeze(0)
        return image, labels, augmentation.geometry(cam)
