"""All CAM methods keep the one convention, and nothing of them stays behind in the model."""

from collections import Counter

import pytest
import torch
from classifiers import CLASS_IDX, Classifier, fitting_classifier, make_classifier, make_fitting_classifier, make_images
from torch import Tensor, nn

from pipeline.cams.methods import average_cams, compute_cam
from pipeline.cams.request import normalize_cam
from pipeline.encoders.encoder import Encoder
from pipeline.encoders.image_heads import ImageHead, build_image_head
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import CamMethod, ImageHeadName

LAST_LAYER_ONLY = [CamMethod.CAM, CamMethod.ROLLOUT, CamMethod.TSCAM, CamMethod.SAT]
ANY_LAYER = [method for method in CamMethod if method not in LAST_LAYER_ONLY]
GRADIENT = [method for method in ANY_LAYER if method not in (CamMethod.SCORECAM, CamMethod.EIGENCAM)]
CASES = [
    *((method, (-1,)) for method in CamMethod),
    *((method, (-2, -1)) for method in ANY_LAYER),
]


def compute(net: Classifier, images: Tensor, method: CamMethod, layers: tuple[int, ...] = (-1,)) -> Tensor:
    return compute_cam(net.encoder, net.head, images, CLASS_IDX[: len(images)], method=method, layers=layers)[0]


@pytest.mark.parametrize(("method", "layers"), CASES)
def test_batch_gives_what_single_images_give(method: CamMethod, layers: tuple[int, ...]) -> None:
    net, images = fitting_classifier(method), make_images(2, 64, 96)
    together, logits = compute_cam(net.encoder, net.head, images, CLASS_IDX[:2], method=method, layers=layers)
    assert together.dtype == logits.dtype == torch.float32
    assert together.shape == (2, 4, 6)
    assert together.flatten(1).amin(1).tolist() == [0, 0]
    assert together.flatten(1).amax(1).tolist() == [1, 1]
    with torch.inference_mode():
        torch.testing.assert_close(logits, net(images), rtol=1e-4, atol=1e-5)
    for row in range(2):
        alone, _ = compute_cam(
            net.encoder, net.head, images[row, None], CLASS_IDX[row, None], method=method, layers=layers
        )
        torch.testing.assert_close(together[row], alone[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", CamMethod)
def test_rerun_gives_the_same_bytes(method: CamMethod) -> None:
    net, images = fitting_classifier(method), make_images(2, 64, 64)
    first = compute(net, images, method)
    torch.rand(1)  # the global generator has moved on
    assert torch.equal(compute(net, images, method), first)


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "convnext_atto"])
def test_other_families_give_maps_in_range_at_any_depth(name: str) -> None:
    net, images = make_classifier(name, size=64), make_images(2, 64, 64)
    for layers in [(-1,), (-2, -1), (0,)]:
        for method in (CamMethod.HIRESCAM, CamMethod.EIGENCAM):
            cams = compute(net, images, method, layers)
            assert cams.flatten(1).amin(1).tolist() == [0, 0]
            assert cams.flatten(1).amax(1).tolist() == [1, 1]


