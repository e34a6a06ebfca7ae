"""CAMs of any timm classifier with the head that it has: no training of ours, no model folder.

The classifier's own head is wrapped as an image head, so that every CAM method reads it as it reads a teacher.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.cams.methods import compute_cam, untouched
from pipeline.data.image_store import square_batch
from pipeline.data.images import ImageLike, as_pixels, several
from pipeline.data.maps import resize_map
from pipeline.encoders.encoder import Encoder, EncoderSpec, published_input
from pipeline.encoders.image_heads import ImageHead
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import CamMethod, ImageHeadName
from pipeline.runtime.files import is_shortage


class ImageCam(NamedTuple):
    """A map of an image's size, float32 (H, W) in [0, 1], higher is foreground, and the class that it is taken for."""

    cam: NDArray[np.float32]
    class_idx: int


def timm_cam(
    model: nn.Module,
    images: Sequence[ImageLike],
    *,
    method: str,
    class_idx: Sequence[int] | None = None,
    layers: Sequence[int] = (-1,),
    input_size: int | None = None,
) -> list[ImageCam]:
    """Return the CAM of each image from a timm classifier, which stays as it is.

    Args:
        model: as `timm.create_model` gives it, with its classifier, on any device and in any mode.
        images: files, or pixels uint8 (H_i, W_i, 3), of any sizes; squashed to a square, read in one batch.
        method: one of docs/teachers.md, such as "layercam"; `cam` is the classifier at every cell.
        class_idx: the class that each map is taken for; None takes the one that is predicted.
        layers: depths of timm's `feature_info`; -1 is the last feature map, several are averaged.
        input_size: side of the square in pixels; None: the one that timm names.

    Raises:
        PixelCAMError: the model has no classifier, or gives no feature map; a layer, method or class does not fit it.
    """
    try:
        chosen = CamMethod(method)
    except ValueError as error:
        raise PixelCAMError(f"method: expected one of {', '.join(CamMethod)}, got '{method}'") from error
    device = next(model.parameters()).device
    encoder = _whole_model(model, input_size).to(device)
    head = _OwnHead(encoder)
    pixels = [as_pixels(image) for image in several(images)]
    if not pixels:
        return []
    batch = square_batch(pixels, encoder.spec.input_size).to(device)
    with untouched(encoder):
        predicted = _predict(encoder, head, batch)
        _check_layers(encoder, chosen, layers)
        classes = predicted if class_idx is None else _asked(class_idx, len(batch), head.classes).to(device)
        cams, _ = compute_cam(encoder, head, batch, classes, method=chosen, layers=layers)
    return [
        ImageCam(resize_map(cam.unsqueeze(0), image.shape[:2])[0].cpu().numpy(), index)
        for cam, image, index in zip(cams, pixels, classes.tolist(), strict=True)
    ]


class _WholeModel(Encoder):
    """A timm model as an encoder that keeps timm's own last output, whose class token the head may need."""

    def forward(self, images: Tensor) -> Tensor:
        """Return the last feature map, float (B, C, h, w), of images: float (B, 3, H, W) in [0, 1]."""
        normalized = self._normalize(images)
        self.output: Tensor = self.trunk.forward_features(normalized)  # type: ignore[operator]
        return self._to_map(self.output, normalized)

    def logits(self, features: Tensor, output: Tensor) -> Tensor:
        """Return what the model's own head says of a feature map (B, C, h, w), which timm gave as `output`."""
        return self.trunk.forward_head(self._from_map(features, output))  # type: ignore[operator,no-any-return]


class _OwnHead(ImageHead):
    """The head that a timm model has, as an image head."""

    name = ImageHeadName.GAP  # what it is in most CNNs

    def __init__(self, encoder: _WholeModel) -> None:
        super().__init__(channels=encoder.channels, classes=int(encoder.trunk.num_classes))  # type: ignore[arg-type]
        self.whole = encoder

    def forward(self, features: Tensor) -> Tensor:
        """Return image logits, float (B, K)."""
        return self.whole.logits(features, self.whole.output)

    def class_maps(self, features: Tensor) -> Tensor:
        """Return the model's head at every cell, float (B, K, h, w): for average pooling and a linear layer, CAM."""
        height, width = features.shape[-2:]
        cells = features.permute(0, 2, 3, 1).reshape(-1, self.channels, 1, 1)  # (B * h * w, C, 1, 1)
        output = self.whole.output.repeat_interleave(height * width, dim=0)
        return self.whole.logits(cells, output).view(len(features), height, width, -1).permute(0, 3, 1, 2)


def _whole_model(model: nn.Module, input_size: int | None) -> _WholeModel:
    described: Any = model
    if not getattr(described, "num_classes", 0) or not hasattr(described, "forward_head"):
        raise PixelCAMError("model: expected a timm model with a classifier; give timm.create_model(...) as it comes")
    data = published_input(model)
    name = str(described.pretrained_cfg.get("architecture", type(model).__name__))
    spec = EncoderSpec(
        name=name,
        architecture=name,
        arguments={},
        mean=data["mean"],
        std=data["std"],
        input_size=input_size or max(data["input_size"][1:]),
        weights="as given",
    )
    return _WholeModel(model, spec)


def _predict(encoder: _WholeModel, head: _OwnHead, batch: Tensor) -> Tensor:
    """Return the class that is predicted for each image, int64 (B,); refuse a model that gives no feature map."""
    try:
        with torch.no_grad():
            return head(encoder(batch)).argmax(dim=1)  # type: ignore[no-any-return]
    except (RuntimeError, AssertionError, AttributeError) as error:
        if is_shortage(error):
            raise
        size = encoder.spec.input_size
        raise PixelCAMError(f"model: {encoder.spec.name} gives no feature map for {size} px ({error})") from error


def _check_layers(encoder: _WholeModel, method: CamMethod, layers: Sequence[int]) -> None:
    """Refuse a map of tokens that the head does not look at."""
    class_token_alone = getattr(encoder.trunk, "global_pool", None) == "token"
    if class_token_alone and -1 in layers and method not in (CamMethod.ROLLOUT, CamMethod.EIGENCAM, CamMethod.SCORECAM):
        raise PixelCAMError(
            f"layers: the classifier of {encoder.spec.name} reads the class token alone, so that its last feature map "
            f"says nothing to {method}; use layers=[-2], or method='rollout'"
        )


def _asked(class_idx: Sequence[int], images: int, classes: int) -> Tensor:
    """Return the classes that are asked for, int64 (B,)."""
    if len(class_idx) != images or not all(0 <= index < classes for index in class_idx):
        raise PixelCAMError(
            f"class_idx: expected one class from 0 to {classes - 1} for each of {images} images, got {list(class_idx)}"
        )
    return torch.tensor(class_idx)
