"""Encoders of every family give feature maps (B, C, h, w) whose cell (i, j) is where the image's part (i, j) is."""

import json
from dataclasses import asdict, replace

import pytest
import torch
from torch import Tensor, nn

from pipeline.encoders.encoder import Encoder, EncoderSpec, build_encoder, rebuild_encoder
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import EncoderWeights, Frozen


def make_encoder(name: str, *, size: int = 64, stride: int | None = 16, seed: int = 0) -> Encoder:
    encoder = build_encoder(name, input_size=size, output_stride=stride, weights=EncoderWeights.RANDOM, seed=seed)
    return encoder.eval()


def make_images(count: int, height: int, width: int) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "size", "channels", "grid", "stride"),
    [
        ("tf_efficientnet_lite0", 64, 1280, 4, 16),
        ("resnet18", 64, 512, 4, 16),
        ("convnext_atto", 64, 320, 4, 16),
        ("mobilenetv3_small_050", 64, 288, 2, None),  # offers no stride but its own, 32
        ("ghostnet_050", 64, 480, 2, None),  # refuses a stride by another error
        ("deit_tiny_patch16_224", 64, 192, 4, None),
        ("swin_tiny_patch4_window7_224", 64, 768, 2, None),
        ("vit_small_patch14_reg4_dinov2", 56, 384, 4, None),
    ],
)
def test_families_give_feature_maps(name: str, size: int, channels: int, grid: int, stride: int | None) -> None:
    encoder = make_encoder(name, size=size)
    with torch.inference_mode():
        images = make_images(2, size, size)
        features = encoder(images)
        *maps, last = encoder.forward_layers(images, [0, -1])
    assert features.shape == (2, channels, grid, grid)
    assert encoder.channels == channels
    assert encoder.spec.arguments.get("output_stride") == stride
    torch.testing.assert_close(maps[1], features)
    torch.testing.assert_close(last, features)
    assert maps[0].shape[-1] >= grid
    assert maps[0].shape[-1] == maps[0].shape[-2]


@pytest.mark.parametrize(("stride", "grid"), [(8, 8), (16, 4), (32, 2), (None, 2)])
def test_output_stride_sets_the_grid(stride: int | None, grid: int) -> None:
    encoder = make_encoder("resnet18", stride=stride)
    with torch.inference_mode():
        assert encoder(make_images(1, 64, 64)).shape[-2:] == (grid, grid)


def test_images_need_not_be_square() -> None:
    encoder = make_encoder("test_efficientnet")
    with torch.inference_mode():
        assert encoder(make_images(1, 64, 96)).shape[-2:] == (4, 6)


