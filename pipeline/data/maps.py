"""What a model that localizes takes and gives, all that data, models and evaluation know of it; and maps resized."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import interpolate


@dataclass(frozen=True, eq=False)
class Localization:
    """What a model says about a batch of images.

    Attributes:
        image_logits: float32 (B, K), one logit per image class.
        maps: float32 (B, H, W) in [0, 1], higher is foreground, at any resolution.
        class_maps: float32 (B, K, H, W) in [0, 1], a map for each image class, whose sum is `maps`; None of a model
            that tells no classes apart by pixels.
    """

    image_logits: Tensor
    maps: Tensor
    class_maps: Tensor | None = None


class Localizer(Protocol):
    """A model ready for evaluation, on its device and in evaluation mode."""

    def __call__(self, images: Tensor, class_idx: Tensor) -> Localization:
        """Classify and localize a batch.

        Args:
            images: float32 (B, 3, H, W) in [0, 1]; the model normalizes them itself.
            class_idx: int64 (B,), the true image class. A teacher takes its CAM for it; PixelCAM's map ignores it.
        """


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluationBatch:
    """Images with everything their scores need. Image tensors may lie on another device than the model.

    Attributes:
        image_ids: names of the images, unique within a domain.
        images: float32 (B, 3, H, W) in [0, 1].
        class_idx: int64 (B,).
        masks: bool (B, S, S), True is region of interest; arbitrary where `has_mask` is False.
        has_mask: bool (B,), False where the truth is unknown, or must not be used for what the batch is for. An image
            known to hold no region of interest has a mask: an empty one.
        ignore: bool (B, S, S), True is a pixel that no score counts; None if every pixel counts.
    """

    image_ids: tuple[str, ...]
    images: Tensor
    class_idx: Tensor
    masks: Tensor
    has_mask: Tensor
    ignore: Tensor | None = None


def resize_map(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Interpolate maps (B, h, w), or (B, C, h, w), bilinearly to (B, ..., *size); the range of values is kept."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    if maps.ndim == 4:
        return interpolate(maps, size=list(size), mode="bilinear", align_corners=False)
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
