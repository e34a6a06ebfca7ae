"""What a teacher must do without while it trains, so that it learns to look at more than the most telling part."""

import math
from typing import Final, NamedTuple

import torch
from torch import Tensor

from pipeline.collectives import gather_rows, joint_mean, own_share, rand_rows
from pipeline.processes import count

HAS_CELLS: Final = (None, 16, 32, 44, 56)  # pixels of a cell's side, in images of HAS_IMAGE_SIZE; None hides nothing
HAS_IMAGE_SIZE: Final = 224
HAS_HIDDEN: Final = 0.5  # probability that a cell is hidden
ADL_DROP_RATE: Final = 0.75  # probability of the drop mask, else the importance map
ADL_THRESHOLD: Final = 0.9  # gamma, as a share of the attention's maximum


class CutMixed(NamedTuple):
    """Images that each hold a box of another.

    Attributes:
        images: float (B, 3, H, W).
        partner: int64 (B,), which image of the batch, of all processes' shares, the box comes from.
        share: of the area that is still the image's own, in [0, 1].
    """

    images: Tensor
    partner: Tensor
    share: float


def hide_cells(images: Tensor, generator: torch.Generator) -> Tensor:
    """Hide random cells of each square image, float (B, 3, S, S), behind the mean colour of the batch.

    The size of the cells is drawn for the batch, in proportion to that of the images. The mean is the batch's instead
    of the training set's. Source: Hide-and-Seek (mixed patch sizes), Kumar Singh and Lee, ICCV 2017.
    """
    cell = HAS_CELLS[int(torch.randint(len(HAS_CELLS), (), generator=generator, device=generator.device))]
    if cell is None:
        return images
    side = max(1, round(cell * images.shape[3] / HAS_IMAGE_SIZE))
    return hide_cells_of(images, side=side, generator=generator)


def hide_cells_of(images: Tensor, *, side: int, generator: torch.Generator) -> Tensor:
    """Hide each cell of `side` x `side` pixels with probability 1/2; those at the right and lower border may be cut."""
    height, width = images.shape[-2:]
    grid = (len(images), math.ceil(height / side), math.ceil(width / side))
    hidden = rand_rows(*grid, generator=generator) < HAS_HIDDEN
    mask = hidden.repeat_interleave(side, dim=1).repeat_interleave(side, dim=2)[:, None, :height, :width]
    return torch.where(mask, joint_mean(images.mean(dim=(0, 2, 3), keepdim=True)), images)


def paste_boxes(images: Tensor, generator: torch.Generator) -> CutMixed:
    """Paste into each image, float (B, 3, H, W), a box of another image of the batch, at the same place for all.

    The box has 1 - lambda of the area, lambda ~ Beta(1, 1), and its centre lies anywhere, so that the border may cut
    it; `share` is what is truly left. Source: CutMix, Yun et al., ICCV 2019.
    """
    device = generator.device
    partner = own_share(torch.randperm(count() * len(images), generator=generator, device=device))
    # Beta(1, 1) is the uniform distribution.
    kept, centre_y, centre_x = torch.rand(3, generator=generator, device=device).tolist()
    side = math.sqrt(1 - kept)
    rows = _span(centre_y, side, images.shape[2])
    columns = _span(centre_x, side, images.shape[3])
    mixed = images.clone()
    mixed[:, :, rows, columns] = gather_rows(images[:, :, rows, columns])[partner]
    pasted = (rows.stop - rows.start) * (columns.stop - columns.start)
    return CutMixed(mixed, partner, 1 - pasted / (images.shape[2] * images.shape[3]))


def _span(centre: float, side: float, size: int) -> slice:
    """Return the pixels of an interval of length `side` around `centre`, both in [0, 1], within `size` pixels."""
    half = int(side * size) // 2
    middle = int(centre * size)
    return slice(max(0, middle - half), min(size, middle + half))


def drop_or_weigh(features: Tensor, generator: torch.Generator) -> Tensor:
    """Either zero the cells with the highest attention or weigh all cells by it, features (B, C, h, w) alike in shape.

    The attention is the mean over channels. Drawn for the batch. Source: attention-based dropout layer (ADL), Choe and
    Shim, CVPR 2019.
    """
    attention = features.float().mean(dim=1, keepdim=True)
    kept = attention <= ADL_THRESHOLD * attention.amax(dim=(2, 3), keepdim=True)
    drop = torch.rand((), generator=generator, device=generator.device) < ADL_DROP_RATE
    return features * torch.where(drop, kept.float(), attention.sigmoid()).to(features.dtype)
