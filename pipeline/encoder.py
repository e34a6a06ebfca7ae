"""Encoders: any timm model, unmodified, behind one convention: images in, feature maps (B, C, h, w) out."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pipeline.config import EncoderWeights
from pipeline.encoder_weights import create_with_weights
from pipeline.errors import PixelCAMError
from pipeline.seeding import global_seed
from pipeline.torchvision_operators import ensure_torchvision_imports

ensure_torchvision_imports()
import timm  # noqa: E402 - after torchvision can be imported
from timm.data.config import resolve_model_data_config  # noqa: E402


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """All that is needed to build an encoder's architecture again, without its weights.

    `input_size` is in pixels; `output_stride` is None where the encoder keeps its own; `weights` says in words where
    the initial weights came from.
    """

    name: str
    input_size: int
    output_stride: int | None
    weights: str


class Encoder(nn.Module):
    """A timm model that turns images into feature maps; normalization and grid are asked of timm, never written down.

    Attributes:
        spec: how to build it again.
        channels: number of channels C of the last feature map.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, trunk: nn.Module, spec: EncoderSpec) -> None:
        super().__init__()
        self.trunk = trunk
        self.spec = spec
        self.channels = int(trunk.num_features)  # type: ignore[arg-type]
        self.depths = len(trunk.feature_info)  # type: ignore[arg-type]
        config = resolve_model_data_config(trunk)  # type: ignore[no-untyped-call]
        self.register_buffer("mean", torch.tensor(config["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config["std"]).view(1, 3, 1, 1), persistent=False)
        # Convolutions run about 1.5 times faster so, measured on a CPU.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        """Return the last feature map, float (B, C, h, w), of images: float (B, 3, H, W) in [0, 1]."""
        normalized = self._normalize(images)
        return self._to_map(self.trunk.forward_features(normalized), normalized)  # type: ignore[operator]

    def forward_layers(self, images: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Return the feature maps of several depths from one forward pass, the last feature map always at the end.

        Each lies on the way to the last one, whatever layout the trunk computes in, so that the gradient of whatever is
        computed from the last one can be taken at any of them.

        Args:
            images: float (B, 3, H, W) in [0, 1].
            layers: depths in timm's order of `feature_info`, each in [-depths, depths); -1 is the last feature map.

        Returns:
            one float (B, C_i, h_i, w_i) for each layer in the order given, then the last feature map (B, C, h, w).

        Raises:
            PixelCAMError: the encoder has no such depth, or no feature map there.
        """
        depths = [self.resolve_layer(layer) for layer in layers]
        maps: dict[int, Tensor] = {}
        with ExitStack() as taps:
            for depth in sorted(set(depths) - {self.depths - 1}):
                taps.enter_context(self._tap(depth, images, maps))
            maps[self.depths - 1] = self(images)
        return [maps[depth] for depth in depths] + [maps[self.depths - 1]]

    def resolve_layer(self, layer: int) -> int:
        """Return the depth in [0, depths) that a possibly negative layer number means."""
        if not -self.depths <= layer < self.depths:
            raise PixelCAMError(
                f"cam.layers: {self.spec.name} has depths -{self.depths} to {self.depths - 1}, got {layer}"
            )
        return layer % self.depths

    def _tap(self, depth: int, images: Tensor, maps: dict[int, Tensor]) -> RemovableHandle:
        """Lead the next forward pass of `images` through the feature map of a depth, which is put into `maps`."""

        def unfit(error: Exception) -> PixelCAMError:
            return PixelCAMError(
                f"cam.layers: {self.spec.name} has no feature map at depth {depth} ({error}); use [-1]"
            )

        def tap(_module: nn.Module, _inputs: object, features: Tensor) -> Tensor:
            try:
                maps[depth] = self._to_map(features, images)
            except (AttributeError, RuntimeError) as error:
                raise unfit(error) from error
            return self._from_map(maps[depth], features)

        try:
            name: Any = self.trunk.feature_info[depth]["module"]  # type: ignore[index]
            block = self.trunk.get_submodule(name)
        except AttributeError as error:
            raise unfit(error) from error
        return block.register_forward_hook(tap)

    def _normalize(self, images: Tensor) -> Tensor:
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def _to_map(self, features: Tensor, images: Tensor) -> Tensor:
        """Bring timm's output to (B, C, h, w): channels last are moved, tokens laid out on their grid."""
        if features.ndim == 4:
            return features.permute(0, 3, 1, 2).contiguous() if self._channels_last else features
        height, width = self.trunk.patch_embed.dynamic_feat_size(tuple(images.shape[-2:]))  # type: ignore[operator, union-attr]
        tokens = features[:, int(self.trunk.num_prefix_tokens) :]  # type: ignore[arg-type]
        # (B, h*w, C) -> (B, C, h, w)
        return tokens.transpose(1, 2).reshape(len(tokens), features.shape[-1], height, width)

    def _from_map(self, feature_map: Tensor, features: Tensor) -> Tensor:
        """Bring a feature map back to the layout of timm's `features` that it was made from."""
        if features.ndim == 4:
            return feature_map.permute(0, 2, 3, 1) if self._channels_last else feature_map
        prefix = features[:, : int(self.trunk.num_prefix_tokens)]  # type: ignore[arg-type]
        return torch.cat([prefix, feature_map.flatten(2).transpose(1, 2)], dim=1)

    @property
    def _channels_last(self) -> bool:
        return getattr(self.trunk, "output_fmt", "NCHW") == "NHWC"


def build_encoder(
    name: str, *, input_size: int, output_stride: int | None, weights: EncoderWeights, seed: int
) -> Encoder:
    """Build an encoder with initial weights; random ones are drawn from `seed`.

    Raises:
        PixelCAMError: timm does not know the name, the encoder does not take the input size, or its pretrained weights
            are asked for and cannot be had.
    """
    options = _accepted_options(name, input_size=input_size, output_stride=output_stride)

    def create(pretrained: bool) -> nn.Module:
        # Seeded at each call, so that a fallback draws the same weights as `random` does.
        with global_seed(seed, "encoder"):
            return timm.create_model(name, pretrained=pretrained, num_classes=0, **options)

    trunk, origin = create_with_weights(name, weights, create)
    spec = EncoderSpec(name=name, input_size=input_size, output_stride=options.get("output_stride"), weights=origin)
    return _checked(trunk, spec)


def rebuild_encoder(spec: EncoderSpec) -> Encoder:
    """Build an encoder's architecture again; its weights are to be loaded by the caller."""
    options = _accepted_options(spec.name, input_size=spec.input_size, output_stride=spec.output_stride)
    return Encoder(timm.create_model(spec.name, num_classes=0, **options), spec)


def _accepted_options(name: str, *, input_size: int, output_stride: int | None) -> dict[str, Any]:
    """Return the options that a model's family understands: a stride for most CNNs, an image size for token models."""
    candidates: list[dict[str, Any]] = [
        {"img_size": input_size, "dynamic_img_size": True},
        {"img_size": input_size},
        {},
    ]
    if output_stride is not None:
        candidates.insert(0, {"output_stride": output_stride})
    for options in candidates:
        try:
            with torch.device("meta"):
                timm.create_model(name, num_classes=0, **options)
        except Exception as error:
            if isinstance(error, TypeError) or "output_stride" in options:
                continue  # the family does not know this option, or offers no such stride
            raise PixelCAMError(
                f"encoder: timm cannot build '{name}' for {input_size} px ({error}); "
                "timm.list_models() lists the names, model.input_size sets the size"
            ) from error
        return options
    raise PixelCAMError(f"encoder: timm cannot build '{name}'; timm.list_models() lists the names")


def _checked(trunk: nn.Module, spec: EncoderSpec) -> Encoder:
    """Return an encoder after one image went through it, so that an unfit one fails here, with a sentence."""
    size = spec.input_size
    try:
        encoder = Encoder(trunk, spec)
        with torch.no_grad():  # some trunks keep tensors of their first pass, which inference mode would spoil
            shape = encoder.eval()(torch.zeros(1, 3, size, size)).shape
    except Exception as error:
        raise PixelCAMError(
            f"encoder: {spec.name} gives no feature map for images of {size} px ({error}); "
            "change model.input_size or choose another encoder"
        ) from error
    if len(shape) != 4 or shape[1] != encoder.channels:
        raise PixelCAMError(f"encoder: {spec.name} gives no feature map (got shape {tuple(shape)}); choose another")
    return encoder.train()
