"""CAM methods without a gradient: what the head says, what masked images score, what features vary by, attention.

timm computes attention without ever keeping its matrices. Here they are recorded during one forward pass by temporary
hooks, and the modules are left as they were.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from pipeline.cams.request import ROUNDING, CamRequest, RawCams, normalize_cam, require_last_layer
from pipeline.data.maps import resize_map
from pipeline.encoders.encoder import Encoder
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


def rollout(request: CamRequest) -> RawCams:
    """Follow attention from the class token through all layers to the patches: Abnar and Zuidema, ACL 2020.

    In each layer half of what a token holds is taken as its own, half as what it attends to, mean over attention heads.
    It looks for no class.

    Raises:
        PixelCAMError: the encoder has no global attention, or another layer than the last is asked for.
    """
    seen = _look(request, CamMethod.ROLLOUT)
    identity = torch.eye(seen.attention[0].shape[-1], device=request.images.device)
    flow = identity
    for attention in seen.attention:
        mixed = attention + identity
        flow = mixed / mixed.sum(dim=-1, keepdim=True) @ flow
    return RawCams([attention_to_patches(flow, request.encoder, seen.features)], request.head(seen.features))


def tscam(request: CamRequest) -> RawCams:
    """Multiply the head's class map by the class token's attention, mean over layers: TS-CAM, Gao et al., ICCV 2021.

    Raises:
        PixelCAMError: the encoder has no global attention, or another layer than the last is asked for.
    """
    seen = _look(request, CamMethod.TSCAM)
    attention = attention_to_patches(torch.stack(seen.attention).mean(dim=0), request.encoder, seen.features)
    class_map = request.select(request.head.class_maps(seen.features)).float()
    return RawCams([class_map * attention], request.head(seen.features))


def attention_to_patches(attention: Tensor, encoder: Encoder, features: Tensor) -> Tensor:
    """Return how much the class token attends to each patch, laid out on the grid.

    Args:
        attention: float (B, N, N), row: the token that attends, column: the token attended to.
        encoder: says which tokens come before the patches: the class token, register tokens.
        features: (B, C, h, w), the grid.

    Returns:
        float (B, h, w). Without a class token it is the mean over the patches that attend.
    """
    prefix = _prefix_tokens(encoder)
    has_class_token = getattr(encoder.trunk, "cls_token", None) is not None
    row = attention[:, 0] if has_class_token else attention[:, prefix:].mean(dim=1)
    return row[:, prefix:].reshape(features.shape[0], *features.shape[-2:])


@contextmanager
def recorded_attention(net: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the attention of every layer, mean over attention heads, of what runs through `net` within the block.

    Yields:
        a list that each of timm's attention modules adds its float32 matrix (B, N, N) to, in the order they run.
    """
    matrices: list[Tensor] = []

    def record(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        matrices.append(inputs[0].float().mean(dim=1))  # (B, attention heads, N, N) -> (B, N, N)

    with ExitStack() as restored:
        for module in net.modules():
            dropout = getattr(module, "attn_drop", None)
            if not hasattr(module, "fused_attn") or not isinstance(dropout, nn.Module):
                continue
            restored.callback(setattr, module, "fused_attn", module.fused_attn)
            module.fused_attn = False  # type: ignore[assignment]  # the fused kernel does not form the matrix
            restored.enter_context(dropout.register_forward_pre_hook(record))
        yield matrices


class _Seen(NamedTuple):
    """The last feature map (B, C, h, w), and each layer's attention, float32 (B, N, N)."""

    features: Tensor
    attention: list[Tensor]


def _look(request: CamRequest, method: CamMethod) -> _Seen:
    """Run the encoder and record its attention; raise a `PixelCAMError` unless every layer looks at all patches."""
    require_last_layer(request, method)
    with recorded_attention(request.encoder) as attention:
        features = request.encoder(request.images)
    tokens = _prefix_tokens(request.encoder) + features.shape[-2] * features.shape[-1]
    if not attention or any(each.shape[1:] != (tokens, tokens) for each in attention):
        raise PixelCAMError(
            f"cam.method: {method} reads attention between all patches, which {request.encoder.spec.name} does not "
            "have; use a plain vision transformer as encoder (vit, deit, dinov2), or another method, such as layercam"
        )
    return _Seen(features, attention)


def _prefix_tokens(encoder: Encoder) -> int:
    return int(getattr(encoder.trunk, "num_prefix_tokens", 0))
