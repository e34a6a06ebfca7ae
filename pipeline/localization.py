"""What a model that localizes takes and gives: the contract between data, models and evaluation, which know no more."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Localization:
    """What a model says about a batch of images.

    Attributes:
        image_logits: float32 (B, K), one logit per image class.
        maps: float32 (B, H, W) in [0, 1], higher is foreground, at any resolution.
    """

    image_logits: Tensor
    maps: Tensor


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
