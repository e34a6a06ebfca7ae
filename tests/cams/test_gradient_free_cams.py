"""CAMs without a gradient agree with torch-cam, grad-cam and numpy."""

import math

import numpy as np
import pytest
import torch
from classifiers import (
    CLASS_IDX,
    REAL,
    Classifier,
    NormalizedClassifier,
    fitting_classifier,
    make_classifier,
    make_fitting_classifier,
    make_images,
    make_request,
)
from pytorch_grad_cam import EigenCAM
from torch import Tensor, nn
from torchcam.methods import CAM, ScoreCAM

from pipeline.cams import gradient_free
from pipeline.cams.gradient_free import MASKED_IMAGES_PER_PASS, eigencam, sat, scorecam
from pipeline.cams.methods import compute_cam
from pipeline.cams.request import normalize_cam
from pipeline.encoders.encoder import Encoder
from pipeline.encoders.image_heads import SATHead
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import CamMethod, ImageHeadName


@pytest.fixture(scope="module")
def net() -> Classifier:
    return make_classifier(REAL, size=96)


@pytest.mark.parametrize(("height", "width"), [(96, 96), (64, 96)])
def test_cam_of_the_gap_head_agrees_with_torch_cam(height: int, width: int, net: Classifier) -> None:
    images = make_images(4, height, width)
    cams, logits = compute_cam(net.encoder, net.head, images, CLASS_IDX, method=CamMethod.CAM)
    assert cams.shape == (4, height // 16, width // 16)
    with torch.inference_mode(), CAM(net, "encoder", "head.linear") as reference:
        torch.testing.assert_close(logits, net(images))
        (expected,) = reference(CLASS_IDX.tolist())
    torch.testing.assert_close(cams, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in ImageHeadName if name != ImageHeadName.GAP])
def test_cam_is_the_heads_map_of_each_images_class(name: ImageHeadName) -> None:
    net, images = make_classifier("test_efficientnet", size=64, head=name), make_images(4, 64, 64)
    cams, _ = compute_cam(net.encoder, net.head, images, CLASS_IDX, method=CamMethod.CAM)
    with torch.inference_mode():
        maps = net.head.class_maps(net.encoder(images))
    for cam, each, class_idx in zip(cams, maps, CLASS_IDX.tolist(), strict=True):
        chosen = each[class_idx]
        torch.testing.assert_close(cam, (chosen - chosen.min()) / (chosen.max() - chosen.min()), rtol=0, atol=1e-5)


class IdentityEncoder(nn.Identity):
    """Takes an image for its features."""

    depths = 1

    def resolve_layer(self, layer: int) -> int:
        return layer % 1


def test_sat_is_the_spatial_tokens_map_and_needs_its_head() -> None:
    head = SATHead(channels=2, classes=2)
    with torch.no_grad():
        head.query.zero_()
        head.query[:, 0] = 8 * math.log(3)  # sqrt(d) is 8
        head.projections.weight.zero_()
        head.projections.weight[256:512:64, 0] = 1  # the keys of four attention heads say the first channel
    encoder: Encoder = IdentityEncoder()  # type: ignore[assignment]
    features = torch.tensor([[[[1000.0, 0.0]], [[0.0, 1000.0]]]])  # normalized: 1 and -1
    (found,), _ = sat(make_request(Classifier(encoder, head), features))
    torch.testing.assert_close(found, torch.tensor([[[0.75, 0.25]]]))  # the sigmoids of ln 3 and -ln 3
    other = fitting_classifier(CamMethod.CAM)
    with pytest.raises(PixelCAMError, match=r"cam\.method: sat .*image head gap .*model\.image_head: sat"):
        sat(make_request(other, make_images(2, 64, 64)))


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "test_efficientnet"])
def test_eigencam_agrees_with_grad_cam_up_to_its_random_sign(name: str, net: Classifier) -> None:
    model = net if name == REAL else fitting_classifier(CamMethod.EIGENCAM)
    images = make_images(4, 64, 96)
    (found,), _ = eigencam(make_request(model, images))
    with EigenCAM(model, [model.encoder]) as reference:
        reference(images, [lambda _: 0] * 4)
        features = reference.activations_and_grads.activations[0].detach()
        expected = torch.from_numpy(reference.get_cam_image(None, None, None, features.numpy(), None, False))
    strengths = features.mean(dim=(2, 3), keepdim=True)
    along_mean = (features * strengths).sum(dim=1)  # grows where features are strong
    for cam, each, strength in zip(found, expected, along_mean, strict=True):
        scale = float(each.abs().max())
        sign = torch.sign((cam * each).sum())
        torch.testing.assert_close(cam, sign * each, rtol=0, atol=1e-4 * scale)
        assert float((cam * (strength - strength.mean())).sum()) > 0


