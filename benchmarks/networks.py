"""The networks and batches that are measured: untrained weights compute as fast as trained ones."""

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from pipeline.encoders.encoder import Encoder, build_encoder
from pipeline.models.teacher import Teacher, build_teacher
from pipeline.params.config import Params, load_params
from pipeline.params.vocabulary import EncoderWeights, ImageHeadName

CLASSES: Final = 2
PARAMS: Final = Path(__file__).parent.parent / "params.yaml"


class Classifier(nn.Module):
    """Images to logits, as other packages want a model."""

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.encoder = teacher.encoder
        self.head = teacher.image_head

    def forward(self, images: Tensor) -> Tensor:
        """Return image logits, float (B, K)."""
        return self.head(self.encoder(images))  # type: ignore[no-any-return]


@cache
def default_params() -> Params:
    """Return params.yaml as shipped."""
    return load_params(PARAMS)


def make_encoder(name: str, *, input_size: int) -> Encoder:
    """Build an encoder at the default output stride, with random weights."""
    stride = default_params().model.output_stride
    return build_encoder(name, input_size=input_size, output_stride=stride, weights=EncoderWeights.RANDOM, seed=0)


def make_teacher(name: str, *, input_size: int) -> Teacher:
    """Build a teacher whose head is sure enough for its gradients to outweigh what references add to denominators."""
    teacher = build_teacher(
        make_encoder(name, input_size=input_size), image_head=ImageHeadName.GAP, classes=CLASSES, seed=0
    )
    with torch.no_grad():
        for parameter in teacher.image_head.parameters():
            parameter.mul_(100)
    return teacher


def copy_of(module: nn.Module) -> nn.Module:
    """Return a module with weights of its own."""
    return deepcopy(module)


def smooth_maps(count: int, size: int, *, channels: int = 1, cells: int = 7, seed: int = 0) -> Tensor:
    """Return random maps in [0, 1] that vary as slowly as CAMs and tissue do, float32 (count, channels, size, size)."""
    coarse = torch.rand(count, channels, cells, cells, generator=torch.Generator().manual_seed(seed))
    return interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False).clamp(0, 1)


def some_images(count: int, size: int) -> Tensor:
    """Return images, float32 (count, 3, size, size) in [0, 1]."""
    return smooth_maps(count, size, channels=3)
