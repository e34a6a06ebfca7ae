"""Gradient CAMs agree with torch-cam and grad-cam on the real encoder, per image in a batch of mixed classes."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from classifiers import CLASS_IDX, REAL, Classifier, fitting_classifier, make_classifier, make_images, make_request
from numpy.typing import NDArray
from pytorch_grad_cam import GradCAMPlusPlus, HiResCAM
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchcam.methods import GradCAM, LayerCAM, SmoothGradCAMpp, XGradCAM

from pipeline.cams import gradient
from pipeline.cams.gradient import (
    NOISE_SEED,
    NOISE_STD,
    SMOOTH_PASSES,
    differentiate,
    smooth_gradcam_pp,
    weigh_as_gradcam,
    weigh_as_gradcam_pp,
    weigh_as_hirescam,
    weigh_as_layercam,
    weigh_as_xgradcam,
)
from pipeline.cams.methods import compute_cam
from pipeline.cams.request import normalize_cam
from pipeline.params.vocabulary import CamMethod
from pipeline.runtime.seeding import make_generator

TORCH_CAM = [CamMethod.GRADCAM, CamMethod.XGRADCAM, CamMethod.LAYERCAM]
# Depths 2 and 3 of five end with these blocks, at strides 8 and 16.
LAYERS = {-1: "encoder", 2: "encoder.trunk.blocks.2", -2: "encoder.trunk.blocks.4"}


@pytest.fixture(scope="module")
def net() -> Classifier:
    """Return a head that is confident, so that its gradients outweigh the constants that references divide with."""
    net = make_classifier(REAL, size=96)
    weight = net.get_parameter("head.linear.weight")
    with torch.no_grad():
        weight.copy_(100 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(5)))
    return net


def torch_cams(net: Classifier, images: Tensor, method: CamMethod, layers: tuple[int, ...]) -> Iterator[list[Tensor]]:
    """Yield torch-cam's maps (h, w) of the layers, image by image."""
    net.requires_grad_()
    names: list[nn.Module | str] = [LAYERS[layer] for layer in layers]
    for image, class_idx in zip(images, CLASS_IDX.tolist(), strict=False):
        extractor: GradCAM | SmoothGradCAMpp | XGradCAM | LayerCAM
        match method:
            case CamMethod.GRADCAM:
                extractor = GradCAM(net, names)
            case CamMethod.SMOOTH_GRADCAM_PP:
                extractor = SmoothGradCAMpp(net, names, num_samples=2, std=1e-12)  # it would sum noisy features
            case CamMethod.XGRADCAM:
                extractor = XGradCAM(net, names)
            case _:
                extractor = LayerCAM(net, names)
        with extractor:
            logits = net(image.unsqueeze(0))
            yield [cam[0] for cam in extractor(class_idx, logits)]


