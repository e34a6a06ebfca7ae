"""The teacher: an image classifier, trained on image labels alone, whose CAM says roughly where."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from pipeline.encoders.encoder import Encoder, build_encoder, rebuild_encoder
from pipeline.encoders.image_heads import ImageHead, build_image_head
from pipeline.models.files import ModelInfo, load_weights, read_info
from pipeline.params.config import Params
from pipeline.params.vocabulary import ImageHeadName, Weights
from pipeline.runtime.seeding import global_seed


class TeacherOutput(NamedTuple):
    """Image logits, float (B, K), and what the image head adds to the loss, float scalar."""

    image_logits: Tensor
    penalty: Tensor


class Teacher(nn.Module):
    """An encoder with an image head."""

    def __init__(self, encoder: Encoder, image_head: ImageHead) -> None:
        super().__init__()
        self.encoder = encoder
        self.image_head = image_head

    def forward(self, images: Tensor, feature_filter: Callable[[Tensor], Tensor] | None = None) -> TeacherOutput:
        """Classify images, float (B, 3, H, W) in [0, 1]; a filter may change their features (B, C, h, w) on the way."""
        features = self.encoder(images)
        if feature_filter is not None:
            features = feature_filter(features)
        return TeacherOutput(self.image_head(features), self.image_head.penalty(features))


def build_teacher(encoder: Encoder, *, image_head: ImageHeadName, classes: int, seed: int) -> Teacher:
    """Put a new image head, drawn from `seed`, on an encoder."""
    with global_seed(seed, "image head"):
        return Teacher(encoder, build_image_head(image_head, channels=encoder.channels, classes=classes))


def start_teacher(params: Params, *, classes: int) -> Teacher:
    """Build a teacher as its training starts: an encoder with its initial weights, and a new image head.

    Raises:
        PixelCAMError: the encoder is unfit, or its weights cannot be had.
    """
    encoder = build_encoder(
        params.encoder.name,
        input_size=params.model.input_size,
        output_stride=params.model.output_stride,
        weights=params.encoder.weights,
        seed=params.seed,
    )
    return build_teacher(encoder, image_head=params.model.image_head, classes=classes, seed=params.seed)


def load_teacher(folder: Path, weights: Weights = Weights.SELECTED) -> tuple[Teacher, ModelInfo]:
    """Read a teacher's folder; the model comes in evaluation mode, on the CPU.

    Raises:
        PixelCAMError: a file is missing, damaged, of another schema, or its weights do not fit or are not finite.
    """
    info = read_info(folder)
    encoder = rebuild_encoder(info.encoder)
    teacher = Teacher(encoder, build_image_head(info.image_head, channels=encoder.channels, classes=len(info.classes)))
    load_weights(teacher, folder, weights)
    return teacher.eval(), info
