"""Masks in the place of pseudo-labels, for the fully supervised upper bound."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.errors import PixelCAMError
from pipeline.images import read_mask
from pipeline.labels import BACKGROUND, FOREGROUND, IGNORE
from pipeline.manifest import Manifest
from pipeline.resizing import resize_labels


@dataclass(frozen=True)
class TrueLabels:
    """Labels uint8 (S, S): 0 background, 1 foreground, 255 ignore; and a map float16 (S, S), 1 on the foreground."""

    labels: npt.NDArray[np.uint8]
    cam: npt.NDArray[np.float16]


class MaskLabels:
    """Read the masks of a manifest's images as pixel labels, at one size.

    Args:
        manifest: the training images.
        size: side of the labels, in pixels.
        background_class_idx: the class whose images hold no region of interest, and need no mask.

    Raises:
        PixelCAMError: an image has no mask.
    """

    def __init__(self, manifest: Manifest, *, size: int, background_class_idx: int | None) -> None:
        self.root = manifest.root
        self.size = size
        self.rows = {row.image: row for row in manifest.rows}
        unknown = [row.image for row in manifest.rows if not row.mask and row.class_idx != background_class_idx]
        if unknown:
            raise PixelCAMError(
                f"train_pixelcam.approach: 'supervised' needs masks, and {len(unknown)} training images have none "
                f"({unknown[0]}); give them masks or choose another approach"
            )

    def describe(self) -> dict[str, Any]:
        """Return what determines the labels, beside the masks' checksums in the manifest."""
        return {"masks": True, "size": self.size}

    def read(self, image_id: str) -> TrueLabels:
        """Return the labels of an image.

        Raises:
            PixelCAMError: its mask cannot be read.
        """
        row = self.rows[image_id]
        labels = np.full((self.size, self.size), BACKGROUND, dtype=np.uint8)
        if row.mask:
            labels[self._read(row.mask)] = FOREGROUND
        if row.ignore_mask:
            labels[self._read(row.ignore_mask)] = IGNORE
        return TrueLabels(labels, (labels == FOREGROUND).astype(np.float16))

    def _read(self, name: str) -> npt.NDArray[np.bool_]:
        mask = torch.from_numpy(read_mask(self.root / name))
        return resize_labels(mask, (self.size, self.size)).numpy()
