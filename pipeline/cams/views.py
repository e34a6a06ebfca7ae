"""Views of an image, at several scales and turned by the symmetries of the square, whose maps are averaged to one."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import pad

from pipeline.data.maps import resize_map, scale_images
from pipeline.params.config import MapParams
from pipeline.params.errors import PixelCAMError

PLAIN: Final = MapParams(scales=(1.0,), symmetries=1, margin=0.0)
GRID: Final = 32  # pixels; a margin is a multiple of it, so that it is whole cells of any encoder


def read_views(
    images: Tensor,
    params: MapParams,
    *,
    image_scale: float,
    section: str,
    read: Callable[[Tensor], tuple[Tensor, Tensor]],
) -> tuple[list[Tensor], Tensor]:
    """Read the map of every view of a batch, and the image logits of the plain one.

    Args:
        images: float (B, 3, H, W), `image_scale` times as large as the model's input.
        params: which views.
        image_scale: see above; so that larger views have their detail.
        section: of the params, for errors.
        read: gives maps (B, h, w), or several of each image (B, C, h, w), and image logits (B, K) of images.

    Returns:
        maps (B, ..., h_i, w_i) as the images lie, one for each view; and image logits (B, K) at the model's input size.

    Raises:
        PixelCAMError: the model takes no images of a scale.
    """
    maps: list[Tensor] = []
    plain: Tensor | None = None
    for scale, symmetry in product(params.scales, range(params.symmetries)):
        try:
            view = scale_images(images, scale / image_scale)
            margin = round(params.margin * view.shape[-1] / GRID) * GRID
            seen = _with_margin(turn(view, symmetry), margin)
            found, logits = read(seen)
            found = _without_margin(found, margin, seen.shape[-2:])
        except (AssertionError, RuntimeError) as error:
            if scale == 1 and params.margin == 0:
                raise
            raise PixelCAMError(
                f"{section}.scales: the encoder takes no images at scale {scale} with margin {params.margin} "
                f"({error}); use [1.0] and margin 0.0"
            ) from error
        maps.append(turn_back(found, symmetry))
        if scale == 1 and symmetry == 0 and params.margin == 0:
            plain = logits
    return maps, read(scale_images(images, 1 / image_scale))[1] if plain is None else plain


def _with_margin(images: Tensor, margin: int) -> Tensor:
    """Continue images (B, 3, H, W) by `margin` pixels on each side, mirrored."""
    return pad(images, (margin, margin, margin, margin), mode="reflect") if margin else images


def _without_margin(maps: Tensor, margin: int, size: Sequence[int]) -> Tensor:
    """Cut `margin` pixels of images of a size off the maps (B, ..., h, w) of these, on each side."""
    rows, columns = (round(cells * margin / side) for cells, side in zip(maps.shape[-2:], size, strict=True))
    return maps[..., rows : maps.shape[-2] - rows, columns : maps.shape[-1] - columns]


def turn(images: Tensor, symmetry: int) -> Tensor:
    """Apply one of the eight symmetries of the square to images (..., H, W); 0 leaves them as they are.

    The bits of `symmetry` mirror left and right, mirror top and bottom, and swap both axes first.
    """
    turned = images.transpose(-1, -2) if symmetry & 4 else images
    return turned.flip([axis for bit, axis in ((1, -1), (2, -2)) if symmetry & bit])


def turn_back(maps: Tensor, symmetry: int) -> Tensor:
    """Undo `turn` on maps (..., H, W)."""
    mirrored = maps.flip([axis for bit, axis in ((1, -1), (2, -2)) if symmetry & bit])
    return mirrored.transpose(-1, -2) if symmetry & 4 else mirrored


def average_maps(maps: Sequence[Tensor]) -> Tensor:
    """Average maps (B, h_i, w_i), or (B, C, h_i, w_i), on the finest grid among them."""
    if len(maps) == 1:
        return maps[0]
    size = max((each.shape[-2:] for each in maps), key=lambda shape: shape[0] * shape[1])
    return torch.stack([resize_map(each, size) for each in maps]).mean(dim=0)