@pytest.mark.parametrize(
    ("name", "prefix_tokens"),
    [("deit_tiny_patch16_224", 1), ("deit_tiny_distilled_patch16_224", 2), ("vit_small_patch16_dinov3", 5)],
)
def test_token_of_a_patch_lands_in_the_cell_of_that_patch(name: str, prefix_tokens: int) -> None:
    encoder = make_encoder(name)
    assert encoder.trunk.num_prefix_tokens == prefix_tokens
    encoder.trunk.blocks = nn.ModuleList() if name.endswith("dinov3") else nn.Sequential()  # no patch sees another
    images = make_images(1, 48, 80)  # a grid of 3x5 patches of 16 pixels
    with torch.inference_mode():
        before = encoder(images)
        for row, column in [(0, 0), (0, 4), (1, 3), (2, 0), (2, 4)]:
            changed = images.clone()
            changed[:, :, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = 0
            cells = (encoder(changed) - before).abs().amax(dim=(0, 1)).nonzero().tolist()
            assert cells == [[row, column]]


def test_channels_last_features_are_moved_not_reshaped() -> None:
    encoder = make_encoder("swin_tiny_patch4_window7_224", size=96)
    images = make_images(1, 96, 96)
    with torch.inference_mode():
        features = encoder(images)
        raw = encoder.trunk.forward_features((images - encoder.mean) / encoder.std)  # type: ignore[operator]
    assert raw.shape == (1, 3, 3, 768)
    for row in range(3):
        for column in range(3):
            torch.testing.assert_close(features[:, :, row, column], raw[:, row, column])


def test_normalizes_as_timm_says() -> None:
    imagenet, half = make_encoder("resnet18"), make_encoder("tf_efficientnet_lite0")
    torch.testing.assert_close(imagenet.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))
    torch.testing.assert_close(imagenet.std.flatten(), torch.tensor([0.229, 0.224, 0.225]))
    torch.testing.assert_close(half.mean.flatten(), torch.full((3,), 0.5))
    images = make_images(1, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(half(images), half.trunk.forward_features(2 * images - 1))  # type: ignore[operator]


def test_layers_come_in_the_order_asked_for() -> None:
    encoder = make_encoder("resnet18", stride=None)
    images = make_images(1, 64, 64)
    with torch.inference_mode():
        maps = encoder.forward_layers(images, [-2, 1, -1, -2])
        trunk = encoder.trunk
        stem = trunk.maxpool(trunk.act1(trunk.bn1(trunk.conv1((images - encoder.mean) / encoder.std))))  # type: ignore[operator]
        layer1 = trunk.layer1(stem)  # type: ignore[operator]
        layer3 = trunk.layer3(trunk.layer2(layer1))  # type: ignore[operator]
    assert [tuple(each.shape[1:]) for each in maps] == [
        (256, 4, 4),
        (64, 16, 16),
        (512, 2, 2),
        (256, 4, 4),
        (512, 2, 2),
    ]
    torch.testing.assert_close(maps[0], layer3)
    torch.testing.assert_close(maps[1], layer1)
    torch.testing.assert_close(maps[3], layer3)


@pytest.mark.parametrize(("layer", "depth"), [(0, 0), (4, 4), (-1, 4), (-5, 0)])
def test_layers_may_count_from_the_end(layer: int, depth: int) -> None:
    assert make_encoder("test_efficientnet").resolve_layer(layer) == depth


@pytest.mark.parametrize("layer", [5, -6])
def test_layer_that_does_not_exist_is_refused(layer: int) -> None:
    encoder = make_encoder("test_efficientnet")
    with pytest.raises(PixelCAMError, match=rf"cam\.layers: test_efficientnet has depths -5 to 4, got {layer}"):
        encoder.forward_layers(make_images(1, 64, 64), [layer])


@pytest.mark.parametrize("name", ["test_efficientnet", "test_vit"])
def test_encoder_rebuilt_from_json_gives_identical_features(name: str) -> None:
    encoder = make_encoder(name)
    spec = EncoderSpec(**json.loads(json.dumps(asdict(encoder.spec))))
    again = rebuild_encoder(spec).eval()
    images = make_images(2, 64, 64)
    with torch.inference_mode():
        assert not torch.equal(again(images), encoder(images))
        again.load_state_dict(encoder.state_dict())
        assert torch.equal(again(images), encoder(images))
    assert again.spec == spec == encoder.spec


def test_encoder_that_timm_no_longer_knows_is_refused() -> None:
    spec = replace(make_encoder("test_vit").spec, architecture="no_such_model")
    with pytest.raises(
        PixelCAMError, match=r"cannot build 'no_such_model' again .*timm version that model\.json names"
    ):
        rebuild_encoder(spec)


@pytest.mark.parametrize(
    ("name", "size", "stride", "words"),
    [
        ("mobilenetv3_small_050", 64, 16, "does not offer model.output_stride 16; its feature map has 2x2 cells"),
        ("swin_tiny_patch4_window7_224", 64, 8, "does not offer model.output_stride 8; its feature map has 2x2 cells"),
        ("test_vit", 64, 16, ""),
        ("test_vit", 64, None, ""),
        ("test_efficientnet", 72, 16, ""),  # 72 / 16 = 4.5, rounded up to 5 cells
        ("mobilenetv3_small_050", 64, 32, ""),
    ],
)
def test_another_grid_than_asked_for_is_said(
    name: str, size: int, stride: int | None, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make_encoder(name, size=size, stride=stride)
    said = capsys.readouterr().err
    assert words in said
    assert bool(words) == bool(said)


def test_random_weights_depend_on_the_seed_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = (make_encoder("test_efficientnet", seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_new_encoder_is_in_training_mode_and_untouched_by_its_check() -> None:
    encoder = build_encoder("test_efficientnet", input_size=64, output_stride=16, weights=EncoderWeights.RANDOM, seed=0)
    assert all(module.training for module in encoder.modules())
    steps = [value for name, value in encoder.state_dict().items() if name.endswith("num_batches_tracked")]
    assert steps
    assert not any(steps)


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("no_such_model", 64, r"encoder: timm cannot build 'no_such_model'.*timm\.list_models\(\)"),
        ("deit_tiny_patch16_224", 60, r"encoder: deit_tiny.* 60 px .*change model\.input_size"),
        ("test_efficientnet", 0, r"encoder: test_efficientnet .* 0 px .*change model\.input_size"),
        ("mixer_s32_224", 224, r"encoder: mixer_s32_224 gives no feature map.*choose another encoder"),
        ("xcit_nano_12_p16_224", 64, r"timm does not say on which grid its tokens lie.*choose another encoder"),
        ("coat_tiny", 64, r"encoder: coat_tiny gives no feature map.*choose another encoder"),
    ],
)
def test_unfit_encoder_is_refused_with_the_remedy(name: str, size: int, words: str) -> None:
    with pytest.raises(PixelCAMError, match=words):
        make_encoder(name, size=size)


@pytest.mark.parametrize(
    ("name", "prefix_tokens"), [("deit_tiny_patch16_224", 1), ("vit_small_patch14_reg4_dinov2", 5)]
)
def test_tokens_of_an_inner_depth_lie_on_the_grid_and_on_the_way_to_the_last(name: str, prefix_tokens: int) -> None:
    patch = 14 if "14" in name else 16
    encoder = make_encoder(name, size=4 * patch).requires_grad_(False)
    images = make_images(1, 3 * patch, 5 * patch)
    trunk = encoder.trunk
    tokens = trunk.blocks[0](trunk._pos_embed(trunk.patch_embed((images - encoder.mean) / encoder.std)))  # type: ignore[index, operator]
    expected = tokens[:, prefix_tokens:].reshape(1, 3, 5, -1).permute(0, 3, 1, 2)
    inner, last = encoder.forward_layers(images.requires_grad_(), [0])
    torch.testing.assert_close(inner, expected)
    torch.testing.assert_close(last, encoder(images))
    (gradient,) = torch.autograd.grad(last[0, 0, 0, 0], inner)  # raises where the map is a mere copy
    assert bool(gradient.any())


@pytest.mark.parametrize("name", ["test_efficientnet", "test_vit", "swin_tiny_patch4_window7_224"])
def test_inner_maps_are_those_of_timm(name: str) -> None:
    encoder = make_encoder(name)
    images = make_images(2, 64, 64)
    inner = list(range(encoder.depths - 1))
    with torch.inference_mode():
        *maps, _ = encoder.forward_layers(images, inner)
        normalized = (images - encoder.mean) / encoder.std
        _, expected = encoder.trunk.forward_intermediates(normalized, indices=inner, output_fmt="NCHW")  # type: ignore[operator]
    for found, each in zip(maps, expected, strict=True):
        torch.testing.assert_close(found, each, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["convit_tiny", "hrnet_w18_small"])
def test_depth_without_a_feature_map_is_refused(name: str) -> None:
    encoder = make_encoder(name)
    with pytest.raises(PixelCAMError, match=rf"cam\.layers: {name} has no feature map at depth 1 .*use \[-1\]"):
        encoder.forward_layers(make_images(1, 64, 64), [-1, 1])
    assert not any(module._forward_hooks for module in encoder.modules())


def test_no_hook_stays_behind_a_failing_pass() -> None:
    encoder = make_encoder("test_vit")
    with pytest.raises(AssertionError, match="divisible"):
        encoder.forward_layers(make_images(1, 60, 60), [0, 1])
    assert not any(module._forward_hooks for module in encoder.modules())


def test_tokens_that_do_not_fill_the_grid_are_refused() -> None:
    encoder = make_encoder("test_vit")
    encoder.trunk.num_prefix_tokens = 0  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match="shape"):
        encoder(make_images(1, 64, 64))


def train_once(encoder: Encoder) -> dict[str, bool]:
    """Take a large step on noise, in training mode; return which tensors of the trunk changed."""
    before = {name: tensor.clone() for name, tensor in encoder.trunk.state_dict().items()}
    encoder.train()
    features = encoder(make_images(2, 64, 64))
    if features.requires_grad:
        features.square().mean().backward()
    with torch.no_grad():
        for weights in encoder.parameters():
            if weights.grad is not None:
                weights.sub_(weights.grad.sign())
    return {name: not torch.equal(tensor, before[name]) for name, tensor in encoder.trunk.state_dict().items()}


STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def test_nothing_frozen_moves_all() -> None:
    changed = train_once(make_encoder("test_efficientnet"))
    assert all(changed.values())


def test_frozen_batch_norm_keeps_its_statistics_and_learns_its_weights() -> None:
    encoder = make_encoder("test_efficientnet")
    encoder.freeze(Frozen.BATCH_NORM)
    changed = train_once(encoder)
    assert any(name.endswith(STATISTICS) for name in changed)
    for name, moved in changed.items():
        assert moved != name.endswith(STATISTICS), name
    assert encoder.training
    assert any(module.training for module in encoder.trunk.modules())


def test_frozen_encoder_keeps_all_and_builds_no_graph() -> None:
    encoder = make_encoder("test_efficientnet")
    encoder.freeze(Frozen.ENCODER)
    assert not any(train_once(encoder).values())
    assert not any(module.training for module in encoder.modules())
    features = encoder(make_images(1, 64, 64))
    assert not features.requires_grad
    assert features.grad_fn is None


def test_freezing_survives_a_model_around_the_encoder() -> None:
    encoder = make_encoder("test_efficientnet")
    model = nn.Sequential(encoder, nn.Dropout())
    encoder.freeze(Frozen.ENCODER)
    model.eval()
    model.train()
    assert model[1].training
    assert not any(module.training for module in encoder.modules())
    encoder.freeze(Frozen.NOTHING)
    model.train()
    assert all(module.training for module in encoder.modules())
    assert all(weights.requires_grad for weights in encoder.parameters())


def test_batch_norm_that_is_not_there_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    make_encoder("test_vit").freeze(Frozen.BATCH_NORM)
    assert "frozen: test_vit has no batch norm" in capsys.readouterr().err
    make_encoder("test_efficientnet").freeze(Frozen.BATCH_NORM)
    assert not capsys.readouterr().err
