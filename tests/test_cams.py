"""CAMs agree with torch-cam on the real encoder, and nothing of them stays behind in the model."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchcam.methods import CAM, GradCAM, LayerCAM

from pipeline.cams import (
    average_cams,
    compute_cam,
    normalize_cam,
    weigh_as_cam,
    weigh_as_gradcam,
    weigh_as_layercam,
)
from pipeline.config import CamMethod, EncoderWeights
from pipeline.encoder import Encoder, build_encoder
from pipeline.errors import PixelCAMError
from pipeline.teacher import Teacher, build_teacher

CLASS_IDX = torch.tensor([0, 2, 1, 2])
METHODS = list(CamMethod)


def make_teacher(name: str = "tf_efficientnet_lite0", *, size: int = 96) -> Teacher:
    weights = EncoderWeights.PRETRAINED if name == "tf_efficientnet_lite0" else EncoderWeights.RANDOM
    encoder = build_encoder(name, input_size=size, output_stride=16, weights=weights, seed=0)
    return build_teacher(encoder, classes=3, seed=0).eval()


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return make_teacher()


def make_images(count: int, height: int, width: int) -> Tensor:
    """Return smooth random images, so that neighbouring cells see different things."""
    coarse = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    return interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False).clamp(0, 1)


class Classifier(nn.Module):
    """A teacher as the reference wants it: a module that returns logits."""

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.teacher = teacher

    def forward(self, images: Tensor) -> Tensor:
        return self.teacher(images).image_logits  # type: ignore[no-any-return]


def reference_cams(teacher: Teacher, images: Tensor, method: CamMethod, layers: list[str]) -> Iterator[list[Tensor]]:
    """Yield torch-cam's maps (h, w) of the named layers, image by image."""
    net = Classifier(teacher)
    layer: list[nn.Module | str] = list(layers)
    for image, class_idx in zip(images, CLASS_IDX.tolist(), strict=False):
        extractor: CAM | GradCAM | LayerCAM
        match method:
            case CamMethod.CAM:
                extractor = CAM(net, layer, "teacher.image_head.linear")
            case CamMethod.GRADCAM:
                extractor = GradCAM(net, layer)
            case CamMethod.LAYERCAM:
                extractor = LayerCAM(net, layer)
        with extractor:
            logits = net(image.unsqueeze(0))
            yield [cam[0] for cam in extractor(class_idx, logits)]
        net.zero_grad()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("height", "width"), [(96, 96), (64, 96)])
