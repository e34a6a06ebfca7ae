"""CAM methods without a gradient: what the head says itself, what masked images score, what the features vary by."""

from typing import Final

import torch
from torch import Tensor

from pipeline.cams.request import ROUNDING, CamRequest, RawCams, normalize_cam, require_last_layer
from pipeline.data.maps import resize_map
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import CamMethod, ImageHeadName

MASKED_IMAGES_PER_PASS: Final = 32  # bounds the memory of Score-CAM, whatever the number of images and channels


def cam(request: CamRequest) -> RawCams:
    """Read the map of each image's class from the head; with the head `gap` this is CAM of Zhou et al., CVPR 2016.

    Raises:
        PixelCAMError: another layer than the last is asked for.
    """
    require_last_layer(request, CamMethod.CAM)
    features = request.encoder(request.images)
    return RawCams([request.select(request.head.class_maps(features))], request.head(features))


def sat(request: CamRequest) -> RawCams:
    """Read the map of the spatial-aware token from its head: Wu et al., ICCV 2023.

    Raises:
        PixelCAMError: the head has no such token, or another layer than the last is asked for.
    """
    if request.head.name != ImageHeadName.SAT:
        raise PixelCAMError(
            f"cam.method: sat reads the spatial-aware token, which the image head {request.head.name} does not have; "
            "train a teacher with model.image_head: sat, or use cam.method: cam"
        )
    require_last_layer(request, CamMethod.SAT)
    return cam(request)


def eigencam(request: CamRequest) -> RawCams:
    """Project the features of each cell on their first principal component: Eigen-CAM, Muhammad and Yeasin, IJCNN 2020.

    It looks for no class. The features are centred first, as for any principal component and as grad-cam does; the
    paper's formula is without it. Signs are kept, and the component points to where the mean features lie, so that a
    cell is high where features are strong.
    """
    *maps, last = request.encoder.forward_layers(request.images, request.layers)
    return RawCams([_first_component(features.float()) for features in maps], request.head(last))


def scorecam(request: CamRequest) -> RawCams:
    """Weigh each channel by the score of the image with all but this channel's cells masked: Score-CAM.

    Source: Wang et al., CVPRW 2020. The weights are the softmax over channels of the class's logit, from which the
    paper subtracts that of a baseline image, which changes no softmax. Masks are stretched to [0, 1] and then
    enlarged, as in torch-cam; the paper and grad-cam stretch after enlarging. What is masked takes the encoder's mean
    colour, which is zero once the image is normalized, as published. C forward passes per image, layer by layer.
    """
    *maps, last = request.encoder.forward_layers(request.images, request.layers)
    return RawCams([_score_weighted(request, features.float()) for features in maps], request.head(last))


def _first_component(features: Tensor) -> Tensor:
    """Return the projection of features (B, C, h, w) on their first principal component, (B, h, w)."""
    cells = features.flatten(2).transpose(1, 2)  # (B, h * w, C)
    mean = cells.mean(dim=1, keepdim=True)
    left, singular, right = torch.linalg.svd(cells - mean, full_matrices=False)
    strength = singular[:, :1]
    varies = strength > ROUNDING * torch.linalg.vector_norm(cells, dim=(1, 2))[:, None]
    sign = torch.where((right[:, :1] * mean).sum(dim=2) < 0, -1, 1)
    projection = torch.where(varies, sign * strength * left[:, :, 0], 0)
    return projection.view(len(features), *features.shape[-2:])


def _score_weighted(request: CamRequest, features: Tensor) -> Tensor:
    """Return the positive sum of the channels of features (B, C, h, w), weighed by their scores: (B, h, w)."""
    masks = normalize_cam(features.flatten(0, 1))  # (B * C, h, w)
    image_idx = torch.arange(len(features), device=features.device).repeat_interleave(features.shape[1])
    passes = [slice(first, first + MASKED_IMAGES_PER_PASS) for first in range(0, len(masks), MASKED_IMAGES_PER_PASS)]
    scores = [_masked_scores(request, masks[each], image_idx[each]) for each in passes]
    weights = torch.cat(scores).view(features.shape[:2]).softmax(dim=1)
    return (weights[:, :, None, None] * features).sum(dim=1).relu()


def _masked_scores(request: CamRequest, masks: Tensor, image_idx: Tensor) -> Tensor:
    """Return the class logit of each masked image, float32 (n,): masks (n, h, w) in [0, 1], image_idx int64 (n,)."""
    images, colour = request.images[image_idx], request.encoder.mean
    enlarged = resize_map(masks, images.shape[-2:]).unsqueeze(1)
    logits = request.head(request.encoder(colour + enlarged * (images - colour)))
    return logits.gather(1, request.class_idx[image_idx, None]).squeeze(1).float()  # type: ignore[no-any-return]
