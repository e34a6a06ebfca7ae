"""Class activation maps (CAMs): where a classifier looked.

One calling convention for all: (encoder, head, images, class_idx) -> float32 (B, h, w) in [0, 1], higher is foreground,
at the resolution of the feature map. Nothing stays behind: no hook, no gradient, and the modules are as they were. It
may be called within `torch.inference_mode()`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import torch
from torch import Tensor, nn

from pipeline.cams.gradient import (
    smooth_gradcam_pp,
    weigh_as_gradcam,
    weigh_as_gradcam_pp,
    weigh_as_hirescam,
    weigh_as_layercam,
    weigh_as_xgradcam,
    weighed_by,
)
from pipeline.cams.gradient_free import cam, eigencam, rollout, sat, scorecam, tscam
from pipeline.cams.request import CamFunction, CamRequest, normalize_cam
from pipeline.cams.views import average_maps
from pipeline.encoders.encoder import Encoder
from pipeline.encoders.image_heads import ImageHead
from pipeline.params.vocabulary import CamMethod

CAM_METHODS: Final[dict[CamMethod, CamFunction]] = {
    CamMethod.CAM: cam,
    CamMethod.GRADCAM: weighed_by(weigh_as_gradcam),
    CamMethod.GRADCAM_PP: weighed_by(weigh_as_gradcam_pp),
    CamMethod.SMOOTH_GRADCAM_PP: smooth_gradcam_pp,
    CamMethod.XGRADCAM: weighed_by(weigh_as_xgradcam),
    CamMethod.HIRESCAM: weighed_by(weigh_as_hirescam),
    CamMethod.LAYERCAM: weighed_by(weigh_as_layercam),
    CamMethod.SCORECAM: scorecam,
    CamMethod.EIGENCAM: eigencam,
    CamMethod.ROLLOUT: rollout,
    CamMethod.TSCAM: tscam,
    CamMethod.SAT: sat,
}


def compute_cam(
    encoder: Encoder,
    head: ImageHead,
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
        method: how the map is made.
        layers: depths, see `Encoder.forward_layers`; several maps are averaged on the finest grid among them.

    Returns:
        CAMs, float32 (B, h, w) in [0, 1], zeros where a map is constant; and the image logits, float32 (B, K).

    Raises:
        PixelCAMError: a layer that the encoder or the method does not have, or a method that does not fit the encoder
            or the head.
    """
    with untouched(encoder, head), torch.inference_mode(mode=False), torch.no_grad():
        request = CamRequest(
            encoder=encoder,
            head=head,
            images=_ordinary(images),
            class_idx=_ordinary(class_idx),
            layers=tuple(layers),
        )
        maps, logits = CAM_METHODS[method](request)
        return average_cams([normalize_cam(each.float()) for each in maps]), logits.float()


def average_cams(cams: Sequence[Tensor]) -> Tensor:
    """Average maps (B, h_i, w_i) in [0, 1] on the finest grid among them and stretch the result to [0, 1]."""
    return cams[0] if len(cams) == 1 else normalize_cam(average_maps(cams))


def _ordinary(tensor: Tensor) -> Tensor:
    """Return a tensor that may enter a graph: one made in inference mode may not, its copy may."""
    return tensor.clone() if tensor.is_inference() else tensor


@contextmanager
def untouched(*modules: nn.Module) -> Iterator[None]:
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
