"""The few pixels that a training step learns from, drawn from pseudo-labels: anew in each step, or once for all."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.data.maps import resize_map
from pipeline.data.training_set import PixelLabels, PixelLabelSource
from pipeline.params.config import PixelCAMParams
from pipeline.params.vocabulary import BACKGROUND, IGNORE, Drawing
from pipeline.runtime.collectives import rand_rows
from pipeline.runtime.seeding import make_generator


@dataclass(frozen=True)
class DrawnPixels:
    """Pixels drawn for one step.

    Attributes:
        index: int64 (B, P), positions in the flattened (H, W) of the labels.
        target: int64 (B, P): the label that was drawn, background or a class of foreground; 255 where an image has no
            such pixel to draw.
    """

    index: Tensor
    target: Tensor


def draw_pixels(
    pseudo_labels: Tensor,
    cam: Tensor,
    *,
    foreground_pixels: int,
    background_pixels: int,
    foreground_drawing: Drawing,
    generator: torch.Generator,
) -> DrawnPixels:
    """Draw pixels, with replacement: background ones uniformly, foreground ones so or in proportion to their CAM.

    Args:
        pseudo_labels: uint8 (B, H, W): 0 background, 255 ignore, foreground else; ignored pixels are never drawn.
        cam: float (B, H, W) in [0, 1].
        foreground_pixels: how many per image.
        background_pixels: how many per image.
        foreground_drawing: with which probability a foreground pixel is drawn.
        generator: on the device of the labels, in the same state in every process.

    Source: the sampling of Sec. 3 of arXiv 2503.24135, anew at every step.
    """
    foreground, background = _weights(pseudo_labels, cam, foreground_drawing)
    fg_index, fg_exists = _draw(foreground, foreground_pixels, generator)
    bg_index, bg_exists = _draw(background, background_pixels, generator)
    target = torch.cat(
        [
            torch.where(fg_exists, pseudo_labels.flatten(1).gather(1, fg_index).long(), IGNORE),
            torch.where(bg_exists, BACKGROUND, IGNORE).expand(-1, background_pixels),
        ],
        dim=1,
    )
    return DrawnPixels(torch.cat([fg_index, bg_index], dim=1), target)


def keep_drawn(
    pseudo_labels: Tensor,
    cam: Tensor,
    *,
    foreground_pixels: int,
    background_pixels: int,
    foreground_drawing: Drawing,
    generator: torch.Generator,
) -> Tensor:
    """Draw pixels as `draw_pixels` does, but without replacement, and ignore all others; take all where there are few.

    Returns:
        uint8 (B, H, W), the labels at the pixels that were drawn, else 255.
    """
    foreground, background = _weights(pseudo_labels, cam, foreground_drawing)
    kept = _draw_distinct(foreground, foreground_pixels, generator)
    kept |= _draw_distinct(background, background_pixels, generator)
    return torch.where(kept.view_as(pseudo_labels), pseudo_labels, IGNORE)


def _weights(pseudo_labels: Tensor, cam: Tensor, drawing: Drawing) -> tuple[Tensor, Tensor]:
    """Return what the probabilities of foreground and of background pixels are in proportion to, float (B, H * W)."""
    labels = pseudo_labels.flatten(1)
    background, ignored = labels == BACKGROUND, labels == IGNORE
    foreground, background = (~(background | ignored)).float(), background.float()
    match drawing:
        case Drawing.CAM:
            return foreground * cam.flatten(1).float(), background
        case Drawing.UNIFORM:
            return foreground, background


def _draw(weights: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw `count` positions per row of weights (B, N); return them and, (B, 1), whether the row had any to draw."""
    cumulative = weights.double().cumsum(dim=1)
    total = cumulative[:, -1:]
    points = rand_rows(len(weights), count, generator=generator, dtype=torch.float64) * total
    index = torch.searchsorted(cumulative, points, right=True)  # never lands on a position of weight zero
    return index.clamp_max(weights.shape[1] - 1), total > 0


def _draw_distinct(weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw up to `count` different positions per row of weights (B, N), one after the other; return where, bool (B, N).

    Of exponential waiting times with these rates, the first `count` are such a draw.
    Source: Efraimidis and Spirakis, Weighted random sampling with a reservoir, Inf. Proc. Letters 97 (5), 2006.
    """
    uniform = torch.rand(weights.shape, generator=generator, device=weights.device, dtype=torch.float64)
    times = torch.where(weights > 0, -torch.log1p(-uniform) / weights, torch.inf)
    first = times.topk(min(count, weights.shape[1]), dim=1, largest=False).indices
    return torch.zeros_like(weights, dtype=torch.bool).scatter_(1, first, value=True) & (weights > 0)


@dataclass(frozen=True, eq=False)
class Seeds:
    """Labels uint8 (H, W) of which all but the seeds are ignored, and the CAM float16 (h, w) that they came from."""

    labels: npt.NDArray[np.uint8]
    cam: npt.NDArray[np.float16]


@dataclass(frozen=True)
class FixedSeeds:
    """Pixel labels of another source, thinned out to as many pixels per image as a step draws.

    Which pixels depends on the seed and the image alone, so that every epoch, in any order, finds the same.
    """

    source: PixelLabelSource
    params: PixelCAMParams
    seed: int

    def describe(self) -> dict[str, Any]:
        """Return what the source says of its labels, and that few of them are kept; params and seed say which."""
        return self.source.describe() | {"fixed": True, "seed": self.seed}

    def read(self, image_id: str) -> PixelLabels:
        """Return the labels of an image at its seeds, ignore elsewhere, and its CAM as it is."""
        stored = self.source.read(image_id)
        labels = torch.from_numpy(stored.labels).unsqueeze(0)
        kept = keep_drawn(
            labels,
            resize_map(torch.from_numpy(stored.cam).float().unsqueeze(0), labels.shape[1:]),
            foreground_pixels=self.params.foreground_pixels,
            background_pixels=self.params.background_pixels,
            foreground_drawing=self.params.foreground_drawing,
            generator=make_generator(self.seed, "fixed seeds", image_id),
        )
        return Seeds(kept.squeeze(0).numpy(), stored.cam)
