"""Bring maps and labels from one grid to another."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate


def resize_map(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Interpolate maps (B, h, w) bilinearly to (B, *size); the range of values is kept."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return interpolate(maps.unsqueeze(1), size=list(size), mode="bilinear", align_corners=False).squeeze(1)


def resize_labels(labels: Tensor, size: Sequence[int]) -> Tensor:
    """Resize maps of labels (..., H, W) to (..., *size) by the nearest pixel centre; no new value appears."""
    rows = ((torch.arange(size[0], device=labels.device) + 0.5) * (labels.shape[-2] / size[0])).long()
    columns = ((torch.arange(size[1], device=labels.device) + 0.5) * (labels.shape[-1] / size[1])).long()
    return labels.index_select(-2, rows).index_select(-1, columns)  # in two steps, which is faster


def scale_images(images: Tensor, factor: float) -> Tensor:
    """Enlarge or shrink images (B, 3, H, W) by a factor, bilinearly, shrinking without aliasing."""
    if factor == 1:
        return images
    size = [round(factor * side) for side in images.shape[-2:]]
    return interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=factor < 1)