def test_eigencam_by_hand() -> None:
    # Cells (1, 0), (3, 0), (5, 3): centred (-2, -1), (0, -1), (2, 2); of the covariances 8, 6, 6 the largest
    # eigenvalue is 7 + sqrt(37), for the direction (6, sqrt(37) - 1).
    features = torch.tensor([[1.0, 3.0, 5.0], [0.0, 0.0, 3.0]]).view(1, 2, 1, 3)
    direction = np.array([6, 37**0.5 - 1]) / np.hypot(6, 37**0.5 - 1)
    expected = np.array([[-2, -1], [0, -1], [2, 2]]) @ direction
    found = gradient_free._first_component(features)
    np.testing.assert_allclose(found.numpy().ravel(), expected, rtol=1e-5)
    # Negative features are strongest where they are lowest.
    np.testing.assert_allclose(gradient_free._first_component(-features).numpy().ravel(), expected, rtol=1e-5)


def test_features_that_differ_by_rounding_alone_have_no_component() -> None:
    features = torch.full((1, 2, 1, 3), 1000.0)
    features[0, 0, 0, 0] = 1000.00006
    assert gradient_free._first_component(features).tolist() == [[[0, 0, 0]]]


@pytest.mark.parametrize(
    ("name", "layer", "module"),
    [
        (REAL, 1, "encoder.trunk.blocks.1"),  # 24 channels, so that there are few passes
        ("test_efficientnet", -1, "encoder"),
    ],
)
def test_scorecam_agrees_with_torch_cam(name: str, layer: int, module: str) -> None:
    net, images = make_classifier(name, size=64), make_images(4, 64, 96)
    with torch.no_grad():
        net.head.linear.weight.mul_(30)  # type: ignore[union-attr, operator]  # scores that differ
    cams, _ = compute_cam(net.encoder, net.head, images, CLASS_IDX, method=CamMethod.SCORECAM, layers=(layer,))
    normalized = (images - net.encoder.mean) / net.encoder.std
    reference_net = NormalizedClassifier(net).eval()
    with torch.inference_mode(), ScoreCAM(reference_net, f"classifier.{module}") as reference:
        reference_net(normalized)
        (expected,) = reference(CLASS_IDX.tolist())
        unweighted = net.encoder.forward_layers(images, [layer])[0].mean(dim=1).relu()
    torch.testing.assert_close(cams, expected, rtol=0, atol=1e-4)
    assert (cams - normalize_cam(unweighted)).abs().max() > 1e-2, "channels of one weight would show nothing"


def test_scorecam_runs_few_masked_images_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    net, images = make_fitting_classifier(CamMethod.SCORECAM), make_images(2, 64, 64)
    sizes: list[int] = []

    def note(_module: object, inputs: tuple[Tensor]) -> None:
        sizes.append(len(inputs[0]))

    net.encoder.register_forward_pre_hook(note)
    (expected,), _ = scorecam(make_request(net, images))
    assert sizes == [2, *[MASKED_IMAGES_PER_PASS] * (2 * 256 // MASKED_IMAGES_PER_PASS)]
    monkeypatch.setattr(gradient_free, "MASKED_IMAGES_PER_PASS", 50)
    sizes.clear()
    (found,), _ = scorecam(make_request(net, images))
    assert sizes == [2, *[50] * 10, 12]
    torch.testing.assert_close(found, expected)
