"""Pseudo-labels: a CAM thresholded into pixel labels, and the few pixels of them that one training step learns from."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.labels import BACKGROUND, FOREGROUND, IGNORE


def threshold_cam(cam: Tensor, *, foreground_threshold: float, background_fraction: float) -> Tensor:
    """Turn CAMs into pseudo-labels: foreground where high, background where lowest, ignore in between.

    Pixels whose CAM equals the highest value of the background share are background too, so that the choice never
    depends on a pixel's position. Foreground wins where both apply. A constant CAM says nothing and is ignored.

    Args:
        cam: float (B, H, W) in [0, 1].
        foreground_threshold: pixels with a CAM of at least this are foreground.
        background_fraction: share of each image, in (0, 1), with the lowest CAM that is background.

    Returns:
        uint8 (B, H, W): 0 background, 1 foreground, 255 ignore.
    """
    flat = cam.flatten(1)
    count = max(1, round(background_fraction * flat.shape[1]))
    highest_background = flat.kthvalue(count, dim=1).values[:, None, None]
    labels = torch.full_like(cam, IGNORE, dtype=torch.uint8)
    labels[cam <= highest_background] = BACKGROUND
    labels[cam >= foreground_threshold] = FOREGROUND
    constant = flat.amin(1) == flat.amax(1)
    labels[constant] = IGNORE
    return labels


@dataclass(frozen=True)
class DrawnPixels:
    """Pixels drawn for one step.

    Attributes:
        index: int64 (B, P), positions in the flattened (H, W) of the labels.
        target: int64 (B, P): 0 background, 1 foreground, 255 where an image has no pixel of that label to draw.
    """

    index: Tensor
    target: Tensor


def draw_pixels(
    pseudo_labels: Tensor,
    cam: Tensor,
    *,
    foreground_pixels: int,
    background_pixels: int,
    generator: torch.Generator,
) -> DrawnPixels:
    """Draw pixels, with replacement: foreground ones in proportion to their CAM, background ones uniformly.

    Args:
        pseudo_labels: uint8 (B, H, W): 0, 1, 255; ignored pixels are never drawn.
        cam: float (B, H, W) in [0, 1].
        foreground_pixels: how many per image.
        background_pixels: how many per image.
        generator: on the device of the labels.

    Source: the sampling of Sec. 3 of arXiv 2503.24135, anew at every step.
    """
    labels = pseudo_labels.flatten(1)
    foreground = (labels == FOREGROUND).float() * cam.flatten(1).float()
    background = (labels == BACKGROUND).float()
    fg_index, fg_exists = _draw(foreground, foreground_pixels, generator)
    bg_index, bg_exists = _draw(background, background_pixels, generator)
    target = torch.cat(
        [
            torch.where(fg_exists, FOREGROUND, IGNORE).expand(-1, foreground_pixels),
            torch.where(bg_exists, BACKGROUND, IGNORE).expand(-1, background_pixels),
        ],
        dim=1,
    )
    return DrawnPixels(torch.cat([fg_index, bg_index], dim=1), target)


def _draw(weights: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw `count` positions per row of weights (B, N); return them and, (B, 1), whether the row had any to draw."""
    cumulative = weights.double().cumsum(dim=1)
    total = cumulative[:, -1:]
    points = torch.rand(len(weights), count, generator=generator, device=weights.device, dtype=torch.float64) * total
    index = torch.searchsorted(cumulative, points, right=True)  # never lands on a position of weight zero
    return index.clamp_max(weights.shape[1] - 1), total > 0
