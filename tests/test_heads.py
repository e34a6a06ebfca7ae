"""Heads do what their formula says, begin small and seeded, and PixelCAM gives both of them one feature map."""

import pytest
import torch
from tiny import Run
from torch import Tensor, nn

from pipeline.config import EncoderWeights
from pipeline.encoder import Encoder, build_encoder
from pipeline.heads import ImageHead, PixelHead
from pipeline.pixelcam import PixelCAM, PixelCAMLocalizer, build_pixelcam, load_pixelcam
from pipeline.teacher import Teacher, build_teacher


def make_encoder() -> Encoder:
    return build_encoder(
        "test_efficientnet", input_size=64, output_stride=16, weights=EncoderWeights.RANDOM, seed=0
    ).eval()


def make_images() -> Tensor:
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return make_encoder()


@pytest.fixture(scope="module")
def model(encoder: Encoder) -> PixelCAM:
    return build_pixelcam(encoder, ImageHead(encoder.channels, 3), seed=0).eval()


def set_layer(layer: nn.Linear | nn.Conv2d, weight: list[list[float]], bias: list[float]) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight).view_as(layer.weight))
        assert layer.bias is not None
        layer.bias.copy_(torch.tensor(bias))


def test_image_head_pools_then_weighs() -> None:
    head = ImageHead(2, 3)
    set_layer(head.linear, [[1, 0], [0, 1], [1, -2]], [0, 0.5, 1])
    features = torch.tensor([[[[1.0, 3.0]], [[0.0, 2.0]]]])  # channel means 2 and 1
    assert head(features).tolist() == [[2, 1.5, 1]]


def test_pixel_head_weighs_each_cell_by_itself() -> None:
    head = PixelHead(2)
    set_layer(head.convolution, [[1, 0], [2, -1]], [0, 10])
    features = torch.tensor([[[[1.0, 3.0]], [[0.0, 2.0]]]])
    assert head(features).tolist() == [[[[1, 3]], [[12, 14]]]]


@pytest.mark.parametrize("layer", [ImageHead(1280, 4).linear, PixelHead(1280).convolution])
def test_heads_begin_small(layer: nn.Linear | nn.Conv2d) -> None:
    assert layer.bias is not None
    assert not layer.bias.any()
    assert float(layer.weight.detach().std()) == pytest.approx(0.01, rel=0.1)
    assert abs(float(layer.weight.detach().mean())) < 0.001


def test_both_heads_read_one_feature_map(model: PixelCAM) -> None:
    images = make_images()
    with torch.inference_mode():
        output = model(images)
        features = model.encoder(images)
        expected = (model.image_head(features), model.pixel_head(features))
    assert output.image_logits.shape == (2, 3)
    assert output.pixel_logits.shape == (2, 2, 4, 6)
    assert torch.equal(output.image_logits, expected[0])
    assert torch.equal(output.pixel_logits, expected[1])


def test_teacher_gives_the_logits_of_its_head(encoder: Encoder) -> None:
    teacher = build_teacher(encoder, classes=3, seed=0).eval()
    images = make_images()
    with torch.inference_mode():
        assert torch.equal(teacher(images).image_logits, teacher.image_head(encoder(images)))


def test_both_losses_reach_the_encoder() -> None:
    for part in (0, 1):
        encoder = make_encoder()
        model = build_pixelcam(encoder, ImageHead(encoder.channels, 3), seed=0)
        model(make_images())[part].square().sum().backward()
        stem = encoder.trunk.conv_stem.weight.grad  # type: ignore[union-attr]
        assert isinstance(stem, Tensor)
        assert bool(stem.any())
        untouched = (model.pixel_head.convolution, model.image_head.linear)[part]
        assert untouched.weight.grad is None


def test_pixelcam_takes_over_the_teachers_parts(encoder: Encoder) -> None:
    teacher = build_teacher(encoder, classes=3, seed=0)
    model = build_pixelcam(teacher.encoder, teacher.image_head, seed=0)
    assert model.encoder is teacher.encoder
    assert model.image_head is teacher.image_head


def test_heads_depend_on_the_seed_alone(encoder: Encoder) -> None:
    def build(seed: int) -> tuple[Teacher, PixelCAM]:
        torch.rand(3)  # moves the global generator on
        teacher = build_teacher(encoder, classes=2, seed=seed)
        before = torch.get_rng_state()
        model = build_pixelcam(encoder, teacher.image_head, seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        return teacher, model

    def weights(built: tuple[Teacher, PixelCAM]) -> list[Tensor]:
        return [built[0].image_head.linear.weight, built[1].pixel_head.convolution.weight]

    first, again, other = weights(build(0)), weights(build(0)), weights(build(1))
    for part in (0, 1):
        assert torch.equal(first[part], again[part])
        assert not torch.equal(first[part], other[part])
    assert not torch.equal(first[0], first[1].view(2, -1))


def test_localizer_gives_the_probability_of_foreground_whatever_the_class(model: PixelCAM) -> None:
    images = make_images()
    localizer = PixelCAMLocalizer(model)
    found = localizer(images, torch.tensor([0, 1]))
    with torch.inference_mode():
        output = model(images)
    background, foreground = output.pixel_logits.unbind(1)
    torch.testing.assert_close(found.maps, torch.sigmoid(foreground - background))
    assert torch.equal(found.image_logits, output.image_logits)
    assert torch.equal(localizer(images, torch.tensor([2, 2])).maps, found.maps)


def test_localizer_puts_the_model_into_evaluation_mode(model: PixelCAM) -> None:
    images, class_idx = make_images(), torch.tensor([0, 1])
    expected = PixelCAMLocalizer(model)(images, class_idx).maps
    assert torch.equal(PixelCAMLocalizer(model.train())(images, class_idx).maps, expected)


def test_loaded_model_is_ready_for_evaluation(finished: Run) -> None:
    model, info = load_pixelcam(finished.pixelcam)
    assert not any(module.training for module in model.modules())
    assert model.image_head.linear.out_features == len(info.classes)
    assert model.pixel_head.convolution.weight.shape == (2, model.encoder.channels, 1, 1)
