"""What classifies pixels: PixelCAM's one convolution, one on maps of several depths, or a decoder that mixes these."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from pipeline.encoders.encoder import Encoder
from pipeline.encoders.image_heads import start_small
from pipeline.params.vocabulary import PixelHeadName

TWO: Final = 2  # pixel classes: background and foreground
DECODER_WIDTH: Final = 64  # channels of every decoder block
SPACED: Final = 4  # parts that the depths of an encoder with maps of one size are divided into
FINEST_STRIDE: Final = 4  # of the feature maps that a decoder takes in; finer ones cost most and say least


class PixelHead(nn.Module, ABC):
    """Feature maps of an encoder -> logits of the pixel classes, the background's first.

    Attributes:
        name: in params and in files.
        layers: depths of the feature maps it takes, beside the last one, see `Encoder.forward_layers`.
    """

    name: ClassVar[PixelHeadName]
    layers: tuple[int, ...] = ()

    @abstractmethod
    def forward(self, feature_maps: Sequence[Tensor]) -> Tensor:
        """Return pixel logits, float (B, P, h, w), channel 0 is background, of what `forward_layers` gives."""


class LinearPixelHead(PixelHead):
    """One 1x1 convolution on the last feature map. Source: the pixel classifier of Sec. 3 of arXiv 2503.24135."""

    name = PixelHeadName.LINEAR

    def __init__(self, encoder: Encoder, *, pixel_classes: int = TWO) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(encoder.channels, pixel_classes, kernel_size=1)
        start_small(self.convolution)

    def forward(self, feature_maps: Sequence[Tensor]) -> Tensor:
        """Return pixel logits on the grid of the last feature map."""
        return self.convolution(feature_maps[-1])  # type: ignore[no-any-return]


class Hypercolumn(PixelHead):
    """One 1x1 convolution on the maps of several depths, each normalized, brought to the finest grid among them.

    Convolution and interpolation are both linear, so each map is classified on its own grid and the logits are enlarged
    and added: the same numbers, without ever holding the enlarged features. Source: Hariharan et al., Hypercolumns for
    object segmentation and fine-grained localization, CVPR 2015. An encoder whose maps are all of one size gives depths
    evenly spaced on the way to the last.
    """

    name = PixelHeadName.HYPERCOLUMN

    def __init__(self, encoder: Encoder, *, pixel_classes: int = TWO) -> None:
        super().__init__()
        taken = _finer_layers(encoder) or _spaced_layers(encoder)
        self.layers = tuple(taken)
        self.classify = nn.ModuleList(
            _normalized(channels, pixel_classes) for channels in (*taken.values(), encoder.channels)
        )

    def forward(self, feature_maps: Sequence[Tensor]) -> Tensor:
        """Return pixel logits on the grid of the finest feature map."""
        size = feature_maps[0].shape[-2:]
        logits = [classify(each) for classify, each in zip(self.classify, feature_maps, strict=True)]
        return torch.stack([interpolate(each, size=size, mode="bilinear") for each in logits]).sum(dim=0)


class Decoder(PixelHead):
    """Lead the last feature map up to the finest grid, taking in the maps of the depths on the way.

    In each step the map is enlarged, joined with the map of the next finer depth, and mixed by a 3x3 convolution: the
    shape of a U-Net's decoder, as in NEGEV (Belharbi et al., WACV 2022), narrower and up to stride 4. An encoder whose
    maps are all of one size, such as a plain transformer, gets the first block alone.
    """

    name = PixelHeadName.DECODER

    def __init__(self, encoder: Encoder, *, pixel_classes: int = TWO) -> None:
        super().__init__()
        finer = _finer_layers(encoder)
        self.layers = tuple(finer)
        self.first = _block(encoder.channels)
        self.mix = nn.ModuleList(_block(DECODER_WIDTH + channels) for channels in reversed(finer.values()))
        self.classify = nn.Conv2d(DECODER_WIDTH, pixel_classes, kernel_size=1)

    def forward(self, feature_maps: Sequence[Tensor]) -> Tensor:
        """Return pixel logits on the grid of the finest feature map."""
        decoded = self.first(feature_maps[-1])
        for mix, finer in zip(self.mix, reversed(feature_maps[:-1]), strict=True):
            enlarged = interpolate(decoded, size=finer.shape[-2:], mode="nearest-exact")
            decoded = mix(torch.cat([enlarged, finer], dim=1))
        return self.classify(decoded)  # type: ignore[no-any-return]


PIXEL_HEADS: Final[dict[PixelHeadName, type[LinearPixelHead] | type[Hypercolumn] | type[Decoder]]] = {
    head.name: head for head in (LinearPixelHead, Hypercolumn, Decoder)
}


def build_pixel_head(name: PixelHeadName, encoder: Encoder, *, pixel_classes: int = TWO) -> PixelHead:
    """Build a new pixel head for an encoder; draw its weights from torch's global generator.

    Args:
        name: which kind.
        encoder: gives the feature maps.
        pixel_classes: how many classes pixels are told apart as, background among them.
    """
    return PIXEL_HEADS[name](encoder, pixel_classes=pixel_classes)


def _block(channels: int) -> nn.Sequential:
    """Return a 3x3 convolution with group normalization, which no small batch can mislead, and ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels, DECODER_WIDTH, kernel_size=3, padding=1, bias=False),
        nn.GroupNorm(8, DECODER_WIDTH),
        nn.ReLU(inplace=True),
    )


def _normalized(channels: int, pixel_classes: int) -> nn.Sequential:
    """Return layer normalization over a map's channels and cells, and a 1x1 convolution that begins small."""
    convolution = nn.Conv2d(channels, pixel_classes, kernel_size=1)
    start_small(convolution)
    return nn.Sequential(nn.GroupNorm(1, channels), convolution)


def _finer_layers(encoder: Encoder) -> dict[int, int]:
    """Return the deepest depth of each grid finer than the last feature map's, finest first, with its channels."""
    size = encoder.spec.input_size
    *maps, last = _shapes(encoder, range(encoder.depths - 1))
    widths = [shape[-1] for shape in maps]
    return {
        depth: shape[1]
        for depth, shape in enumerate(maps)
        if last[-1] < shape[-1] <= size // FINEST_STRIDE and shape[-1] not in widths[depth + 1 :]
    }


def _spaced_layers(encoder: Encoder) -> dict[int, int]:
    """Return depths on the way to the last one, evenly spaced, with their channels."""
    depths = sorted({part * encoder.depths // SPACED for part in range(1, SPACED)} - {encoder.depths - 1})
    return {depth: shape[1] for depth, shape in zip(depths, _shapes(encoder, depths), strict=False)}


def _shapes(encoder: Encoder, layers: Sequence[int]) -> list[torch.Size]:
    """Return the shapes of the feature maps of some depths, and of the last one, for an image of the input size."""
    size, training = encoder.spec.input_size, encoder.training
    with torch.no_grad():
        maps = encoder.eval().forward_layers(encoder.mean.new_zeros(1, 3, size, size), layers)
    encoder.train(training)
    return [each.shape for each in maps]
