"""Pixel heads weigh cells by themselves, and a decoder takes in the finer maps that an encoder really has."""

import pytest
import torch
from torch.nn.functional import conv2d, group_norm, interpolate

from pipeline.encoders.encoder import Encoder, build_encoder
from pipeline.encoders.pixel_heads import Decoder, Hypercolumn, LinearPixelHead, build_pixel_head
from pipeline.params.vocabulary import EncoderWeights, PixelHeadName


def make_encoder(name: str = "test_efficientnet", output_stride: int | None = 16) -> Encoder:
    return build_encoder(name, input_size=64, output_stride=output_stride, weights=EncoderWeights.RANDOM, seed=0)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return make_encoder()


def test_the_linear_head_weighs_each_cell_of_the_last_map_by_itself(encoder: Encoder) -> None:
    head = LinearPixelHead(encoder)
    features = torch.zeros(1, encoder.channels, 1, 2)
    features[0, :2, 0] = torch.tensor([[1.0, 3.0], [0.0, 2.0]])
    with torch.no_grad():
        head.convolution.weight.zero_()
        head.convolution.weight[:, :2, 0, 0] = torch.tensor([[1.0, 0.0], [2.0, -1.0]])
        head.convolution.bias.copy_(torch.tensor([0.0, 10.0]))  # type: ignore[union-attr]
        assert head([torch.ones(1, 4, 8, 8), features]).tolist() == [[[[1, 3]], [[12, 14]]]]


def test_the_linear_head_begins_small(encoder: Encoder) -> None:
    layer = LinearPixelHead(encoder).convolution
    assert layer.bias is not None
    assert not layer.bias.any()
    assert float(layer.weight.detach().std()) == pytest.approx(0.01, rel=0.15)


@pytest.mark.parametrize(
    ("name", "output_stride", "sizes"),
    [
        ("test_efficientnet", 16, [16, 8, 4]),
        ("test_efficientnet", 8, [16, 8]),
        ("test_convnext", None, [16, 8, 4, 2]),
        ("test_vit", None, [4]),
    ],
)
def test_a_decoder_climbs_to_stride_4_over_the_grids_that_there_are(
    name: str, output_stride: int | None, sizes: list[int]
) -> None:
    encoder = make_encoder(name, output_stride).eval()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    decoder = Decoder(encoder).eval()
    with torch.inference_mode():
        maps = encoder.forward_layers(images, decoder.layers)
        logits = decoder(maps)
    assert [each.shape[-1] for each in maps] == sizes
    assert logits.shape == (2, 2, sizes[0], sizes[0])


def test_a_decoder_enlarges_about_the_middle_of_the_image(encoder: Encoder) -> None:
    decoder, generator = Decoder(encoder).eval(), torch.Generator().manual_seed(0)
    for parameter in decoder.parameters():
        if parameter.ndim == 4:
            parameter.data = (parameter.data + parameter.data.flip(-1)) / 2  # blind to left and right
    widths = [int(each.shape[1]) for each in encoder.forward_layers(torch.rand(1, 3, 64, 64), decoder.layers)]
    maps = [torch.rand(1, width, 5, side, generator=generator) for width, side in zip(widths, (5, 5, 3), strict=True)]
    with torch.inference_mode():
        mirrored = decoder([each.flip(-1) for each in maps]).flip(-1)
        torch.testing.assert_close(mirrored, decoder(maps), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [Decoder, Hypercolumn])
def test_a_head_on_several_maps_uses_every_one(encoder: Encoder, kind: type[Decoder] | type[Hypercolumn]) -> None:
    head = kind(encoder)
    maps = [torch.rand(1, *each.shape[1:]) for each in encoder.forward_layers(torch.rand(1, 3, 64, 64), head.layers)]
    for each in maps:
        each.requires_grad_()
    head(maps)[:, 1].sum().backward()
    assert all(each.grad is not None and bool(each.grad.any()) for each in maps)


@pytest.mark.parametrize(
    ("name", "output_stride", "sizes"),
    [
        ("test_efficientnet", 16, [16, 8, 4]),
        ("test_efficientnet", 8, [16, 8]),
        ("test_convnext", None, [16, 8, 4, 2]),
        ("test_vit", None, [4, 4, 4, 4]),
    ],
)
def test_a_hypercolumn_is_one_convolution_on_enlarged_and_joined_maps(
    name: str, output_stride: int | None, sizes: list[int]
) -> None:
    encoder = make_encoder(name, output_stride).eval()
    head = Hypercolumn(encoder)
    with torch.inference_mode():
        maps = encoder.forward_layers(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)), head.layers)
        assert [each.shape[-1] for each in maps] == sizes
        logits = head(maps)
        state = head.state_dict()
        normalized = [group_norm(each, 1, state[f"classify.{k}.0.weight"]) for k, each in enumerate(maps)]
        enlarged = [interpolate(each, size=maps[0].shape[-2:], mode="bilinear") for each in normalized]
        weight = torch.cat([state[f"classify.{k}.1.weight"] for k in range(len(maps))], dim=1)
        bias = torch.stack([state[f"classify.{k}.1.bias"] for k in range(len(maps))]).sum(dim=0)
        expected = conv2d(torch.cat(enlarged, dim=1), weight, bias)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("head", PixelHeadName)
def test_a_head_gives_a_logit_for_each_class_it_is_built_for(encoder: Encoder, head: PixelHeadName) -> None:
    built = build_pixel_head(head, encoder, pixel_classes=4).eval()
    with torch.inference_mode():
        logits = built(encoder.eval().forward_layers(torch.rand(2, 3, 64, 64), built.layers))
    assert logits.shape[:2] == (2, 4)
    assert len({tuple(logits[0, index].flatten().tolist()) for index in range(4)}) == 4


@pytest.mark.parametrize("head", PixelHeadName)
def test_building_a_head_leaves_the_encoder_as_it_was(encoder: Encoder, head: PixelHeadName) -> None:
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    for training in (True, False):
        encoder.train(training)
        build_pixel_head(head, encoder)
        assert encoder.training is training
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())
