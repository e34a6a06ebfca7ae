"""CAM methods that weigh feature maps by the class score's gradient at them, at any depth."""

from typing import Final, Protocol

import torch
from torch import Tensor

from pipeline.cams.request import CamFunction, CamRequest, RawCams
from pipeline.runtime.seeding import make_generator

SMOOTH_PASSES: Final = 8  # n, noisy copies of each image
NOISE_STD: Final = 0.15  # of the images' range; SmoothGrad (Smilkov et al. 2017) advises 0.1 to 0.2
NOISE_SEED: Final = 0


class WeighFunction(Protocol):
    """Weigh a feature map (B, C, h, w) by the class score's gradient at it, same shape, into a map (B, h, w)."""

    def __call__(self, *, features: Tensor, gradients: Tensor) -> Tensor: ...  # noqa: D102 - the class says it


def weighed_by(weigh: WeighFunction) -> CamFunction:
    """Return the CAM method that takes one gradient per image and weighs the features of each layer by it."""

    def read(request: CamRequest) -> RawCams:
        features, gradients, logits = differentiate(request, request.images)
        pairs = zip(features, gradients, strict=True)
        return RawCams([weigh(features=each, gradients=gradient) for each, gradient in pairs], logits)

    return read


def weigh_as_gradcam(*, features: Tensor, gradients: Tensor) -> Tensor:
    """Sum the channels by their mean gradient and keep what is positive: Grad-CAM, Selvaraju et al., ICCV 2017."""
    return _weighted_sum(gradients.mean(dim=(2, 3)), features).relu()


def weigh_as_gradcam_pp(*, features: Tensor, gradients: Tensor) -> Tensor:
    """Weigh each channel by its positive gradients, most where few cells have them: Grad-CAM++.

    Source: Chattopadhay et al., WACV 2018, in the closed form (eq. 19) for the exponential of the score, whose own
    factor is the same for all channels of an image. It is what grad-cam computes, but for the constant that it adds to
    the denominator of alpha, and which outweighs the squared gradients of a weak head: here the fraction is reduced
    instead. torch-cam 0.5 differs from both: its division by the denominator is lost.
    """
    return _sum_as_gradcam_pp(features, first=gradients, second=gradients**2, third=gradients**3)


def weigh_as_xgradcam(*, features: Tensor, gradients: Tensor) -> Tensor:
    """Weigh each channel by the mean of its gradients where it is active: XGrad-CAM, Fu et al., BMVC 2020."""
    weights = _ratio((gradients * features).sum(dim=(2, 3)), features.sum(dim=(2, 3)))
    return _weighted_sum(weights, features).relu()


def weigh_as_hirescam(*, features: Tensor, gradients: Tensor) -> Tensor:
    """Multiply features and gradients at every cell and sum the channels: HiResCAM, Draelos and Carin 2020.

    Signs are kept, as in the paper; grad-cam drops what is negative.
    """
    return (gradients * features).sum(dim=1)


def weigh_as_layercam(*, features: Tensor, gradients: Tensor) -> Tensor:
    """Weigh every location by its own positive gradient: LayerCAM, Jiang et al., IEEE TIP 2021."""
    return (gradients.relu() * features).sum(dim=1).relu()


def smooth_gradcam_pp(request: CamRequest) -> RawCams:
    """Take Grad-CAM++ with gradients averaged over noisy copies of the images: Smooth Grad-CAM++, Omeiza et al. 2019.

    The features are those of the images themselves. The numerator of alpha is the mean squared gradient, as torch-cam
    corrects the paper, so that without noise the method is Grad-CAM++. All else is as in the paper; torch-cam 0.5 takes
    the features and the gradients in the weights from the last copy alone, and sums features times gradients in the
    denominator. Each pass adds the same noise, from a fixed seed, to all images, so that a map depends neither on the
    other images of its batch nor on the run.
    """
    *features, last = request.encoder.forward_layers(request.images, request.layers)
    generator = make_generator(NOISE_SEED, "smooth_gradcam++")
    moments = [each.new_zeros((3, *each.shape), dtype=torch.float32) for each in features]
    for _ in range(SMOOTH_PASSES):
        noise = NOISE_STD * torch.randn(request.images.shape[1:], generator=generator)
        _, gradients, _ = differentiate(request, request.images + noise.to(request.images))
        for moment, gradient in zip(moments, gradients, strict=True):
            moment.add_(torch.stack([gradient, gradient**2, gradient**3]), alpha=1 / SMOOTH_PASSES)
    maps = [
        _sum_as_gradcam_pp(each.float(), first=first, second=second, third=third)
        for each, (first, second, third) in zip(features, moments, strict=True)
    ]
    return RawCams(maps, request.head(last))


def differentiate(request: CamRequest, images: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Return the features asked for, the gradient of each image's class score at them, both float32, and the logits."""
    with torch.enable_grad():
        maps, logits = _maps_and_logits(request, images)
        # Images do not mix in evaluation mode, so that one backward pass serves the whole batch.
        gradients = torch.autograd.grad(request.select(logits).sum(), maps)
    return [each.detach().float() for each in maps], [gradient.float() for gradient in gradients], logits.detach()


def _maps_and_logits(request: CamRequest, images: Tensor) -> tuple[list[Tensor], Tensor]:
    """Return the feature maps asked for, ready to be differentiated at, and the logits computed from them."""
    if request.only_last:
        with torch.no_grad():
            last = request.encoder(images)
        last.requires_grad_()  # the graph begins here: nothing below the last map is kept or differentiated
        return [last] * len(request.layers), request.head(last)
    *maps, last = request.encoder.forward_layers(images.detach().requires_grad_(), request.layers)
    return maps, request.head(last)


def _sum_as_gradcam_pp(features: Tensor, *, first: Tensor, second: Tensor, third: Tensor) -> Tensor:
    """Sum channels by sum(alpha * relu(first)), alpha = second / (2 * second + sum(features) * third)."""
    total = features.sum(dim=(2, 3), keepdim=True)
    alpha = _ratio(torch.ones_like(second), 2 + total * _ratio(third, second))
    weights = torch.where(second > 0, alpha * first.relu(), 0).sum(dim=(2, 3))
    return _weighted_sum(weights, features).relu()


def _weighted_sum(weights: Tensor, features: Tensor) -> Tensor:
    """Sum the channels: weights (B, C), features (B, C, h, w) -> (B, h, w)."""
    return (weights[:, :, None, None] * features).sum(dim=1)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Divide, with 0 where there is nothing to divide by."""
    nothing = denominator == 0
    return torch.where(nothing, 0, numerator / torch.where(nothing, 1, denominator))
