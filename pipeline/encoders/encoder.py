"""Encoders: any timm model, unmodified, behind one convention: images in, feature maps (B, C, h, w) out."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from pipeline.encoders.weights import Model, create_trunk, create_with_weights, find_model
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import EncoderWeights, Frozen
from pipeline.runtime.console import say
from pipeline.runtime.files import is_shortage
from pipeline.runtime.seeding import global_seed
from pipeline.runtime.torchvision_operators import ensure_torchvision_imports

ensure_torchvision_imports()
from timm.data.config import resolve_model_data_config  # noqa: E402 - after torchvision can be imported
from timm.models import group_parameters  # noqa: E402


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """All that is needed to build an encoder's architecture again, without its weights and without the model hub.

    Attributes:
        name: as in params.yaml.
        architecture: timm's own name.
        arguments: what `timm.create_model` takes besides, in JSON's types.
        mean: of the three channels of images in [0, 1], for normalization.
        std: likewise.
        input_size: pixels.
        weights: where the initial weights came from, in words.
    """

    name: str
    architecture: str
    arguments: dict[str, Any]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_size: int
    weights: str

    def __post_init__(self) -> None:
        """Take the lists that JSON makes of tuples."""
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "std", tuple(self.std))


class Encoder(nn.Module):
    """A timm model that turns images into feature maps; normalization and grid are asked of timm, never written down.

    Attributes:
        spec: how to build it again.
        channels: number of channels C of the last feature map.
        frozen: what of it stays as it is while training.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, trunk: nn.Module, spec: EncoderSpec) -> None:
        super().__init__()
        self.trunk = trunk
        self.spec = spec
        self.channels = int(trunk.num_features)  # type: ignore[arg-type]
        self.depths = len(trunk.feature_info)  # type: ignore[arg-type]
        self.frozen = Frozen.NOTHING
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1), persistent=False)
        # Convolutions run about 1.5 times faster so, measured on a CPU.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def freeze(self, frozen: Frozen) -> None:
        """Set what stays as it is from now on, in every training mode: nothing, batch-norm statistics, or all of it."""
        self.frozen = frozen
        # Without a trainable weight a forward pass builds no graph.
        self.requires_grad_(frozen is not Frozen.ENCODER)
        if frozen is Frozen.BATCH_NORM and not any(isinstance(module, _BatchNorm) for module in self.modules()):
            say(f"frozen: {self.spec.name} has no batch norm, so batch_norm freezes nothing")
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set the training mode of all that is not frozen."""
        super().train(mode and self.frozen is not Frozen.ENCODER)
        if self.frozen is Frozen.BATCH_NORM:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Return the trainable weights of each layer group of timm, from the feature map down to the image.

        Weights that the feature map does not depend on, such as a norm before a classifier, are in none.

        Raises:
            PixelCAMError: timm knows no groups for this encoder.
        """
        if not hasattr(self.trunk, "group_matcher"):
            raise PixelCAMError(f"layer_decay: timm knows no layer groups of {self.spec.name}; set it to 1.0")
        named = {name: weight for name, weight in self.trunk.named_parameters() if weight.requires_grad}
        if not named:
            return []
        depth_of = group_parameters(self.trunk, self.trunk.group_matcher(coarse=False), reverse=True)  # type: ignore[operator]
        training = self.training
        features = self.eval()(self.mean.new_zeros(1, 3, self.spec.input_size, self.spec.input_size))
        gradients = torch.autograd.grad(features.sum(), list(named.values()), allow_unused=True)
        self.train(training)
        groups: dict[int, list[nn.Parameter]] = {}
        for (name, weight), gradient in zip(named.items(), gradients, strict=True):
            if gradient is not None:
                groups.setdefault(depth_of[name], []).append(weight)
        return [groups[depth] for depth in sorted(groups, reverse=True)]

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
        grid_of: Any = getattr(getattr(self.trunk, "patch_embed", None), "dynamic_feat_size", None)
        if grid_of is None:
            raise RuntimeError("timm does not say on which grid its tokens lie")
        height, width = grid_of(tuple(images.shape[-2:]))
        tokens = features[:, int(self.trunk.num_prefix_tokens) :]  # type: ignore[arg-type]
        # (B, h*w, C) -> (B, C, h, w)
        return tokens.transpose(1, 2).reshape(features.shape[0], features.shape[-1], height, width)

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
    name: str, *, input_size: int, output_stride: int | None, weights: EncoderWeights | Path, seed: int
) -> Encoder:
    """Build an encoder with initial weights; random ones are drawn from `seed`.

    An encoder that does not offer the output stride keeps its own and says so, where that gives another grid.

    Raises:
        PixelCAMError: timm does not know the name, the encoder does not take the input size, or its weights cannot be
            had or do not fit.
    """
    model = find_model(name)
    options = _accepted_options(model, input_size=input_size, output_stride=output_stride)

    def create(pretrained: bool) -> nn.Module:
        # Seeded at each call, so that a fallback draws the same weights as `random` does.
        with global_seed(seed, "encoder"):
            return model.create(options, pretrained=pretrained)

    trunk, origin = create_with_weights(model, weights, create)
    data = published_input(trunk)
    spec = EncoderSpec(
        name=name,
        architecture=model.architecture,
        arguments=model.arguments | options,
        mean=data["mean"],
        std=data["std"],
        input_size=input_size,
        weights=origin,
    )
    return _checked(trunk, spec, output_stride)


