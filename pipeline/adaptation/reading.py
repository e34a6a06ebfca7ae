"""What a model says about all images of a domain: what methods label them by, and what watches the model."""

from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor

from pipeline.data.scored_set import ScoredSet
from pipeline.models.pixelcam import PixelCAM
from pipeline.models.teacher import Teacher
from pipeline.runtime.collectives import interleaved
from pipeline.runtime.devices import to_device


@dataclass(frozen=True, eq=False)
class Reading:
    """A model on N images, on the CPU.

    Attributes:
        features: float32 (N, C), the mean of the last feature map over its cells.
        image_logits: float32 (N, K).
    """

    features: Tensor
    image_logits: Tensor

    @property
    def probabilities(self) -> Tensor:
        """Return the class probabilities, float32 (N, K)."""
        return self.image_logits.softmax(dim=1)


@torch.no_grad()
def read_images(model: Teacher | PixelCAM, images: ScoredSet, fabric: Fabric) -> Reading:
    """Read all images, in their order; of several processes each reads its share, and gets the reading of all.

    Args:
        model: on the device; is put into evaluation mode.
        images: at the model's input size; nothing but pixels is looked at.
        fabric: device and precision.
    """
    model.eval()
    parts: list[tuple[Tensor, Tensor]] = []
    for batch in images.share():
        with fabric.autocast():
            features = model.encoder(to_device(batch.images, fabric.device))
            logits = model.image_head(features)
        parts.append((features.float().mean(dim=(2, 3)).cpu(), logits.float().cpu()))
    features, image_logits = (torch.cat(part) for part in zip(*interleaved(parts), strict=True))
    return Reading(features, image_logits)