@pytest.mark.parametrize("method", [*TORCH_CAM, CamMethod.SMOOTH_GRADCAM_PP])  # noise changes no gradient there
@pytest.mark.parametrize(("height", "width"), [(96, 96), (64, 96)])
def test_agrees_with_torch_cam_at_the_last_map(method: CamMethod, height: int, width: int, net: Classifier) -> None:
    images = make_images(4, height, width)
    cams, logits = compute_cam(net.encoder, net.head, images, CLASS_IDX, method=method)
    assert cams.shape == (4, height // 16, width // 16)
    for cam, (expected,) in zip(cams, torch_cams(net, images, method, (-1,)), strict=True):
        assert float(expected.max()) > 0.9, "the reference is flat, so that it would show nothing"
        torch.testing.assert_close(cam, expected, rtol=0, atol=1e-4)
    with torch.inference_mode():
        torch.testing.assert_close(logits, net(images))


@pytest.mark.parametrize("method", TORCH_CAM)
def test_agrees_with_torch_cam_fused_over_three_depths(method: CamMethod, net: Classifier) -> None:
    images, layers = make_images(4, 96, 96), (-1, 2, -2)
    cams, _ = compute_cam(net.encoder, net.head, images, CLASS_IDX, method=method, layers=layers)
    assert cams.shape == (4, 12, 12)
    for cam, maps in zip(cams, torch_cams(net, images, method, layers), strict=True):
        assert min(float(each.max()) for each in maps) > 0.9
        enlarged = [interpolate(each[None, None], size=(12, 12), mode="bilinear")[0, 0] for each in maps]
        mean = sum(enlarged, torch.zeros(12, 12)) / 3
        expected = (mean - mean.min()) / (mean.max() - mean.min())
        torch.testing.assert_close(cam, expected, rtol=0, atol=1e-4)


def grad_cams(net: Classifier, images: Tensor, method: type[BaseCAM], layer: int) -> Tensor:
    """Return grad-cam's maps (B, h, w) at the layer's own size and before what is negative is cut off."""
    net.requires_grad_()
    maps = []
    for image, class_idx in zip(images, CLASS_IDX.tolist(), strict=False):
        with method(net, [net.get_submodule(LAYERS[layer])]) as reference:
            reference(image.unsqueeze(0), [ClassifierOutputTarget(class_idx)])
            kept = reference.activations_and_grads
            features, gradients = (each[0].detach().numpy() for each in (kept.activations, kept.gradients))
            maps.append(torch.from_numpy(reference.get_cam_image(None, None, None, features, gradients, False)))
    return torch.cat(maps)


@pytest.mark.parametrize("layer", [-1, 2])
def test_hirescam_agrees_with_grad_cam(layer: int, net: Classifier) -> None:
    images = make_images(4, 64, 96)
    cams, _ = compute_cam(net.encoder, net.head, images, CLASS_IDX, method=CamMethod.HIRESCAM, layers=(layer,))
    expected = normalize_cam(grad_cams(net, images, HiResCAM, layer))
    torch.testing.assert_close(cams, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", [CamMethod.GRADCAM_PP, CamMethod.SMOOTH_GRADCAM_PP])
def test_gradcam_pp_agrees_with_grad_cam(method: CamMethod, net: Classifier) -> None:
    images = make_images(4, 64, 96)
    cams, _ = compute_cam(net.encoder, net.head, images, CLASS_IDX, method=method)
    expected = normalize_cam(grad_cams(net, images, GradCAMPlusPlus, -1).relu())
    assert (expected.amax(dim=(1, 2)) == 1).all()
    torch.testing.assert_close(cams, expected, rtol=0, atol=1e-4)


def test_gradcam_pp_agrees_with_grad_cam_where_cells_differ_in_gradient(net: Classifier) -> None:
    # The real gradients of an inner layer. Its features are taken without their negative part: with it denominators
    # come near zero, and rounding decides.
    (signed,), (gradients,), _ = differentiate(make_request(net, make_images(4, 64, 96), (2,)), make_images(4, 64, 96))
    features = signed.relu()
    with GradCAMPlusPlus(net, [net.encoder]) as reference:
        weights = reference.get_cam_weights(None, None, None, features.numpy(), gradients.numpy())
    expected = np.maximum((weights[:, :, None, None] * features.numpy()).sum(axis=1), 0)
    found = weigh_as_gradcam_pp(features=features, gradients=gradients)
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-4, atol=1e-4 * float(expected.max()))


@pytest.mark.parametrize("layers", [(-1,), (0, 1)])
def test_smooth_gradcam_pp_without_noise_is_gradcam_pp(
    layers: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradient, "NOISE_STD", 0)
    net, images = fitting_classifier(CamMethod.GRADCAM_PP), make_images(2, 64, 64)
    found, expected = (
        compute_cam(net.encoder, net.head, images, CLASS_IDX[:2], method=method, layers=layers)[0]
        for method in (CamMethod.SMOOTH_GRADCAM_PP, CamMethod.GRADCAM_PP)
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_methods_coincide_with_cam_where_they_must(net: Classifier) -> None:
    # At the last map below global average pooling the gradient is the same in all cells: the class's weight.
    def read(method: CamMethod) -> Tensor:
        return compute_cam(net.encoder, net.head, make_images(4, 96, 96), CLASS_IDX, method=method)[0]

    torch.testing.assert_close(read(CamMethod.HIRESCAM), read(CamMethod.CAM), rtol=0, atol=1e-4)
    torch.testing.assert_close(read(CamMethod.XGRADCAM), read(CamMethod.GRADCAM), rtol=0, atol=1e-4)
    torch.testing.assert_close(read(CamMethod.SMOOTH_GRADCAM_PP), read(CamMethod.GRADCAM_PP), rtol=0, atol=1e-4)


def test_weighing_by_hand() -> None:
    # One image, two channels, a map of 1x2; the channels' mean gradients are 2 and -1, the features' sums 4 and 6.
    features = torch.tensor([[[[1.0, 3.0]], [[4.0, 2.0]]]])
    gradients = torch.tensor([[[[5.0, -1.0]], [[-3.0, 1.0]]]])
    assert weigh_as_gradcam(features=features, gradients=gradients).tolist() == [[[0, 4]]]
    assert weigh_as_layercam(features=features, gradients=gradients).tolist() == [[[5, 2]]]
    assert weigh_as_layercam(features=-features, gradients=gradients).tolist() == [[[0, 0]]]
    assert weigh_as_hirescam(features=features, gradients=gradients).tolist() == [[[5 - 12, -3 + 2]]]
    # Weights (5 - 3) / 4 and (-12 + 2) / 6.
    by_xgradcam = weigh_as_xgradcam(features=features, gradients=gradients * torch.tensor([1.0, -1]).view(1, 2, 1, 1))
    torch.testing.assert_close(by_xgradcam, torch.tensor([[[0.5 + 20 / 3, 1.5 + 10 / 3]]]))
    # Weights 5 * 25 / (50 + 4 * 125) and 1 / (2 + 6): one positive gradient each.
    by_gradcam_pp = weigh_as_gradcam_pp(features=features, gradients=gradients)
    torch.testing.assert_close(by_gradcam_pp, torch.tensor([[[5 / 22 + 4 / 8, 15 / 22 + 2 / 8]]]))


def test_features_that_sum_to_zero_or_cancel_a_denominator_give_no_nan() -> None:
    gradients = torch.tensor([[[[1.0, -2.0]]]])
    zero_sum = torch.tensor([[[[1.0, -1.0]]]])
    assert weigh_as_xgradcam(features=zero_sum, gradients=gradients).tolist() == [[[0, 0]]]
    cancelling = torch.tensor([[[[1.0, -3.0]]]])  # 2 * 1 + (1 - 3) * 1 == 0
    assert weigh_as_gradcam_pp(features=cancelling, gradients=gradients).tolist() == [[[0, 0]]]
    assert weigh_as_gradcam_pp(features=zero_sum, gradients=torch.zeros(1, 1, 1, 2)).tolist() == [[[0, 0]]]


def features_and_gradients(
    net: Classifier, images: Tensor, block: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the features at a named module and the class scores' gradients there, by a plain backward pass."""
    kept: list[Tensor] = []
    with net.get_submodule(block).register_forward_hook(lambda _module, _inputs, output: kept.append(output)):
        logits = net(images)
    kept[0].retain_grad()
    sum(logits[row, class_idx] for row, class_idx in enumerate(CLASS_IDX[: len(images)].tolist())).backward()
    assert kept[0].grad is not None
    return kept[0].detach().double().numpy(), kept[0].grad.double().numpy()


def test_smooth_gradcam_pp_by_hand_on_noisy_images() -> None:
    net, images = fitting_classifier(CamMethod.SMOOTH_GRADCAM_PP), make_images(2, 64, 64)
    (found,), _ = smooth_gradcam_pp(make_request(net, images, (1,)))
    block = f"encoder.trunk.{net.encoder.trunk.feature_info[1]['module']}"  # type: ignore[index]
    net.requires_grad_()
    generator = make_generator(NOISE_SEED, "smooth_gradcam++")
    noises = [NOISE_STD * torch.randn(3, 64, 64, generator=generator) for _ in range(8)]
    assert (len(noises), NOISE_STD) == (SMOOTH_PASSES, 0.15), "what is said of the method"
    gradients = np.stack([features_and_gradients(net, images + noise, block)[1] for noise in noises])
    features, plain = features_and_gradients(net, images, block)
    assert np.abs(gradients[0] - gradients[1]).max() > 0.1 * np.abs(plain).max(), "the noise changes nothing"
    first, second, third = ((gradients**power).mean(axis=0) for power in (1, 2, 3))
    alpha = second / (2 * second + features.sum(axis=(2, 3), keepdims=True) * third)
    weights = np.nansum(alpha * np.maximum(first, 0), axis=(2, 3), keepdims=True)
    expected = np.maximum((weights * features).sum(axis=1), 0)
    assert expected.max() > 0
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-4 * expected.max())
