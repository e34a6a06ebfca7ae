"""Vary how strongly an image is stained, stain by stain, as laboratories do.

Source: "Quantifying the effects of data augmentation and stain color normalization in convolutional neural networks for
computational pathology", Medical Image Analysis 2019, with the stains of "Quantification of histochemical staining by
color deconvolution", 2001.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

FloatArray = npt.NDArray[np.float64]

# How much of red, green and blue light each stain takes: haematoxylin, eosin, and a third (there diaminobenzidine) that
# takes up what the other two leave.
STAINS: Final = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
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
