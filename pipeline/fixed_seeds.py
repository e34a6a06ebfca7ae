"""Fixed seeds: the same few pixels of each image all along, to compare with those drawn anew in each step."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.config import PixelCAMParams
from pipeline.drawing import keep_drawn
from pipeline.resizing import resize_map
from pipeline.seeding import make_generator
from pipeline.training_set import PixelLabels, PixelLabelSource


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
