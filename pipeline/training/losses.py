"""The pixel loss: logits read at a few drawn pixels, scored by partial cross-entropy."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from pipeline.params.vocabulary import IGNORE
from pipeline.runtime.collectives import part_of_mean


def logits_at_pixels(pixel_logits: Tensor, index: Tensor, *, size: tuple[int, int]) -> Tensor:
    """Read logits at full-resolution pixels, bilinearly, without enlarging the whole map.

    Equals enlarging to `size` (bilinear, corners not aligned) and picking the pixels. Written with gathers, whose
    gradient torch can keep deterministic on a GPU, as it cannot that of `interpolate`.

    Args:
        pixel_logits: float (B, P, h, w).
        index: int64 (B, N), positions in a flattened map of `size`.
        size: height and width, in pixels, that the positions refer to.

    Returns:
        float (B, N, P).
    """
    height, width = pixel_logits.shape[-2:]
    rows = torch.div(index, size[1], rounding_mode="floor")
    columns = index % size[1]
    y = ((rows + 0.5) * (height / size[0]) - 0.5).clamp(0, height - 1)
    x = ((columns + 0.5) * (width / size[1]) - 0.5).clamp(0, width - 1)
    top, left = y.floor().long(), x.floor().long()
    bottom, right = (top + 1).clamp_max(height - 1), (left + 1).clamp_max(width - 1)
    down, across = (y - top).unsqueeze(-1), (x - left).unsqueeze(-1)
    flat = pixel_logits.flatten(2).transpose(1, 2)  # (B, h*w, P)

    def at(row: Tensor, column: Tensor) -> Tensor:
        return flat.gather(1, (row * width + column).unsqueeze(-1).expand(-1, -1, flat.shape[-1]))

    upper = at(top, left) * (1 - across) + at(top, right) * across
    lower = at(bottom, left) * (1 - across) + at(bottom, right) * across
    return upper * (1 - down) + lower * down


def partial_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Average the cross-entropy over the labelled pixels of a batch; ignored ones do not count.

    Args:
        logits: float (B, N, P).
        target: int64 (B, N): a label below P, or 255 to ignore.

    Returns:
        a scalar; zero, with a zero gradient, where nothing is labelled. Of several processes each gets its part of the
        mean over the labelled pixels of all, so that the mean over processes is that mean.

    Source: partial cross-entropy, Sec. 3 of arXiv 2503.24135.
    """
    total = cross_entropy(logits.flatten(0, 1).float(), target.flatten(), ignore_index=IGNORE, reduction="sum")
    labelled = (target != IGNORE).sum()
    return part_of_mean(total / labelled.clamp_min(1), over=labelled)
