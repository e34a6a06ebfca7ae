"""The teacher: an image classifier, trained on image labels alone, whose CAM says roughly where."""

from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from pipeline.config import Params
from pipeline.encoder import Encoder, build_encoder, rebuild_encoder
from pipeline.heads import ImageHead
from pipeline.model_files import ModelInfo, load_weights, read_info
from pipeline.seeding import global_seed


class TeacherOutput(NamedTuple):
    """Image logits, float (B, K)."""

    image_logits: Tensor


class Teacher(nn.Module):
    """An encoder with an image head."""

    def __init__(self, encoder: Encoder, image_head: ImageHead) -> None:
        super().__init__()
        self.encoder = encoder
        self.image_head = image_head

    def forward(self, images: Tensor) -> TeacherOutput:
        """Classify images, float (B, 3, H, W) in [0, 1]."""
        return TeacherOutput(self.image_head(self.encoder(images)))


def build_teacher(encoder: Encoder, *, classes: int, seed: int) -> Teacher:
    """Put a new image head, drawn from `seed`, on an encoder."""
    with global_seed(seed, "image head"):
        return Teacher(encoder, ImageHead(encoder.channels, classes))


def start_teacher(params: Params, *, classes: int) -> Teacher:
    """Build a teacher as its training starts: an encoder with its initial weights, and a new image head.

    Raises:
        PixelCAMError: the encoder is unfit, or its weights cannot be had.
    """
    encoder = build_encoder(
        params.encoder,
        input_size=params.model.input_size,
        output_stride=params.model.output_stride,
        weights=params.model.encoder_weights,
        seed=params.seed,
    )
    return build_teacher(encoder, classes=classes, seed=params.seed)


def load_teacher(folder: Path) -> tuple[Teacher, ModelInfo]:
    """Read a teacher's folder; the model comes in evaluation mode, on the CPU.

    Raises:
        PixelCAMError: a file is missing, damaged, of another schema, or its weights do not fit or are not finite.
    """
    info = read_info(folder)
    encoder = rebuild_encoder(info.encoder)
    teacher = Teacher(encoder, ImageHead(encoder.channels, len(info.classes)))
    load_weights(teacher, folder)
    return teacher.eval(), info
