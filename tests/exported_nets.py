"""Small networks as they leave, with random weights, of any encoder, head and way of reading the map."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.encoders.encoder import build_encoder
from pipeline.encoders.image_heads import build_image_head
from pipeline.export.network import ExportedNetwork
from pipeline.metrics.scores import Threshold, ThresholdSource
from pipeline.models.loading import TeacherLocalizer
from pipeline.models.pixelcam import PixelCAMLocalizer, build_pixelcam
from pipeline.models.teacher import Teacher
from pipeline.params.config import CamParams, MapParams
from pipeline.params.vocabulary import CamMethod, EncoderWeights, ImageHeadName, PixelHeadName

THRESHOLD = Threshold(0.3, ThresholdSource.VALIDATION)
SIZE = 64  # of the nets' input
SHAPES = ((40, 90), (128, 77), (SIZE, SIZE))  # of images: wide, tall and as the net takes them
PLAIN: dict[str, Any] = {"scales": (1.0,), "symmetries": 1, "margin": 0.0}


def teacher_network(
    encoder: str = "test_efficientnet",
    *,
    head: ImageHeadName = ImageHeadName.GAP,
    method: CamMethod = CamMethod.LAYERCAM,
) -> ExportedNetwork:
    """Return a teacher whose CAM is read by a method."""
    trunk = build_encoder(encoder, input_size=SIZE, output_stride=None, weights=EncoderWeights.RANDOM, seed=0)
    torch.manual_seed(1)
    net = Teacher(trunk, build_image_head(head, channels=trunk.channels, classes=2))
    localizer = TeacherLocalizer(net, CamParams(method=method, layers=(-1,), **PLAIN))
    return ExportedNetwork(net, localizer, image_scale=1.0, input_size=SIZE, has_class_maps=False)


def pixelcam_network(
    encoder: str = "test_efficientnet",
    *,
    pixel_classes: int = 2,
    views: Mapping[str, Any] | None = None,
) -> ExportedNetwork:
    """Return a PixelCAM; of more than two classes of pixels each image class has a map."""
    trunk = build_encoder(encoder, input_size=SIZE, output_stride=None, weights=EncoderWeights.RANDOM, seed=0)
    torch.manual_seed(1)
    image_head = build_image_head(ImageHeadName.GAP, channels=trunk.channels, classes=2)
    net = build_pixelcam(trunk, image_head, PixelHeadName.LINEAR, seed=0, pixel_classes=pixel_classes)
    params = MapParams(**(PLAIN | dict(views or {})))
    scale = max(params.scales)
    localizer = PixelCAMLocalizer(net, params, image_scale=scale)
    return ExportedNetwork(net, localizer, image_scale=scale, input_size=SIZE, has_class_maps=pixel_classes > 2)


def images(shapes: Sequence[tuple[int, int]] = SHAPES) -> list[NDArray[np.uint8]]:
    """Return images of noise, uint8 (H, W, 3)."""
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]


def largest_difference(network: ExportedNetwork, ask: Callable[[NDArray[np.uint8]], dict[str, Any]]) -> float:
    """Return how far what leaves is off, at most, from the network here, over all outputs of all images."""
    off = 0.0
    for image in images():
        with torch.no_grad():
            expected = network(torch.from_numpy(image)[None])
        found = ask(image)
        assert set(found) == set(network.output_names)
        for name, values in zip(network.output_names, expected, strict=True):
            assert found[name].shape == values[0].shape
            off = max(off, float(np.abs(found[name] - values[0].numpy()).max()))
    return off
