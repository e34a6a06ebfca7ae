"""What is learned from: images augmented anew in every epoch, with pseudo-labels or masks if there are any."""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.data.augmentation import Augmentation
from pipeline.data.image_store import SquareImages
from pipeline.data.manifest import Manifest, ManifestRow
from pipeline.data.maps import resize_labels, resize_map
from pipeline.data.pixels import read_row_mask
from pipeline.params.config import AugmentationParams
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import BACKGROUND, FOREGROUND, IGNORE, PixelClasses
from pipeline.runtime.collectives import own_share
from pipeline.runtime.devices import to_device
from pipeline.runtime.seeding import make_generator
from pipeline.runtime.threads import prefetch

CPU: Final = torch.device("cpu")


class PixelLabels(Protocol):
    """Labels uint8 (H, W), 0 background, 255 ignore, and the CAM they came from, float16 (h, w) in [0, 1]."""

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
        pseudo_labels: uint8 (B, S, S): 0 background, 1 foreground or 1 + `class_idx`, 255 ignore; None for a teacher,
            which learns from image labels alone.
        cam: float32 (B, S, S) in [0, 1], the map the pseudo-labels came from; None likewise.
    """

    images: Tensor
    class_idx: Tensor
    pseudo_labels: Tensor | None = None
    cam: Tensor | None = None

    def to(self, device: torch.device) -> "TrainingBatch":
        """Return the batch on a device; to a GPU it is on its way, from pinned memory, while the caller goes on."""
        return TrainingBatch(
            to_device(self.images, device),
            to_device(self.class_idx, device),
            None if self.pseudo_labels is None else to_device(self.pseudo_labels, device),
            None if self.cam is None else to_device(self.cam, device),
        )


@dataclass(frozen=True)
class _View:
    """An image as an epoch sees it: the draw, the image, uint8 (3, S, S) until its colours are changed, labels, CAM."""

    augmentation: Augmentation
    image: Tensor
    labels: tuple[Tensor, ...]


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

    def with_classes(self, class_idx: Sequence[int], store: PixelLabelSource | None) -> "TrainingSet":
        """Return the same images, decoded no second time, with other labels.

        Args:
            class_idx: one per image, in their order.
            store: the pixel labels that go with them, if there are any.
        """
        rows = self.images.manifest.rows
        relabelled = (replace(row, class_idx=index) for row, index in zip(rows, class_idx, strict=True))
        other = copy(self)
        other.store = store
        other.images = copy(self.images)
        other.images.manifest = replace(self.images.manifest, rows=tuple(relabelled))
        return other

    def batches(
        self, epoch: int, batch_size: int, *, first: int = 0, device: torch.device = CPU
    ) -> Iterator[TrainingBatch]:
        """Yield an epoch's batches on a device, from the `first` on, in an order of the epoch's own.

        A last, smaller batch is left out unless it is the only one. Of several processes each yields its share of every
        batch. Threads prepare the views; a GPU changes their colours itself.
        """
        order = torch.randperm(len(self), generator=make_generator(self.seed, "order", epoch)).tolist()
        starts = range(first * batch_size, self.batch_count(batch_size) * batch_size, batch_size)
        batches = (own_share(order[start : start + batch_size]) for start in starts)
        on_device = device.type != "cpu"
        for indices, views in prefetch(batches, partial(self._view, epoch=epoch, with_colours=not on_device)):
            batch = self._collate(indices, views).to(device)
            yield _with_colours(batch, [view.augmentation for view in views]) if on_device else batch

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

    def _collate(self, indices: list[int], views: list[_View]) -> TrainingBatch:
        class_idx = torch.tensor([self.images.manifest.rows[index].class_idx for index in indices])
        images = torch.stack([view.image for view in views]).contiguous()
        labels = zip(*(view.labels for view in views), strict=True)
        return TrainingBatch(images, class_idx, *(torch.stack(part) for part in labels))

    def _view(self, index: int, *, epoch: int, with_colours: bool) -> _View:
        """Return an image, its labels and its CAM by one geometric draw; may be called in any thread."""
        name = self.images.manifest.rows[index].image
        generator = make_generator(self.seed, "augmentation", epoch, name)
        augmentation = Augmentation(self.augmentation, size=self.input_size, generator=generator)
        image = augmentation.geometry(torch.from_numpy(self.images[index])).permute(2, 0, 1)
        labels = () if self.store is None else self._labels(self.store.read(name))
        return _View(
            augmentation,
            augmentation.colours(image) if with_colours else image,
            tuple(augmentation.geometry(each) for each in labels),
        )

    def _labels(self, stored: PixelLabels) -> tuple[Tensor, Tensor]:
        """Return labels, uint8, and their CAM, float32, at the size of the images before their crop."""
        size = (self.images.size, self.images.size)
        cam = torch.from_numpy(stored.cam).float().unsqueeze(0)
        return resize_labels(torch.from_numpy(stored.labels), size), resize_map(cam, size).squeeze(0)


def _with_colours(batch: TrainingBatch, augmentations: list[Augmentation]) -> TrainingBatch:
    """Return a batch of uint8 images with their colours changed on their device, float32."""
    pairs = zip(augmentations, batch.images, strict=True)
    return replace(batch, images=torch.stack([augmentation.colours(image) for augmentation, image in pairs]))


@dataclass(frozen=True)
class TrueLabels:
    """Labels uint8 (S, S), as of a `TrainingBatch`; and a map float16 (S, S), 1 on the foreground."""

    labels: npt.NDArray[np.uint8]
    cam: npt.NDArray[np.float16]


class MaskLabels:
    """Read the masks of a manifest's images as pixel labels, at one size.

    Args:
        manifest: the training images.
        size: side of the labels, in pixels.
        background_class_idx: the class whose images hold no region of interest, and need no mask.
        pixel_classes: what pixels within a mask are called.

    Raises:
        PixelCAMError: an image has no mask.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        size: int,
        background_class_idx: int | None,
        pixel_classes: PixelClasses = PixelClasses.FOREGROUND,
    ) -> None:
        self.manifest = manifest
        self.size = size
        self.pixel_classes = pixel_classes
        self.rows = {row.image: row for row in manifest.rows}
        unknown = [row.image for row in manifest.rows if not row.mask and row.class_idx != background_class_idx]
        if unknown:
            raise PixelCAMError(
                f"train_pixelcam.approach: 'supervised' needs masks, and {len(unknown)} training images have none "
                f"({unknown[0]}); give them masks or choose another approach"
            )

    def describe(self) -> dict[str, Any]:
        """Return what determines the labels, beside the masks' checksums in the manifest."""
        return {"masks": True, "size": self.size, "pixel_classes": self.pixel_classes.value}

    def read(self, image_id: str) -> TrueLabels:
        """Return the labels of an image.

        Raises:
            PixelCAMError: its mask cannot be read.
        """
        row = self.rows[image_id]
        foreground = FOREGROUND if self.pixel_classes is PixelClasses.FOREGROUND else 1 + row.class_idx
        labels = np.full((self.size, self.size), BACKGROUND, dtype=np.uint8)
        if row.mask:
            labels[self._read(row, row.mask)] = foreground
        if row.ignore_mask:
            labels[self._read(row, row.ignore_mask)] = IGNORE
        return TrueLabels(labels, (labels == foreground).astype(np.float16))

    def _read(self, row: ManifestRow, name: str) -> npt.NDArray[np.bool_]:
        mask = torch.from_numpy(read_row_mask(self.manifest, row, name))
        return resize_labels(mask, (self.size, self.size)).numpy()
