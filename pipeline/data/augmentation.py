"""Random views of one training image; its pseudo-labels and CAM follow by the same geometric draw.

Source: "Quantifying the effects of data augmentation and stain color normalization in convolutional neural networks for
computational pathology", Medical Image Analysis 2019, with the stains of "Quantification of histochemical staining by
color deconvolution", 2001.
"""

import math
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from pipeline.data.maps import resize_labels, resize_map
from pipeline.params.config import AugmentationParams
from pipeline.runtime.torchvision_operators import ensure_torchvision_imports

ensure_torchvision_imports()
from torchvision.transforms.v2 import functional  # noqa: E402 - after torchvision can be imported

FloatArray = npt.NDArray[np.float64]

# How much of red, green and blue light each stain takes: haematoxylin, eosin, and a third (there diaminobenzidine) that
# takes up what the other two leave.
STAINS: Final = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
SHARP: Final = 0.1  # pixels; a Gaussian blur of a smaller standard deviation changes nothing
BLUR_REACH: Final = 3  # standard deviations that a blur's kernel reaches to each side
SHIFT: Final = 0.1  # optical density (natural logarithm) that a shift of 1 adds to an amount; nuclei have 1 to 2


@dataclass(frozen=True)
class StainChange:
    """What becomes of the amounts of the three stains: times `scales`, plus `SHIFT` times `shifts`."""

    scales: tuple[float, float, float]
    shifts: tuple[float, float, float]


def draw_stain_change(strength: float, generator: torch.Generator) -> StainChange:
    """Draw scales from 1 - strength to 1 + strength and shifts from -strength to strength, uniformly."""
    draws = torch.rand(2, 3, generator=generator, dtype=torch.float64)
    (h, e, r), (shift_h, shift_e, shift_r) = ((2 * draws - 1) * strength).tolist()
    return StainChange((1 + h, 1 + e, 1 + r), (shift_h, shift_e, shift_r))


def draw_up_to(largest: float, generator: torch.Generator) -> float:
    """Draw a number between 0 and `largest`, uniformly."""
    return largest * torch.rand((), generator=generator, dtype=torch.float64).item()


def change_stains(image: Tensor, change: StainChange) -> Tensor:
    """Return an image, uint8 (3, H, W), as if it had been stained otherwise; on its device.

    Its optical densities are taken apart into amounts of the stains, these are changed, and put together again; all of
    that is one linear map of the densities.
    """
    matrix: FloatArray = np.linalg.inv(STAINS) @ np.diag(change.scales) @ STAINS
    offset: FloatArray = SHIFT * np.array(change.shifts) @ STAINS
    # A pixel of value 0 would be infinitely dense; it counts as 1.
    densities = image.permute(1, 2, 0).clamp(min=1).float().div_(255).log_().neg_()
    changed = densities @ torch.as_tensor(matrix, dtype=torch.float32, device=image.device)
    changed += torch.as_tensor(offset, dtype=torch.float32, device=image.device)
    values = changed.neg_().exp_().mul_(255).round_().clamp_(max=255)
    return values.to(torch.uint8).permute(2, 0, 1)


def _enlarged(view: Tensor, size: int) -> Tensor:
    """Resize a view, (S, S, ...), to (size, size, ...): labels by the nearest pixel, all else bilinearly."""
    if len(view) == size:
        return view
    if view.ndim == 2 and not view.is_floating_point():
        return resize_labels(view, (size, size))
    channels = view.unsqueeze(0) if view.ndim == 2 else view.permute(2, 0, 1)
    resized = resize_map(channels.float(), (size, size))
    values = resized if view.is_floating_point() else resized.round_().to(view.dtype)
    return values.squeeze(0) if view.ndim == 2 else values.permute(1, 2, 0)


Picture = TypeVar("Picture", Tensor, Image.Image)


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
        self._blur = draw_up_to(params.blur, generator) if params.blur > 0 else 0.0
        self._side = round(size / (1 + draw_up_to(params.zoom, generator))) if params.zoom > 0 else size

    def geometry(self, values: Tensor) -> Tensor:
        """Crop, turn and flip: (H, W, ...) of at least `size` on each side -> (size, size, ...).

        Values stay as they are but where the view is zoomed: then images, uint8 (H, W, 3), and maps, float (H, W), are
        interpolated bilinearly, and labels, uint8 (H, W), by the nearest pixel.
        """
        height, width = values.shape[:2]
        top = int(self._crop[0] * (height - self._side + 1))
        left = int(self._crop[1] * (width - self._side + 1))
        view = values[top : top + self._side, left : left + self._side]
        return _enlarged(view, self._size).rot90(self._turns).flip(self._flips)

    def colours(self, image: Tensor) -> Tensor:
        """Change stains, then in a random order brightness, contrast, saturation and hue of a view; then blur it.

        All on the view's device.

        A CPU computes by Pillow, which rounds to 8 bits after each change; elsewhere nothing is rounded in between.

        Args:
            image: uint8 (3, H, W).

        Returns:
            float32 (3, H, W) in [0, 1].
        """
        stained = image if self._stain_change is None else change_stains(image, self._stain_change)
        if image.device.type != "cpu":
            return self._blurred(self._adjust(stained.float().div_(255)))
        picture = self._adjust(Image.fromarray(stained.permute(1, 2, 0).numpy()))
        return self._blurred(torch.from_numpy(np.array(picture)).float().div_(255).permute(2, 0, 1))

    def _blurred(self, image: Tensor) -> Tensor:
        if self._blur < SHARP:
            return image
        reach = math.ceil(BLUR_REACH * self._blur)
        blurred: Tensor = functional.gaussian_blur(image, [2 * reach + 1] * 2, [self._blur] * 2)
        return blurred

    def _adjust(self, picture: Picture) -> Picture:
        p = self._params
        steps = (
            (functional.adjust_brightness, 1 + p.brightness * self._colours[0], p.brightness),
            (functional.adjust_contrast, 1 + p.contrast * self._colours[1], p.contrast),
            (functional.adjust_saturation, 1 + p.saturation * self._colours[2], p.saturation),
            (functional.adjust_hue, p.hue * self._colours[3], p.hue),
        )
        for which in self._colour_order:
            adjust, amount, strength = steps[which]
            if strength > 0:
                picture = adjust(picture, amount)
        return picture