def published_input(model: nn.Module) -> dict[str, Any]:
    """Return what timm says of a model's images: `mean` and `std` of the channels, and `input_size` (3, H, W)."""
    data: dict[str, Any] = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
    return data


def rebuild_encoder(spec: EncoderSpec) -> Encoder:
    """Build an encoder's architecture again, from its description alone; its weights are to be loaded by the caller.

    Raises:
        PixelCAMError: this version of timm cannot build it.
    """
    try:
        trunk = create_trunk(spec.architecture, spec.arguments)
    except Exception as error:  # timm raises many kinds
        if is_shortage(error):
            raise
        raise PixelCAMError(
            f"encoder: timm cannot build '{spec.architecture}' again ({error}); "
            "install the timm version that model.json names"
        ) from error
    return Encoder(trunk, spec)


def _accepted_options(model: Model, *, input_size: int, output_stride: int | None) -> dict[str, Any]:
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
                model.create(options)
        except Exception as error:
            if is_shortage(error):
                raise
            if isinstance(error, TypeError) or "output_stride" in options:
                continue  # the family does not know this option, or offers no such stride
            raise PixelCAMError(
                f"encoder: timm cannot build '{model.name}' for {input_size} px ({error}); "
                "timm.list_models() lists the names, model.input_size sets the size"
            ) from error
        return options
    raise PixelCAMError(f"encoder: timm cannot build '{model.name}'; timm.list_models() lists the names")


def _checked(trunk: nn.Module, spec: EncoderSpec, output_stride: int | None) -> Encoder:
    """Return an encoder after one image went through it, so that an unfit one fails here, with a sentence."""
    size = spec.input_size
    try:
        encoder = Encoder(trunk, spec)
        with torch.no_grad():  # some trunks keep tensors of their first pass, which inference mode would spoil
            shape = encoder.eval()(torch.zeros(1, 3, size, size)).shape
    except Exception as error:
        if is_shortage(error):
            raise
        raise PixelCAMError(
            f"encoder: {spec.name} gives no feature map for images of {size} px ({error}); "
            "change model.input_size or choose another encoder"
        ) from error
    if len(shape) != 4 or shape[1] != encoder.channels:
        raise PixelCAMError(f"encoder: {spec.name} gives no feature map (got shape {tuple(shape)}); choose another")
    if output_stride is not None and shape[-1] not in (size // output_stride, -(-size // output_stride)):
        say(
            f"encoder: {spec.name} does not offer model.output_stride {output_stride}; "
            f"its feature map has {shape[-2]}x{shape[-1]} cells for {size} px"
        )
    return encoder.train()
