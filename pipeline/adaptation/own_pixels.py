"""Pixel labels that PixelCAM gives a domain's images itself, cut from its own maps before it is adapted."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.adaptation.losses import NO_LABEL
from pipeline.data.training_set import PixelLabels
from pipeline.params.vocabulary import BACKGROUND, FOREGROUND, IGNORE, PixelClasses
from pipeline.pseudo_labels.store import PseudoLabelStore

LIKELY: Final = 0.5  # a pixel that is more likely foreground than not counts as foreground of an image
LEAST_SPREAD: Final = 0.01  # of the shares of foreground, in [0, 1]; below, they tell images apart by noise


def foreground_shares(store: PseudoLabelStore) -> Tensor | None:
    """Return the share of each image's map that is foreground, float32 (N,) in [0, 1], in the order of the store.

    None where all images have as good as the same share, which tells no class.
    """
    maps = (store.read(image_id).cam for image_id in store.image_ids)
    shares = torch.tensor([float((each >= LIKELY).mean()) for each in maps])
    return shares if float(shares.max() - shares.min()) >= LEAST_SPREAD else None


@dataclass(frozen=True)
class OwnLabels:
    """Labels uint8 (H, W) and the map that they come from, float16 (h, w), as `PixelLabels` has them."""

    labels: npt.NDArray[np.uint8]
    cam: npt.NDArray[np.float16]


class OwnPixelLabels:
    """A store's pixel labels beside what the model says that its images are.

    An image that is taken for the background class is background all over. Where pixels are told apart by image class,
    foreground is of the image's, and ignored where nobody says which that is.

    Args:
        store: of labels background and foreground, whatever it calls the latter.
        labels: the class index of each image in the order of the store, or below 0 where there is none, int64 (N,).
        background_class_idx: the class without foreground, if there is one.
        pixel_classes: what pixels are told apart as.
    """

    def __init__(
        self,
        store: PseudoLabelStore,
        labels: Tensor,
        *,
        background_class_idx: int | None,
        pixel_classes: PixelClasses,
    ) -> None:
        self.store = store
        self.classes = dict(zip(store.image_ids, labels.tolist(), strict=True))
        self.background_class_idx = background_class_idx
        self.pixel_classes = pixel_classes

    def describe(self) -> dict[str, Any]:
        """Return all that determines the labels."""
        own = {"labels": list(self.classes.values()), "background": self.background_class_idx}
        return self.store.describe() | {"own": own, "pixel_classes": self.pixel_classes.value}

    def with_labels(self, labels: Tensor) -> "OwnPixelLabels":
        """Return the same pixel labels beside other labels of images, int64 (N,)."""
        return OwnPixelLabels(
            self.store, labels, background_class_idx=self.background_class_idx, pixel_classes=self.pixel_classes
        )

    def read(self, image_id: str) -> PixelLabels:
        """Return the labels of an image."""
        stored = self.store.read(image_id)
        known = np.isin(stored.labels, (BACKGROUND, IGNORE))
        labels = np.where(known, stored.labels, self._foreground(image_id)).astype(np.uint8)
        if self.classes[image_id] == self.background_class_idx:
            labels = np.full_like(labels, BACKGROUND)
        return OwnLabels(labels, stored.cam)

    def _foreground(self, image_id: str) -> int:
        if self.pixel_classes is PixelClasses.FOREGROUND:
            return FOREGROUND
        class_idx = self.classes[image_id]
        return IGNORE if class_idx <= NO_LABEL else 1 + class_idx
