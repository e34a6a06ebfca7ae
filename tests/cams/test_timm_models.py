"""CAMs of timm classifiers with their own heads, against torch-cam and by hand; nothing of the classifier changes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchcam.methods import CAM, GradCAM, LayerCAM

from pipeline.cams import timm_models
from pipeline.cams.timm_models import timm_cam
from pipeline.encoders.encoder import published_input
from pipeline.params.errors import PixelCAMError

import timm  # isort: skip - torchvision can be imported once an encoder's module is

SIZE = 96


def make_model(name: str, **options: Any) -> nn.Module:  # noqa: ANN401 - what timm takes
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: nn.Module = timm.create_model(name, num_classes=5, **options)
    return model.eval()


def make_images() -> list[NDArray[np.uint8]]:
    generator = np.random.default_rng(0)
    return [np.kron(generator.integers(0, 256, (6, 6, 3)), np.ones((16, 16, 1))).astype(np.uint8) for _ in range(3)]


def normalized(model: nn.Module) -> Tensor:
    data = published_input(model)
    batch = torch.from_numpy(np.stack(make_images())).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(data[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    return (batch - mean) / std


@pytest.mark.parametrize(
    ("method", "reference"),
    [
        ("gradcam", lambda model: GradCAM(model, "layer4")),
        ("layercam", lambda model: LayerCAM(model, "layer4")),
        ("cam", lambda model: CAM(model, "layer4", "fc")),
    ],
)
def test_maps_of_a_resnet_are_those_of_torch_cam(method: str, reference: Callable[[nn.Module], CAM]) -> None:
    model = make_model("resnet18")
    found = timm_cam(model, make_images(), method=method, class_idx=[4, 0, 2], input_size=SIZE)
    extractor = reference(model)
    logits = model(normalized(model).requires_grad_())
    (expected,) = extractor([4, 0, 2], logits)
    enlarged = nn.functional.interpolate(expected.detach()[:, None], size=(SIZE, SIZE), mode="bilinear")[:, 0]
    for each, one in zip(found, enlarged, strict=True):
        np.testing.assert_allclose(each.cam, one.numpy(), atol=1e-4)
    assert [each.class_idx for each in found] == [4, 0, 2]


@pytest.mark.parametrize(
    ("name", "options", "method", "layers"),
    [
        ("test_efficientnet", {}, "cam", [-1]),
        ("test_convnext", {}, "hirescam", [-1]),  # its last layers norm what they pool
        ("test_resnet", {}, "layercam", [-2, -1]),
        ("test_vit", {"global_pool": "avg"}, "cam", [-1]),
        ("test_vit", {"global_pool": "avg"}, "layercam", [-1]),
        ("test_vit", {}, "layercam", [-2]),
        ("test_vit", {}, "rollout", [-1]),
        ("swin_tiny_patch4_window7_224", {"img_size": SIZE, "window_size": 3}, "cam", [-1]),
    ],
)
def test_any_family_has_maps_for_the_class_that_it_predicts(
    name: str, options: dict[str, object], method: str, layers: list[int]
) -> None:
    model = make_model(name, **options)
    side = 64 if "img_size" not in options else SIZE
    images = [*make_images()[:1], make_images()[1][:40, :70]]
    found = timm_cam(model, images, method=method, layers=layers, input_size=SIZE if side == SIZE else None)
    assert [each.cam.shape for each in found] == [(96, 96), (40, 70)]
    assert all(each.cam.dtype == np.float32 and 0 <= each.cam.min() < each.cam.max() <= 1 for each in found)
    if side == SIZE:
        assert found[0].class_idx == model(normalized(model))[0].argmax().item()


def test_the_classifier_stays_as_it_is() -> None:
    model = make_model("test_efficientnet").train()
    model.get_submodule("blocks.0").eval()
    next(model.parameters()).requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    timm_cam(model, make_images(), method="layercam")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == [
        False,
        *[True] * (len(list(model.parameters())) - 1),
    ]
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("test_resnet", {"method": "lime"}, "method: expected one of cam, gradcam, .*, got 'lime'"),
        ("test_vit", {"method": "layercam"}, r"layers: the classifier of test_vit reads the class token alone.*\[-2\]"),
        ("test_resnet", {"method": "layercam", "layers": [9]}, "test_resnet has depths"),
        (
            "test_resnet",
            {"method": "cam", "class_idx": [5]},
            r"class_idx: .* from 0 to 4 for each of 1 images, got \[5\]",
        ),
        ("test_resnet", {"method": "cam", "class_idx": [0, 1]}, r"class_idx: .* each of 1 images, got \[0, 1\]"),
        ("test_resnet", {"method": "rollout"}, "use a plain vision transformer"),
        ("test_mlp_mixer", {"method": "layercam"}, "gives no feature map"),
    ],
)
def test_what_does_not_fit_is_refused(model: str, options: dict[str, object], message: str) -> None:
    names = {"test_mlp_mixer": "mixer_s32_224"}
    with pytest.raises(PixelCAMError, match=message):
        timm_cam(make_model(names.get(model, model)), make_images()[:1], **options)  # type: ignore[arg-type]


def test_a_model_that_was_published_for_oblong_images_reads_squares_of_their_longer_side() -> None:
    model = make_model("test_resnet")
    published: Any = model.pretrained_cfg
    published["input_size"] = (3, 64, 96)
    assert timm_models._whole_model(model, None).spec.input_size == 96


def test_every_class_that_is_asked_for_has_to_be_one_of_the_models() -> None:
    with pytest.raises(PixelCAMError, match=r"from 0 to 4 for each of 2 images, got \[0, 5\]"):
        timm_cam(make_model("test_resnet"), make_images()[:2], method="cam", class_idx=[0, 5])


def test_what_is_no_classifier_or_no_image_is_refused() -> None:
    with pytest.raises(PixelCAMError, match="expected a timm model with a classifier"):
        timm_cam(nn.Linear(2, 2), make_images(), method="cam")
    with pytest.raises(PixelCAMError, match="expected a timm model with a classifier"):
        timm_cam(timm.create_model("test_resnet", num_classes=0), make_images(), method="cam")
    assert timm_cam(make_model("test_resnet"), [], method="cam") == []
    with pytest.raises(PixelCAMError, match=r"an array uint8 \(H, W, 3\), got uint8 \(96, 3\).*into a list"):
        timm_cam(make_model("test_resnet"), make_images()[0], method="cam")  # type: ignore[arg-type]
