"""Classifiers that CAM methods are tried on, each an encoder and an image head that nobody trained."""

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from pipeline.cams.request import CamRequest
from pipeline.encoders.encoder import Encoder, build_encoder
from pipeline.encoders.image_heads import ImageHead, build_image_head
from pipeline.params.vocabulary import CamMethod, EncoderWeights, ImageHeadName
from pipeline.runtime.seeding import global_seed

REAL = "tf_efficientnet_lite0"  # the one encoder whose pretrained weights come with the installation
CLASS_IDX = torch.tensor([0, 2, 1, 2])


class Classifier(nn.Module):
    """Images to logits, as reference implementations want it."""

    def __init__(self, encoder: Encoder, head: ImageHead) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.encoder(images))  # type: ignore[no-any-return]


class NormalizedClassifier(nn.Module):
    """The same for images that are normalized already, so that zero is the encoder's mean colour."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        encoder = self.classifier.encoder
        return self.classifier(images * encoder.std + encoder.mean)  # type: ignore[no-any-return]


def make_classifier(name: str, *, size: int, head: ImageHeadName = ImageHeadName.GAP) -> Classifier:
    """Build a classifier of three classes, its head's weights ten times as far apart as at the start of a training."""
    weights = EncoderWeights.PRETRAINED if name == REAL else EncoderWeights.RANDOM
    encoder = build_encoder(name, input_size=size, output_stride=16, weights=weights, seed=0)
    with global_seed(0, "head"):
        image_head = build_image_head(head, channels=encoder.channels, classes=3)
    with torch.no_grad():
        for parameter in image_head.parameters():
            parameter.mul_(10)
        for module in encoder.modules():
            if hasattr(module, "attn_drop") and isinstance(module.qkv, nn.Linear):
                module.qkv.weight.mul_(8)  # attention of random weights is nearly the same everywhere
    return Classifier(encoder, image_head).eval()


def make_fitting_classifier(method: CamMethod) -> Classifier:
    """Build a tiny classifier that a method can read."""
    match method:
        case CamMethod.ROLLOUT | CamMethod.TSCAM:
            return make_classifier("test_vit", size=64, head=ImageHeadName.TSCAM)
        case CamMethod.SAT:
            return make_classifier("test_efficientnet", size=64, head=ImageHeadName.SAT)
        case _:
            return make_classifier("test_efficientnet", size=64)


fitting_classifier = cache(make_fitting_classifier)  # for tests that leave it as it is


def make_images(count: int, height: int, width: int) -> Tensor:
    """Return smooth random images, so that neighbouring cells see different things."""
    coarse = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    return interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False).clamp(0, 1)


def make_request(net: Classifier, images: Tensor, layers: tuple[int, ...] = (-1,)) -> CamRequest:
    """Ask for the maps of `CLASS_IDX`; the classifier is put into evaluation mode without parameter gradients."""
    net.eval().requires_grad_(False)
    return CamRequest(
        encoder=net.encoder, head=net.head, images=images, class_idx=CLASS_IDX[: len(images)], layers=layers
    )
