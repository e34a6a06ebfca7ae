"""Heads do what their formula says, begin small and seeded, and PixelCAM gives both of them one feature map."""

import math

import pytest
import torch
from tiny import Run
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate

from pipeline.encoders.encoder import Encoder, build_encoder
from pipeline.encoders.image_heads import (
    DeepMILHead,
    GapHead,
    ImageHead,
    LseHead,
    MaxHead,
    SATHead,
    TSCAMHead,
    WildcatHead,
    build_image_head,
)
from pipeline.encoders.pixel_heads import LinearPixelHead
from pipeline.models.pixelcam import PixelCAM, PixelCAMLocalizer, build_pixelcam, load_pixelcam
from pipeline.models.teacher import Teacher, build_teacher
from pipeline.params.config import MapParams
from pipeline.params.vocabulary import EncoderWeights, ImageHeadName, PixelHeadName
from pipeline.runtime.seeding import global_seed

LINEAR = PixelHeadName.LINEAR


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
    return build_pixelcam(encoder, GapHead(channels=encoder.channels, classes=3), LINEAR, seed=0).eval()


def set_layer(layer: nn.Linear | nn.Conv2d, weight: list[list[float]], bias: list[float]) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight).view_as(layer.weight))
        assert layer.bias is not None
        layer.bias.copy_(torch.tensor(bias))


HEADS: dict[ImageHeadName, type[ImageHead]] = {
    ImageHeadName.GAP: GapHead,
    ImageHeadName.MAX: MaxHead,
    ImageHeadName.LSE: LseHead,
    ImageHeadName.WILDCAT: WildcatHead,
    ImageHeadName.DEEPMIL: DeepMILHead,
    ImageHeadName.TSCAM: TSCAMHead,
    ImageHeadName.SAT: SATHead,
}

# Two channels and two cells; the channel means are 2 and 1.
FEATURES = torch.tensor([[[[1.0, 3.0]], [[0.0, 2.0]]]])


def one_channel(cells: list[list[float]]) -> Tensor:
    return torch.tensor(cells, dtype=torch.float32)[None, None]


def build(name: ImageHeadName, *, channels: int = 6, classes: int = 3, seed: int = 0) -> ImageHead:
    with global_seed(seed, "image head"):
        return build_image_head(name, channels=channels, classes=classes)


