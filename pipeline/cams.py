"""Class activation maps (CAMs): where a classifier looked, from one forward pass and the gradient at its feature maps.

One calling convention for all: (encoder, head, images, class_idx) -> float32 (B, h, w) in [0, 1], higher is foreground,
at the resolution of the feature map. Nothing stays behind: no hook, no gradient, and the modules' mode is as it was. It
may be called within `torch.inference_mode()`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from pipeline.config import CamMethod
from pipeline.encoder import Encoder
from pipeline.resizing import resize_map


class CamFunction(Protocol):
    """Weigh a feature map (B, C, h, w) by the class score's gradient at it, same shape, into a map (B, h, w)."""

    def __call__(self, *, features: Tensor, gradients: Tensor) -> Tensor: ...  # noqa: D102 - the class says it


def weigh_as_cam(*, features: Tensor, gradients: Tensor) -> Tensor:
    """Sum the channels by their mean gradient, signs kept.

    For a head of global average pooling and one linear layer this is the classifier's own weight up to a factor: CAM of
    Zhou et al., CVPR 2016.
    """
    return (gradients.mean(dim=(2, 3), keepdim=True) * features).sum(dim=1)


def weigh_as_gradcam(*, features: Tensor, gradients: Tensor) -> Tensor:
    """Sum the channels by their mean gradient and keep what is positive: Grad-CAM, Selvaraju et al., ICCV 2017."""
    return weigh_as_cam(features=features, gradients=gradients).relu()


def weigh_as_layercam(*, features: Tensor, gradients: Tensor) -> Tensor:
    """Weigh every location by its own positive gradient: LayerCAM, Jiang et al., IEEE TIP 2021."""
    return (gradients.relu() * features).sum(dim=1).relu()


CAM_FUNCTIONS: dict[CamMethod, CamFunction] = {
    CamMethod.CAM: weigh_as_cam,
    CamMethod.GRADCAM: weigh_as_gradcam,
    CamMethod.LAYERCAM: weigh_as_layercam,
}


def compute_cam(
    encoder: Encoder,
    head: nn.Module,
    images: Tensor,
    class_idx: Tensor,
    *,
    method: CamMethod,
    layers: Sequence[int] = (-1,),
) -> tuple[Tensor, Tensor]:
    """Compute the CAM of each image for its class, at one depth or fused over several.

    Args:
        encoder: gives the feature maps.
        head: maps the last feature map (B, C, h, w) to logits (B, K).
        images: float (B, 3, H, W) in [0, 1].
        class_idx: int64 (B,), the class each map is taken for.
        method: how a feature map is weighed.
        layers: depths, see `Encoder.forward_layers`; several maps are averaged on the finest grid among them.

    Returns:
        CAMs, float32 (B, h, w) in [0, 1], zeros where a map is constant; and the image logits, float32 (B, K).

    Raises:
        PixelCAMError: a layer that the encoder does not have.
    """
    with _frozen(encoder, head), torch.inference_mode(mode=False), torch.enable_grad():
        if images.is_inference():
            images = images.clone()  # a tensor made in inference mode enters no graph, its copy does
        if class_idx.is_inference():
            class_idx = class_idx.clone()
        maps, logits = _maps_and_logits(encoder, head, images, layers)
        # Images do not mix in evaluation mode, so that one backward pass serves the whole batch.
        score = logits.gather(1, class_idx.unsqueeze(1)).sum()
        gradients = torch.autograd.grad(score, maps)
    weigh = CAM_FUNCTIONS[method]
    cams = [
        normalize_cam(weigh(features=features.detach().float(), gradients=gradient.float()))
        for features, gradient in zip(maps, gradients, strict=True)
    ]
    return average_cams(cams), logits.detach().float()


def normalize_cam(cam: Tensor) -> Tensor:
    """Stretch each map of (B, h, w) to [0, 1]; a constant map becomes zeros."""
    flat = cam.flatten(1)
    low, high = flat.amin(1), flat.amax(1)
    spread = (high - low).clamp_min(torch.finfo(cam.dtype).tiny)
    return (cam - low[:, None, None]) / spread[:, None, None]


def average_cams(cams: Sequence[Tensor]) -> Tensor:
    """Average maps (B, h_i, w_i) in [0, 1] on the finest grid among them and stretch the result to [0, 1]."""
    if len(cams) == 1:
        return cams[0]
    size = max((cam.shape[-2:] for cam in cams), key=lambda shape: shape[0] * shape[1])
    return normalize_cam(torch.stack([resize_map(cam, size) for cam in cams]).mean(dim=0))


def _maps_and_logits(
    encoder: Encoder, head: nn.Module, images: Tensor, layers: Sequence[int]
) -> tuple[list[Tensor], Tensor]:
    """Return the feature maps asked for, ready to be differentiated at, and the logits computed from them."""
    if all(encoder.resolve_layer(layer) == encoder.depths - 1 for layer in layers):
        with torch.no_grad():
            last = encoder(images)
        last.requires_grad_()  # the graph begins here: nothing below the last map is kept or differentiated
        return [last] * len(layers), head(last)
    *maps, last = encoder.forward_layers(images.detach().requires_grad_(), layers)
    return maps, head(last)


@contextmanager
def _frozen(*modules: nn.Module) -> Iterator[None]:
    """Put modules into evaluation mode without parameter gradients, and restore both afterwards, error or not."""
    modes = [(module, module.training) for top in modules for module in top.modules()]
    parameters = [(p, p.requires_grad) for top in modules for p in top.parameters()]
    try:
        for top in modules:
            top.eval().requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires_grad in parameters:
            parameter.requires_grad_(requires_grad)
