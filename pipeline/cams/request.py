"""What every CAM method is asked and what it answers, so that all of them can be called alike."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from torch import Tensor

from pipeline.encoders.encoder import Encoder
from pipeline.encoders.image_heads import ImageHead
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import CamMethod

ROUNDING: Final = 1e-6  # what varies by less, relative to its size, is constant but for float32 rounding


@dataclass(frozen=True, kw_only=True)
class CamRequest:
    """A classifier in evaluation mode whose parameters need no gradient, images, and the class to look for in each.

    Attributes:
        encoder: gives the feature maps.
        head: maps the last feature map to image logits.
        images: float (B, 3, H, W) in [0, 1].
        class_idx: int64 (B,).
        layers: depths, see `Encoder.forward_layers`.
    """

    encoder: Encoder
    head: ImageHead
    images: Tensor
    class_idx: Tensor
    layers: tuple[int, ...]

    def select(self, scores: Tensor) -> Tensor:
        """Return of scores (B, K, ...) those of each image's class, (B, ...)."""
        return scores[torch.arange(scores.shape[0], device=scores.device), self.class_idx]

    @property
    def only_last(self) -> bool:
        """Tell whether no depth but the last is asked for; raise a `PixelCAMError` if there is no such depth."""
        depths = [self.encoder.resolve_layer(layer) for layer in self.layers]
        return set(depths) == {self.encoder.depths - 1}


class RawCams(NamedTuple):
    """Maps as the formula gives them, float (B, h_i, w_i), one for each layer asked for; and image logits (B, K)."""

    maps: list[Tensor]
    logits: Tensor


CamFunction = Callable[[CamRequest], RawCams]


def require_last_layer(request: CamRequest, method: CamMethod) -> None:
    """Raise a `PixelCAMError` where a method that knows no layers is asked for one."""
    if not request.only_last:
        raise PixelCAMError(f"cam.layers: {method} makes no map per layer, got {list(request.layers)}; use [-1]")


def normalize_cam(cam: Tensor) -> Tensor:
    """Stretch each map of (B, h, w) to [0, 1]; a constant map becomes zeros."""
    low, high = cam.amin(dim=(1, 2), keepdim=True), cam.amax(dim=(1, 2), keepdim=True)
    spread = high - low
    constant = spread <= ROUNDING * torch.maximum(high.abs(), low.abs())
    return torch.where(constant, 0, (cam - low) / torch.where(constant, 1, spread))
