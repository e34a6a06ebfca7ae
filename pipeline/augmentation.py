"""Random views of one training image; its pseudo-labels and CAM follow by the same geometric draw."""

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from pipeline.config import AugmentationParams
from pipeline.stain_augmentation import change_stains, draw_stain_change
from pipeline.torchvision_operators import ensure_torchvision_imports

ensure_torchvision_imports()
from torchvision.transforms import functional as colour  # noqa: E402 - after torchvision can be imported

UInt8Array = npt.NDArray[np.uint8]


class Augmentation:
    """One random draw, applied alike to everything that belongs to an image.

    Args:
        params: ranges of the draw.
        size: side of the result, in pixels.
        generator: drawn from once, here.
    """

    def __init__(self, params: AugmentationParams, *, size: int, generator: torch.Generator) -> None:
        self._params = params
        self._size = size
        crop_y, crop_x, turns, flip_y, flip_x, *colours = torch.rand(
            9, generator=generator, dtype=torch.float64
        ).tolist()
        self._crop = (crop_y, crop_x)
        self._turns = int(turns * 4) if params.rotate else 0
        self._flips = [axis for axis, chance in ((0, flip_y), (1, flip_x)) if params.flip and chance < 0.5]
        self._colours = [2 * value - 1 for value in colours]  # in [-1, 1]
        self._colour_order = torch.randperm(4, generator=generator).tolist()
        # Last, and only if asked for, so that all other draws are the same with it and without.
        self._stain_change = draw_stain_change(params.stain, generator) if params.stain > 0 else None

    def geometry(self, values: Tensor) -> Tensor:
        """Crop, turn and flip: (H, W, ...) of at least `size` on each side -> (size, size, ...), values unchanged."""
        height, width = values.shape[:2]
        top = int(self._crop[0] * (height - self._size + 1))
        left = int(self._crop[1] * (width - self._size + 1))
        view = values.numpy()[top : top + self._size, left : left + self._size]
        # By NumPy, since torch would start threads of its own in each thread that calls this.
        return torch.from_numpy(np.flip(np.rot90(view, self._turns), tuple(self._flips)).copy())

    def colours(self, image: UInt8Array) -> UInt8Array:
        """Change stains, then in a random order brightness, contrast, saturation and hue of a uint8 image (H, W, 3)."""
        stained = image if self._stain_change is None else change_stains(image, self._stain_change)
        p, picture = self._params, Image.fromarray(stained)
        steps = (
            (colour.adjust_brightness, 1 + p.brightness * self._colours[0], p.brightness),
            (colour.adjust_contrast, 1 + p.contrast * self._colours[1], p.contrast),
            (colour.adjust_saturation, 1 + p.saturation * self._colours[2], p.saturation),
            (colour.adjust_hue, p.hue * self._colours[3], p.hue),
        )
        for which in self._colour_order:
            adjust, amount, strength = steps[which]
            if strength > 0:
                picture = adjust(picture, amount)
        return np.asarray(picture)
