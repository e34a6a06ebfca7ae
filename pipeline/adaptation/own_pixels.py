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


def foreground_shares(store: PseudoLabelStore) -> Tensor:
    """Return the share of each image's map that is foreground, float32 (N,) in [0, 1], in the order of the store."""
    maps = (store.read(image_id).cam for image_id in store.image_ids)
    return torch.tensor([float((each >= LIKELY).mean()) for each in maps])


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
        return self.store.describe() | {"own": list(self.classes.values())}

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