def test_agrees_with_torch_cam_at_the_last_map(method: CamMethod, height: int, width: int, teacher: Teacher) -> None:
    images = make_images(4, height, width)
    cams, logits = compute_cam(teacher.encoder, teacher.image_head, images, CLASS_IDX, method=method)
    assert cams.shape == (4, height // 16, width // 16)
    assert cams.dtype == torch.float32
    for cam, (expected,) in zip(cams, reference_cams(teacher, images, method, ["teacher.encoder"]), strict=True):
        assert float(expected.max()) > 0.9, "the reference is flat, so that it would show nothing"
        torch.testing.assert_close(cam, expected, rtol=0, atol=1e-4)
    with torch.inference_mode():
        torch.testing.assert_close(logits, teacher(images).image_logits)


@pytest.mark.parametrize("method", [CamMethod.GRADCAM, CamMethod.LAYERCAM])
def test_agrees_with_torch_cam_fused_over_three_depths(method: CamMethod, teacher: Teacher) -> None:
    images = make_images(4, 96, 96)
    cams, _ = compute_cam(teacher.encoder, teacher.image_head, images, CLASS_IDX, method=method, layers=(-1, 2, -2))
    assert cams.shape == (4, 12, 12)
    # Depths 2 and 3 of five end with these blocks, at strides 8 and 16.
    names = ["teacher.encoder", "teacher.encoder.trunk.blocks.2", "teacher.encoder.trunk.blocks.4"]
    for cam, maps in zip(cams, reference_cams(teacher, images, method, names), strict=True):
        enlarged = [interpolate(each[None, None], size=(12, 12), mode="bilinear")[0, 0] for each in maps]
        mean = sum(enlarged, torch.zeros(12, 12)) / 3
        expected = (mean - mean.min()) / (mean.max() - mean.min())
        torch.testing.assert_close(cam, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("layers", [(-1,), (-2, -1)])
def test_batch_gives_what_single_images_give(method: CamMethod, layers: tuple[int, ...], teacher: Teacher) -> None:
    images = make_images(3, 64, 64)
    together, logits = compute_cam(
        teacher.encoder, teacher.image_head, images, CLASS_IDX[:3], method=method, layers=layers
    )
    for row in range(3):
        alone, logit = compute_cam(
            teacher.encoder,
            teacher.image_head,
            images[row : row + 1],
            CLASS_IDX[row : row + 1],
            method=method,
            layers=layers,
        )
        torch.testing.assert_close(together[row], alone[0], rtol=0, atol=1e-4)
        torch.testing.assert_close(logits[row], logit[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "convnext_atto"])
def test_other_families_give_maps_in_range_at_any_depth(name: str) -> None:
    other = make_teacher(name, size=64)
    images = make_images(2, 64, 64)
    for layers in [(-1,), (-2, -1), (0,)]:
        cams, _ = compute_cam(
            other.encoder, other.image_head, images, CLASS_IDX[:2], method=CamMethod.CAM, layers=layers
        )
        assert cams.flatten(1).amin(1).tolist() == [0, 0]
        assert cams.flatten(1).amax(1).tolist() == [1, 1]


def test_weighing_by_hand() -> None:
    # One image, two channels, a map of 1x2; the channels' mean gradients are 2 and -1.
    features = torch.tensor([[[[1.0, 3.0]], [[4.0, 2.0]]]])
    gradients = torch.tensor([[[[5.0, -1.0]], [[-3.0, 1.0]]]])
    assert weigh_as_cam(features=features, gradients=gradients).tolist() == [[[-2, 4]]]
    assert weigh_as_gradcam(features=features, gradients=gradients).tolist() == [[[0, 4]]]
    assert weigh_as_layercam(features=features, gradients=gradients).tolist() == [[[5, 2]]]
    assert weigh_as_layercam(features=-features, gradients=gradients).tolist() == [[[0, 0]]]


def test_normalizes_each_map_by_itself_and_a_constant_one_to_zeros() -> None:
    maps = torch.tensor([[[-1.0, 0.0], [1.0, 3.0]], [[7.0, 7.0], [7.0, 7.0]], [[0.0, 0.0], [0.0, 1e-30]]])
    assert normalize_cam(maps).tolist() == [[[0, 0.25], [0.5, 1]], [[0, 0], [0, 0]], [[0, 0], [0, 1]]]


def test_average_is_taken_on_the_finest_grid_and_stretched() -> None:
    coarse = torch.tensor([[[0.0]], [[1.0]]])
    fine = torch.tensor([[[0.0, 1.0]], [[0.5, 0.5]]])
    assert average_cams([coarse, fine]).tolist() == [[[0, 1]], [[0, 0]]]
    first, second = torch.tensor([[[0.0, 1.0, 0.0]]]), torch.tensor([[[1.0, 0.5, 0.0]]])
    torch.testing.assert_close(average_cams([first, second]), torch.tensor([[[2 / 3, 1, 0]]]))  # of means 1/2, 3/4, 0
    assert average_cams([fine]) is fine


class ConstantEncoder(nn.Module):
    """Gives every cell the same features."""

    depths = 1

    def resolve_layer(self, layer: int) -> int:
        return layer % 1

    def forward(self, images: Tensor) -> Tensor:
        return torch.ones(len(images), 4, 3, 5)


@pytest.mark.parametrize("method", METHODS)
def test_constant_features_give_zeros(method: CamMethod, teacher: Teacher) -> None:
    head = type(teacher.image_head)(4, 3)
    encoder: Encoder = ConstantEncoder()  # type: ignore[assignment]
    cams, _ = compute_cam(encoder, head, make_images(4, 8, 8), CLASS_IDX, method=method)
    assert cams.shape == (4, 3, 5)
    assert not cams.any()


class RaisingHead(nn.Module):
    """Fails after the encoder has run."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1)

    def forward(self, features: Tensor) -> Tensor:
        raise ValueError(f"no logits for {tuple(features.shape)}")


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("layers", [(-1,), (-2, -1)])
def test_nothing_stays_behind(fails: bool, layers: tuple[int, ...]) -> None:
    model = make_teacher("test_efficientnet", size=64)
    head = RaisingHead() if fails else model.image_head
    model.train()
    model.encoder.trunk.blocks.eval()  # type: ignore[union-attr]
    model.encoder.trunk.conv_stem.weight.requires_grad_(False)  # type: ignore[union-attr]

    def state() -> list[object]:
        modules = [*model.modules(), *head.modules()]
        hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in modules]
        return [
            [module.training for module in modules],
            hooks,
            [parameter.requires_grad for module in (model, head) for parameter in module.parameters()],
            [parameter.grad for module in (model, head) for parameter in module.parameters()],
            torch.is_grad_enabled(),
        ]

    before = state()
    tensors = {name: value.clone() for name, value in model.state_dict().items()}
    images = make_images(2, 64, 64)
    try:
        compute_cam(model.encoder, head, images, CLASS_IDX[:2], method=CamMethod.LAYERCAM, layers=layers)
    except ValueError:
        assert fails
    else:
        assert not fails
    assert state() == before
    assert not images.requires_grad
    assert all(torch.equal(value, tensors[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("layers", [(-1,), (-2, -1)])
def test_works_where_gradients_are_off(layers: tuple[int, ...], teacher: Teacher) -> None:
    images, class_idx = make_images(2, 64, 64), CLASS_IDX[:2]
    encoder, head = teacher.encoder, teacher.image_head
    expected, _ = compute_cam(encoder, head, images, class_idx, method=CamMethod.LAYERCAM, layers=layers)
    with torch.no_grad():
        found, _ = compute_cam(encoder, head, images, class_idx, method=CamMethod.LAYERCAM, layers=layers)
    assert torch.equal(found, expected)
    with torch.inference_mode():
        images, class_idx = images.clone(), class_idx.clone()  # made here, so that they are inference tensors
        found, _ = compute_cam(encoder, head, images, class_idx, method=CamMethod.LAYERCAM, layers=layers)
    assert torch.equal(found, expected)


def test_unknown_layer_is_refused(teacher: Teacher) -> None:
    with pytest.raises(PixelCAMError, match=r"cam\.layers: .*got 9"):
        compute_cam(
            teacher.encoder,
            teacher.image_head,
            make_images(1, 64, 64),
            CLASS_IDX[:1],
            method=CamMethod.CAM,
            layers=(9,),
        )