def shake(head: nn.Module) -> None:
    """Draw every weight anew and large, so that a formula has something to say."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))


def test_gap_pools_then_weighs() -> None:
    head = GapHead(channels=2, classes=3)
    set_layer(head.linear, [[1, 0], [0, 1], [1, -2]], [0, 0.5, 1])
    assert head(FEATURES).tolist() == [[2, 1.5, 1]]
    assert head.class_maps(FEATURES).tolist() == [[[[1, 3]], [[0.5, 2.5]], [[2, 0]]]]


def test_max_weighs_then_takes_the_highest_cell() -> None:
    head = MaxHead(channels=2, classes=3)
    set_layer(head.convolution, [[1, 0], [0, 1], [1, -2]], [0, 0.5, 1])
    assert head.class_maps(FEATURES).tolist() == [[[[1, 3]], [[0.5, 2.5]], [[2, 0]]]]
    assert head(FEATURES).tolist() == [[3, 2.5, 2]]


def test_lse_is_a_smooth_maximum() -> None:
    # Cells 0 and ln(3)/10: (1/10) ln((1 + 3) / 2).
    maps = torch.tensor([0.0, math.log(3) / 10]).view(1, 1, 1, 2)
    pooled = LseHead(channels=1, classes=1).pool(maps)
    assert pooled.item() == pytest.approx(math.log(2) / 10)
    constant = LseHead(channels=1, classes=1).pool(torch.full((1, 1, 3, 4), 1e4))
    assert constant.item() == pytest.approx(1e4)


def test_wildcat_averages_the_four_maps_of_each_class() -> None:
    head = WildcatHead(channels=1, classes=2)
    set_layer(head.convolution, [[1], [2], [3], [6], [-1], [-1], [0], [0]], [0, 0, 0, 4, 0, 0, 0, 0])
    assert head.class_maps(one_channel([[1, 2]])).tolist() == [[[[4, 7]], [[-0.5, -1]]]]


def test_wildcat_adds_the_highest_fifth_and_part_of_the_lowest() -> None:
    head = WildcatHead(channels=1, classes=1)
    cells = torch.tensor([3.0, 9, 0, 7, 5, 1, 8, 2, 6, 4])
    # Two of ten cells: (9 + 8) / 2 + 0.7 * (0 + 1) / 2.
    assert head.pool(cells.view(1, 1, 2, 5)).item() == pytest.approx(8.85)
    # One of four cells.
    assert head.pool(cells[:4].view(1, 1, 2, 2)).item() == pytest.approx(9)
    assert head.pool(torch.tensor(2.0).view(1, 1, 1, 1)).item() == pytest.approx(3.4)


def test_tscam_convolves_the_neighbourhood_then_averages() -> None:
    head = TSCAMHead(channels=1, classes=2)
    set_layer(head.convolution, [[1.0] * 9, [0.0] * 4 + [2.0] + [0.0] * 4], [0, 1])
    features = one_channel([[1, 2, 4]])
    assert head.class_maps(features).tolist() == [[[[3, 7, 6]], [[3, 5, 9]]]]
    torch.testing.assert_close(head(features), torch.tensor([[16 / 3, 17 / 3]]))


def test_deepmil_weighs_cells_by_gated_attention() -> None:
    head = DeepMILHead(channels=1, classes=2)
    with torch.no_grad():
        for layer in (head.content, head.gate, head.score):
            layer.weight.zero_()
        # Feature 1: tanh 1/2, gate 3/4, score ln 3; feature 0: score 0. Attention 1/4 and 3/4.
        head.content.weight[0] = math.atanh(0.5)
        head.gate.weight[0] = math.log(3)
        head.score.weight[0, 0] = math.log(3) / 0.375
    set_layer(head.linear, [[2], [-4]], [1, 0])
    features = one_channel([[0, 1]])
    torch.testing.assert_close(head.class_maps(features), torch.tensor([[[[0.25, 0.75]], [[0.25, 0.75]]]]))
    torch.testing.assert_close(head(features), torch.tensor([[2.5, -3.0]]))


def make_sat() -> SATHead:
    """Return a head whose M is 3/4 where the first of two channels is the higher, else 1/4."""
    head = SATHead(channels=2, classes=2)
    with torch.no_grad():
        head.query.zero_()
        head.projections.weight.zero_()
        for number in range(4):
            head.query[number, 5] = 8 * math.log(3)  # sqrt(d) is 8
            head.projections.weight[256 + 64 * number + 5, 0] = 1  # the keys come after 4 * 64 queries
    return head


def test_sat_map_is_the_sigmoid_of_token_and_key() -> None:
    features = torch.tensor([[[[1000.0, 0.0]], [[0.0, 1000.0]]]])  # normalized: 1 and -1
    maps = make_sat().class_maps(features)
    torch.testing.assert_close(maps, torch.tensor([[[[0.75, 0.25]], [[0.75, 0.25]]]]))


def test_sat_map_is_the_mean_over_attention_heads() -> None:
    head = make_sat()
    with torch.no_grad():
        head.query[1:] = 0  # these say 1/2
    maps = head.class_maps(torch.tensor([[[[1000.0, 0.0]], [[0.0, 1000.0]]]]))
    torch.testing.assert_close(maps[0, 0], torch.tensor([[0.5625, 0.4375]]))


def test_sat_penalty_is_area_and_normalization_loss() -> None:
    # Area: |0.35 - 1/2|. Smoothed at a border: (2 * 3/4 + 1/4) / 3 = 7/12 and 5/12; 7/12 * 5/12 for both.
    penalty = make_sat().penalty(torch.tensor([[[[1000.0, 0.0]], [[0.0, 1000.0]]]]))
    assert penalty.item() == pytest.approx(0.15 + 35 / 144)
    # The area is the batch's: a map of 1/4 beside one of 3/4 has the mean 1/2, like one image that has both.
    ones, zeros = torch.full((1, 1, 3, 3), 1000.0), torch.zeros(1, 1, 3, 3)
    batch = torch.cat([torch.cat([ones, zeros], 1), torch.cat([zeros, ones], 1)])
    assert make_sat().penalty(batch).item() == pytest.approx(0.15 + 3 / 16)


def test_sat_smooths_as_a_gaussian() -> None:
    maps = torch.zeros(1, 1, 5, 5)
    maps[0, 0, 2, 2] = 16
    smooth = SATHead(channels=2, classes=2)._smoothed(maps)[0, 0]
    assert smooth[1:4, 1:4].tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    assert float(smooth.sum()) == 16


def test_sat_masks_the_attention_of_every_cell_by_the_map() -> None:
    head = build(ImageHeadName.SAT, channels=5, classes=2).double()
    shake(head)
    assert isinstance(head, SATHead)
    features = torch.randn(2, 5, 2, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected = features.clone()
    for image in range(2):
        cells = features[image].flatten(1).T
        queries, keys, values = head.projections(head.norm(cells)).chunk(3, dim=1)
        mask = torch.stack([(keys[:, 64 * n : 64 * n + 64] @ head.query[n] / 8).sigmoid() for n in range(4)]).mean(0)
        for cell in range(6):
            attended = []
            for n in range(4):
                part = slice(64 * n, 64 * n + 64)
                weights = (keys[:, part] @ queries[cell, part] / 8).softmax(0) * mask
                attended.append(weights @ values[:, part])
            expected[image, :, cell // 3, cell % 3] += head.output(torch.cat(attended))
        torch.testing.assert_close(head.class_maps(features)[image, 0].double(), mask.view(2, 3), atol=1e-6, rtol=1e-5)
    logits = conv2d(expected, head.convolution.weight, head.convolution.bias, padding=1).mean(dim=(2, 3))
    torch.testing.assert_close(head(features), logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", list(ImageHeadName))
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 3)])
def test_every_head_takes_feature_maps_of_any_size(name: ImageHeadName, size: tuple[int, int]) -> None:
    head = build(name)
    shake(head)
    features = torch.randn(3, 6, *size, generator=torch.Generator().manual_seed(0)).requires_grad_()
    logits, maps, penalty = head(features), head.class_maps(features), head.penalty(features)
    assert (logits.shape, maps.shape, penalty.shape) == ((3, 3), (3, 3, *size), ())
    assert maps.isfinite().all()
    # An image's logits depend on that image alone.
    torch.testing.assert_close(head(features[1:2]), logits[1:2])
    (gradient,) = torch.autograd.grad(logits[0].square().sum() + penalty, features)
    assert gradient.isfinite().all()
    assert gradient[0].any()


@pytest.mark.parametrize("name", list(ImageHeadName))
def test_every_head_works_in_half_precision(name: ImageHeadName) -> None:
    head = build(name, channels=64)
    features = 20 * torch.rand(2, 64, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = (head(features), head.class_maps(features), head.penalty(features))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = (head(features.bfloat16()), head.class_maps(features.bfloat16()), head.penalty(features.bfloat16()))
    for half, full in zip(found, expected, strict=True):
        torch.testing.assert_close(half.float(), full, atol=0.03, rtol=0.03)


@pytest.mark.parametrize("name", [name for name in ImageHeadName if name is not ImageHeadName.SAT])
def test_most_heads_have_no_penalty(name: ImageHeadName) -> None:
    assert build(name).penalty(torch.ones(2, 6, 3, 3)).item() == 0


@pytest.mark.parametrize("name", list(ImageHeadName))
def test_every_head_is_known_by_its_name_and_drawn_from_the_seed(name: ImageHeadName) -> None:
    first, again, other = (build(name, seed=seed).state_dict() for seed in (0, 0, 1))
    assert type(build(name)) is HEADS[name]
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", list(ImageHeadName))
def test_every_head_begins_with_classes_nearly_alike(name: ImageHeadName) -> None:
    features = torch.rand(4, 1280, 7, 7, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits = build(name, channels=1280)(features)
    assert 0 < float(logits.abs().max()) < 2


def test_the_gap_head_begins_small() -> None:
    layer = GapHead(channels=1280, classes=4).linear
    assert not layer.bias.any()
    assert float(layer.weight.detach().std()) == pytest.approx(0.01, rel=0.1)
    assert abs(float(layer.weight.detach().mean())) < 0.001


def test_both_heads_read_one_feature_map(model: PixelCAM) -> None:
    images = make_images()
    with torch.inference_mode():
        output = model(images)
        features = model.encoder(images)
        expected = (model.image_head(features), model.pixel_head([features]))
    assert output.image_logits.shape == (2, 3)
    assert output.pixel_logits.shape == (2, 2, 4, 6)
    assert torch.equal(output.image_logits, expected[0])
    assert torch.equal(output.pixel_logits, expected[1])


def test_logits_and_penalty_come_from_the_features_or_what_a_filter_makes_of_them() -> None:
    gap = GapHead(channels=2, classes=3)
    set_layer(gap.linear, [[1, 0], [0, 1], [1, -2]], [0, 0.5, 1])
    teacher = Teacher(nn.Identity(), gap)  # type: ignore[arg-type]
    assert teacher(FEATURES).image_logits.tolist() == [[2, 1.5, 1]]
    assert teacher(FEATURES, feature_filter=torch.neg).image_logits.tolist() == [[-2, -0.5, 1]]
    teacher = Teacher(nn.Identity(), make_sat())  # type: ignore[arg-type]
    features = torch.tensor([[[[1000.0, 0.0]], [[0.0, 1000.0]]]])
    assert teacher(features).penalty.item() == pytest.approx(0.15 + 35 / 144)
    # Of zeros M is 1/2 everywhere: |0.35 - 1/2| + 1/2 * 1/2.
    assert teacher(features, feature_filter=torch.zeros_like).penalty.item() == pytest.approx(0.4)


def test_both_losses_reach_the_encoder() -> None:
    for part in (0, 1):
        encoder = make_encoder()
        image_head = GapHead(channels=encoder.channels, classes=3)
        model = build_pixelcam(encoder, image_head, LINEAR, seed=0)
        model(make_images())[part].square().sum().backward()
        stem = encoder.trunk.conv_stem.weight.grad  # type: ignore[union-attr]
        assert isinstance(stem, Tensor)
        assert bool(stem.any())
        assert isinstance(model.pixel_head, LinearPixelHead)
        untouched = (model.pixel_head.convolution, image_head.linear)[part]
        assert untouched.weight.grad is None


def test_heads_depend_on_the_seed_alone(encoder: Encoder) -> None:
    def build_both(seed: int) -> tuple[Teacher, PixelCAM]:
        torch.rand(3)  # moves the global generator on
        teacher = build_teacher(encoder, image_head=ImageHeadName.GAP, classes=2, seed=seed)
        before = torch.get_rng_state()
        model = build_pixelcam(encoder, teacher.image_head, LINEAR, seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        return teacher, model

    def weights(built: tuple[Teacher, PixelCAM]) -> list[Tensor]:
        return [
            built[0].image_head.state_dict()["linear.weight"],
            built[1].pixel_head.state_dict()["convolution.weight"],
        ]

    first, again, other = weights(build_both(0)), weights(build_both(0)), weights(build_both(1))
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


def test_localizer_averages_the_views_it_is_asked_for(model: PixelCAM) -> None:
    large = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    params = MapParams(scales=(1.0, 2.0), symmetries=2, margin=0.0)
    found = PixelCAMLocalizer(model, params, image_scale=2.0)(large, torch.tensor([0, 1]))
    small = interpolate(large, size=(64, 64), mode="bilinear", antialias=True)
    maps = [
        interpolate(
            PixelCAMLocalizer(model)(view, torch.tensor([0, 1])).maps.unsqueeze(1), size=(8, 8), mode="bilinear"
        )
        for view in (small, small.flip(-1), large, large.flip(-1))
    ]
    expected = (maps[0] + maps[1].flip(-1) + maps[2] + maps[3].flip(-1)).squeeze(1) / 4
    torch.testing.assert_close(found.maps, expected)
    with torch.inference_mode():
        torch.testing.assert_close(found.image_logits, model(small).image_logits)


def test_localizer_puts_the_model_into_evaluation_mode(model: PixelCAM) -> None:
    images, class_idx = make_images(), torch.tensor([0, 1])
    expected = PixelCAMLocalizer(model)(images, class_idx).maps
    assert torch.equal(PixelCAMLocalizer(model.train())(images, class_idx).maps, expected)


def test_loaded_model_is_ready_for_evaluation(finished: Run) -> None:
    model, info = load_pixelcam(finished.pixelcam)
    assert not any(module.training for module in model.modules())
    assert info.classes == ("benign", "malignant")
    assert model.image_head.name is info.image_head is ImageHeadName.GAP
    assert model.image_head.classes == 2
    assert model.pixel_head.state_dict()["convolution.weight"].shape == (2, 256, 1, 1)


@pytest.mark.parametrize("name", ImageHeadName)
def test_logits_are_shifted_by_as_much_as_is_asked_for(name: ImageHeadName) -> None:
    head = build(name)
    shake(head)
    features = torch.rand(2, 6, 4, 5, generator=torch.Generator().manual_seed(0))
    by = torch.tensor([0.5, 0.0, -2.0])
    with torch.no_grad():
        before = head(features)
        head.shift_logits(by.double())
        torch.testing.assert_close(head(features) - before, by.expand(2, 3), rtol=0, atol=1e-4)


def test_without_a_bias_nothing_can_be_shifted() -> None:
    head = GapHead(channels=6, classes=3)
    head.linear.register_parameter("bias", None)
    with pytest.raises(ValueError, match="last layer has no bias"):
        head.shift_logits(torch.zeros(3))
