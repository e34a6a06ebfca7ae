"""CAM methods that read which patches a plain vision transformer attends to.

timm computes attention without ever keeping its matrices. Here they are recorded during one forward pass by temporary
hooks, and the modules are left as they were.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.cams.request import CamRequest, RawCams, require_last_layer
from pipeline.encoders.encoder import Encoder
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import CamMethod


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
    return row[:, prefix:].reshape(len(features), *features.shape[-2:])


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
    if not attention or any(each.shape != (len(features), tokens, tokens) for each in attention):
        raise PixelCAMError(
            f"cam.method: {method} reads attention between all patches, which {request.encoder.spec.name} does not "
            "have; use a plain vision transformer as encoder (vit, deit, dinov2), or another method, such as layercam"
        )
    return _Seen(features, attention)


def _prefix_tokens(encoder: Encoder) -> int:
    return int(getattr(encoder.trunk, "num_prefix_tokens", 0))
