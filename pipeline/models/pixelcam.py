"""PixelCAM: one encoder, two heads on its last feature map, both trained at once by plain gradient descent."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.cams.views import PLAIN, average_maps, read_views
from pipeline.data.maps import Localization
from pipeline.encoders.encoder import Encoder, rebuild_encoder
from pipeline.encoders.image_heads import ImageHead, build_image_head
from pipeline.encoders.pixel_heads import TWO, PixelHead, build_pixel_head
from pipeline.models.files import ModelInfo, load_weights, read_info
from pipeline.params.config import MapParams
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import PixelHeadName, Weights, name_pixel_classes
from pipeline.runtime.seeding import global_seed


class PixelCAMOutput(NamedTuple):
    """What both heads say.

    Attributes:
        image_logits: float (B, K).
        pixel_logits: float (B, P, h, w), the background's first, on the grid of the last feature map, or of a decoder.
        penalty: float scalar, what the image head adds to the loss.
    """

    image_logits: Tensor
    pixel_logits: Tensor
    penalty: Tensor


class PixelCAM(nn.Module):
    """An encoder shared by an image head and a pixel head. Source: arXiv 2503.24135."""

    def __init__(self, encoder: Encoder, image_head: ImageHead, pixel_head: PixelHead) -> None:
        super().__init__()
        self.encoder = encoder
        self.image_head = image_head
        self.pixel_head = pixel_head

    def forward(self, images: Tensor) -> PixelCAMOutput:
        """Classify images, float (B, 3, H, W) in [0, 1], and the cells of their feature map."""
        maps = self.encoder.forward_layers(images, self.pixel_head.layers)
        features = maps[-1]
        return PixelCAMOutput(self.image_head(features), self.pixel_head(maps), self.image_head.penalty(features))


def build_pixelcam(
    encoder: Encoder, image_head: ImageHead, pixel_head: PixelHeadName, *, seed: int, pixel_classes: int = TWO
) -> PixelCAM:
    """Put a new pixel head, drawn from `seed`, beside the image head of an encoder; see `build_pixel_head`."""
    with global_seed(seed, "pixel head"):
        return PixelCAM(encoder, image_head, build_pixel_head(pixel_head, encoder, pixel_classes=pixel_classes))


class PixelCAMLocalizer:
    """PixelCAM as a localizer: its map is the probability of foreground, whatever the class, averaged over views.

    Where pixels are told apart by image class, each class has a map of its own, and the map is their sum.

    Args:
        model: is put into evaluation mode.
        params: which views.
        image_scale: how much larger the images come than the model's input, so that larger views have detail.
    """

    def __init__(self, model: PixelCAM, params: MapParams = PLAIN, *, image_scale: float = 1.0) -> None:
        self.model = model.eval()
        self.params = params
        self.image_scale = image_scale

    @torch.inference_mode()
    def __call__(self, images: Tensor, class_idx: Tensor) -> Localization:  # noqa: ARG002 - the map knows no class
        """Return the logits of the images at the model's input size, and maps, float32 (B, h, w) in [0, 1]."""

        def read(view: Tensor) -> tuple[Tensor, Tensor]:
            output = self.model.eval()(view)
            return output.pixel_logits.float().softmax(dim=1)[:, 1:], output.image_logits.float()  # but background

        section = "pixelcam_map"
        views, logits = read_views(images, self.params, image_scale=self.image_scale, section=section, read=read)
        class_maps = average_maps(views)  # (B, P - 1, h, w)
        if class_maps.shape[1] == 1:
            return Localization(logits, class_maps[:, 0])
        return Localization(logits, class_maps.sum(dim=1).clamp(max=1), class_maps)  # a sum may pass 1 by rounding


def load_pixelcam(folder: Path, weights: Weights = Weights.SELECTED) -> tuple[PixelCAM, ModelInfo]:
    """Read a PixelCAM model's folder; the model comes in evaluation mode, on the CPU.

    Raises:
        PixelCAMError: a file is missing, damaged, of another schema, or its weights do not fit or are not finite.
    """
    info = read_info(folder)
    if info.pixel_head is None or info.pixel_classes is None:
        raise PixelCAMError(f"{folder}: holds a teacher, which has no pixel head; give the folder of a PixelCAM model")
    encoder = rebuild_encoder(info.encoder)
    image_head = build_image_head(info.image_head, channels=encoder.channels, classes=len(info.classes))
    names = name_pixel_classes(info.pixel_classes, info.classes)
    model = PixelCAM(encoder, image_head, build_pixel_head(info.pixel_head, encoder, pixel_classes=len(names)))
    load_weights(model, folder, weights)
    return model.eval(), info
