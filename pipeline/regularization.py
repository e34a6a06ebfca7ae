"""What a teacher must do without while it trains, so that it learns to look at more than the most telling part."""

import math
from typing import Final, NamedTuple

import torch
from torch import Tensor

from pipeline.collectives import gather_rows, joint_mean, own_share, rand_rows
from pipeline.processes import count

HAS_CELLS: Final = (16, 32, 44, 56)  # pixels of a cell's side, in images of HAS_IMAGE_SIZE; one batch of five has none
HAS_IMAGE_SIZE: Final = 224
HAS_HIDDEN: Final = 0.5  # probability that a cell is hidden
ADL_DROP_RATE: Final = 0.75  # probability of the drop mask, else the importance map
ADL_THRESHOLD: Final = 0.9  # gamma, as a share of the attention's maximum


class CutMixed(NamedTuple):
    """Images that each hold a box of another.

    Attributes:
        images: float (B, 3, H, W).
        partner: int64 (B,), which image of the batch, of all processes' shares, the box comes from.
        share: of the area that is still the image's own, float scalar in [0, 1].
    """

    images: Tensor
    partner: Tensor
    share: Tensor


def hide_cells(images: Tensor, generator: torch.Generator) -> Tensor:
    """Hide random cells of each square image, float (B, 3, S, S), behind the mean colour of the batch.

    The size of the cells is drawn for the batch, in proportion to that of the images. The mean is the batch's instead
    of the training set's. Source: Hide-and-Seek (mixed patch sizes), Kumar Singh and Lee, ICCV 2017.
    """
    choice = torch.randint(len(HAS_CELLS) + 1, (1,), generator=generator, device=generator.device)
    nothing = torch.zeros_like(images[:, :1], dtype=torch.bool)
    # One mask for each size, since to read the choice a GPU would have to be waited for.
    masks = [nothing, *(cells_mask(images, side=side, generator=generator) for side in _sides(images.shape[3]))]
    hidden = torch.stack(masks).index_select(0, choice).squeeze(0)
    return torch.where(hidden, joint_mean(images.mean(dim=(0, 2, 3), keepdim=True)), images)


def _sides(size: int) -> list[int]:
    """Return how many pixels the sides of cells have in images of so many."""
    return [max(1, round(cell * size / HAS_IMAGE_SIZE)) for cell in HAS_CELLS]


def cells_mask(images: Tensor, *, side: int, generator: torch.Generator) -> Tensor:
    """Draw with probability 1/2 each cell of `side` x `side` pixels, those at the right and lower border cut.

    Returns:
        bool (B, 1, H, W) for images (B, 3, H, W), True in the cells that were drawn.
    """
    height, width = images.shape[-2:]
    grid = (len(images), math.ceil(height / side), math.ceil(width / side))
    drawn = rand_rows(*grid, generator=generator) < HAS_HIDDEN
    return drawn.repeat_interleave(side, dim=1).repeat_interleave(side, dim=2)[:, None, :height, :width]


def paste_boxes(images: Tensor, generator: torch.Generator) -> CutMixed:
    """Paste into each image, float (B, 3, H, W), a box of another image of the batch, at the same place for all.

    The box has 1 - lambda of the area, lambda ~ Beta(1, 1), and its centre lies anywhere, so that the border may cut
    it; `share` is what is truly left. Source: CutMix, Yun et al., ICCV 2019.
    """
    device = generator.device
    partner = own_share(torch.randperm(count() * len(images), generator=generator, device=device))
    # Beta(1, 1) is the uniform distribution.
    kept, centre_y, centre_x = torch.rand(3, generator=generator, device=device).double()
    side = (1 - kept).sqrt()
    rows, columns = (
        _span(centre, side, size) for centre, size in zip((centre_y, centre_x), images.shape[2:], strict=True)
    )
    inside = rows[:, None] & columns
    mixed = torch.where(inside, gather_rows(images)[partner], images)
    return CutMixed(mixed, partner, 1 - inside.float().mean())


def _span(centre: Tensor, side: Tensor, size: int) -> Tensor:
    """Return which of `size` pixels an interval of length `side` around `centre` holds: bool (size,) of [0, 1]."""
    half, middle = (side * size).long() // 2, (centre * size).long()
    pixels = torch.arange(size, device=centre.device)
    return (middle - half <= pixels) & (pixels < middle + half)


def drop_or_weigh(features: Tensor, generator: torch.Generator) -> Tensor:
    """Either zero the cells with the highest attention or weigh all cells by it, features (B, C, h, w) alike in shape.

    The attention is the mean over channels. Drawn for the batch. Source: attention-based dropout layer (ADL), Choe and
    Shim, CVPR 2019.
    """
    attention = features.float().mean(dim=1, keepdim=True)
    kept = attention <= ADL_THRESHOLD * attention.amax(dim=(2, 3), keepdim=True)
    drop = torch.rand((), generator=generator, device=generator.device) < ADL_DROP_RATE
    return features * torch.where(drop, kept.float(), attention.sigmoid()).to(features.dtype)