def count_of_passes(method: CamMethod, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Return how many images the encoder saw and how many gradients were taken, for one image."""
    net, passes = make_fitting_classifier(method), Counter[str]()
    differentiate = torch.autograd.grad

    def count_forward(_module: nn.Module, _inputs: object, features: Tensor) -> None:
        passes["forward"] += len(features)

    def count_backward(scores: Tensor, maps: list[Tensor]) -> tuple[Tensor, ...]:
        passes["backward"] += 1
        return differentiate(scores, maps)

    net.encoder.register_forward_hook(count_forward)
    monkeypatch.setattr(torch.autograd, "grad", count_backward)
    compute(net, make_images(1, 64, 64), method)
    return passes["forward"], passes["backward"]


@pytest.mark.parametrize("method", CamMethod)
def test_cost_is_what_the_documentation_says(method: CamMethod, monkeypatch: pytest.MonkeyPatch) -> None:
    # Score-CAM masks the image by each of 256 channels, smooth Grad-CAM++ takes eight noisy copies.
    expected = {CamMethod.SCORECAM: (257, 0), CamMethod.SMOOTH_GRADCAM_PP: (9, 8)}
    assert count_of_passes(method, monkeypatch) == expected.get(method, (1, int(method in GRADIENT)))


@pytest.mark.parametrize("layers", [(-1,), (-2, -1)])
@pytest.mark.parametrize("method", GRADIENT)
def test_nothing_below_the_layers_asked_for_is_differentiated(method: CamMethod, layers: tuple[int, ...]) -> None:
    net = make_fitting_classifier(method)
    seen = []
    net.encoder.register_forward_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    compute(net, make_images(1, 64, 64), method, layers)
    assert any(seen) == (layers != (-1,))


def test_normalizes_each_map_by_itself_and_a_constant_one_to_zeros() -> None:
    maps = torch.tensor([[[-1.0, 0.0], [1.0, 3.0]], [[7.0, 7.0], [7.0, 7.0]], [[0.0, 0.0], [0.0, 1e-30]]])
    assert normalize_cam(maps).tolist() == [[[0, 0.25], [0.5, 1]], [[0, 0], [0, 0]], [[0, 0], [0, 1]]]


@pytest.mark.parametrize("value", [7.0, -7.0, 0.1])
def test_map_that_is_constant_but_for_rounding_is_normalized_to_zeros(value: float) -> None:
    above = torch.nextafter(torch.tensor(value), torch.tensor(9.0))
    maps = torch.stack([torch.tensor(value), above]).view(1, 1, 2)
    assert maps[0, 0, 0] != maps[0, 0, 1]
    assert normalize_cam(maps).tolist() == [[[0, 0]]]


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
    mean = torch.zeros(1, 3, 1, 1)

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def resolve_layer(self, layer: int) -> int:
        return layer % 1

    def forward(self, images: Tensor) -> Tensor:
        return self.value * torch.arange(1.0, 5).view(1, 4, 1, 1).expand(len(images), 4, 3, 5)

    def forward_layers(self, images: Tensor, layers: tuple[int, ...]) -> list[Tensor]:
        return [self(images)] * (len(layers) + 1)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1])
@pytest.mark.parametrize("method", [*ANY_LAYER, CamMethod.CAM, CamMethod.SAT])
def test_constant_features_give_zeros(method: CamMethod, value: float) -> None:
    name = ImageHeadName.SAT if method == CamMethod.SAT else ImageHeadName.GAP
    encoder: Encoder = ConstantEncoder(value)  # type: ignore[assignment]
    head = build_image_head(name, channels=4, classes=3)
    cams, _ = compute_cam(encoder, head, make_images(4, 8, 8), CLASS_IDX, method=method)
    assert cams.shape == (4, 3, 5)
    assert not cams.any()


@pytest.mark.parametrize("layers", [(-1,), (-2, -1)])
@pytest.mark.parametrize("method", GRADIENT)
def test_gradients_of_zero_give_zeros(method: CamMethod, layers: tuple[int, ...]) -> None:
    net = make_fitting_classifier(method)
    for parameter in net.head.parameters():
        nn.init.zeros_(parameter)
    assert not compute(net, make_images(2, 64, 64), method, layers).any()


class RaisingHead(ImageHead):
    """Fails after the encoder has run."""

    name = ImageHeadName.SAT

    def __init__(self) -> None:
        super().__init__(channels=1, classes=3)
        self.linear = nn.Linear(1, 1)

    def forward(self, features: Tensor) -> Tensor:
        raise ValueError(f"no logits for {tuple(features.shape)}")

    class_maps = forward


def fail_in_the_last_block(encoder: Encoder) -> None:
    """Let the encoder fail while it runs."""

    def fail(*_: object) -> None:
        raise ValueError("no features")

    name = encoder.trunk.feature_info[-1]["module"]  # type: ignore[index]
    encoder.trunk.get_submodule(str(name)).register_forward_hook(fail)


def state_of(*tops: nn.Module) -> list[object]:
    """Return what a CAM must leave as it found it."""
    modules = [module for top in tops for module in top.modules()]
    parameters = [parameter for top in tops for parameter in top.parameters()]
    return [
        [module.training for module in modules],
        [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in modules],
        [getattr(module, "fused_attn", None) for module in modules],
        [parameter.requires_grad for parameter in parameters],
        [parameter.grad for parameter in parameters],
        torch.is_grad_enabled(),
    ]


@pytest.mark.parametrize("failing", ["nothing", "encoder", "head"])
@pytest.mark.parametrize(("method", "layers"), CASES)
def test_nothing_stays_behind(method: CamMethod, layers: tuple[int, ...], failing: str) -> None:
    net = make_fitting_classifier(method)
    head = RaisingHead() if failing == "head" else net.head
    net.train()
    net.encoder.trunk.blocks.eval()  # type: ignore[union-attr]
    next(net.encoder.parameters()).requires_grad_(False)
    for module in [module for module in net.modules() if hasattr(module, "fused_attn")][:1]:
        module.fused_attn = False  # type: ignore[assignment]
    if failing == "encoder":
        fail_in_the_last_block(net.encoder)
    before, images = state_of(net, head), make_images(2, 64, 64)
    tensors = {name: value.clone() for name, value in net.state_dict().items()}
    try:
        compute_cam(net.encoder, head, images, CLASS_IDX[:2], method=method, layers=layers)
    except ValueError:
        assert failing != "nothing"
    else:
        assert failing == "nothing"
    assert state_of(net, head) == before
    assert not images.requires_grad
    assert all(torch.equal(value, tensors[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize(("method", "layers"), CASES)
def test_works_where_gradients_are_off(method: CamMethod, layers: tuple[int, ...]) -> None:
    net, images, class_idx = fitting_classifier(method), make_images(1, 64, 64), CLASS_IDX[:1]
    expected = compute(net, images, method, layers)
    with torch.no_grad():
        assert torch.equal(compute(net, images, method, layers), expected)
    with torch.inference_mode():
        images, class_idx = images.clone(), class_idx.clone()  # made here, so that they are inference tensors
        found, _ = compute_cam(net.encoder, net.head, images, class_idx, method=method, layers=layers)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("method", CamMethod)
def test_unknown_layer_is_refused(method: CamMethod) -> None:
    with pytest.raises(PixelCAMError, match=r"cam\.layers: .*got 9"):
        compute(fitting_classifier(method), make_images(1, 64, 64), method, (9,))


@pytest.mark.parametrize("method", LAST_LAYER_ONLY)
def test_method_without_layers_refuses_all_but_the_last(method: CamMethod) -> None:
    net, images = fitting_classifier(method), make_images(1, 64, 64)
    with pytest.raises(PixelCAMError, match=rf"cam\.layers: {method} .*got \[-1, 0\]; use \[-1\]"):
        compute(net, images, method, (-1, 0))
    last = net.encoder.depths - 1  # the same layer by its other name
    assert torch.equal(compute(net, images, method, (last,)), compute(net, images, method))
