"""Models that are published with a configuration of their own, on the model hub or in a folder, made plain for timm."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies

import huggingface_hub.constants
from huggingface_hub.errors import HfHubHTTPError
from torch import Tensor, nn

from pipeline.errors import PixelCAMError
from pipeline.shortages import is_shortage
from pipeline.torchvision_operators import ensure_torchvision_imports

ensure_torchvision_imports()
import timm  # noqa: E402 - after torchvision can be imported
from timm.layers.mlp import SwiGLUPacked  # noqa: E402
from timm.models import load_state_dict_from_hf, parse_model_name  # noqa: E402
from timm.models._hub import (  # noqa: E402
    load_model_config_from_hf,
    load_model_config_from_path,
    load_state_dict_from_path,
)

HUB: Final = "hf-hub"
FOLDER: Final = "local-dir"

_SWIGLU: Final = {"mlp_layer": "SwiGLUPacked", "act_layer": "silu"}
# What timm must be told beyond a model's published configuration, as its model card says. Layers go by name.
CARD_ARGUMENTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "mahmoodlab/uni": {"init_values": 1e-5},
    "mahmoodlab/uni2-h": {
        "patch_size": 14,
        "depth": 24,
        "num_heads": 24,
        "init_values": 1e-5,
        "embed_dim": 1536,
        "mlp_ratio": 2.66667 * 2,
        "no_embed_class": True,
        "reg_tokens": 8,
        **_SWIGLU,
    },
    "paige-ai/virchow": _SWIGLU,
    "paige-ai/virchow2": _SWIGLU,
    "bioptimus/h-optimus-0": {"init_values": 1e-5},
    "bioptimus/h-optimus-1": {"init_values": 1e-5},
    "bioptimus/h0-mini": _SWIGLU,
}
_LAYERS: Final[Mapping[object, Any]] = {"SwiGLUPacked": SwiGLUPacked}


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model as params.yaml names it, and as timm builds it.

    Attributes:
        name: as in params.yaml.
        architecture: timm's own name.
        arguments: what `timm.create_model` takes besides, in JSON's types.
        config: the published pretrained configuration; None where timm has one of its own.
    """

    name: str
    architecture: str
    arguments: dict[str, Any]
    config: dict[str, Any] | None

    @property
    def is_published(self) -> bool:
        """Whether the model is chosen for its own weights, on the hub or in a folder."""
        return self.config is not None

    def create(self, options: dict[str, Any], *, pretrained: bool = False) -> nn.Module:
        """Build the trunk, without a classifier; `options` come before the model's own arguments."""
        return create_trunk(self.architecture, self.arguments | options, pretrained=pretrained, config=self.config)


def create_trunk(
    architecture: str,
    arguments: Mapping[str, Any],
    *,
    pretrained: bool = False,
    config: dict[str, Any] | None = None,
) -> nn.Module:
    """Build a timm model without a classifier from arguments in JSON's types."""
    named = dict(arguments)
    if "mlp_layer" in named:
        named["mlp_layer"] = _LAYERS.get(named["mlp_layer"], named["mlp_layer"])
    return timm.create_model(architecture, pretrained=pretrained, pretrained_cfg=config, num_classes=0, **named)


def find_model(name: str) -> Model:
    """Find out what timm must be told to build a model.

    Raises:
        PixelCAMError: the configuration of a published model cannot be had, or is none of timm's.
    """
    try:
        source, model_id = parse_model_name(name)
    except ValueError as error:
        raise PixelCAMError(f"encoder.name: {error}") from error
    if source is None:
        return Model(name=name, architecture=name, arguments={}, config=None)
    with explaining_failures(name):
        load = load_model_config_from_path if source == FOLDER else load_model_config_from_hf
        config, architecture, arguments = load(model_id)
    repository = model_id.partition("@")[0].lower()
    return Model(
        name=name,
        architecture=architecture,
        arguments={key: value for key, value in arguments.items() if key != "num_classes"}
        | dict(CARD_ARGUMENTS.get(repository, {})),
        config=config,
    )


def read_published_state(name: str) -> dict[str, Tensor]:
    """Read the weights of a published model; raise a `PixelCAMError` if they cannot be had."""
    source, model_id = parse_model_name(name)
    with explaining_failures(name):
        state: dict[str, Tensor]
        load = load_state_dict_from_path if source == FOLDER else load_state_dict_from_hf
        state = load(model_id, weights_only=True)  # where there is no safetensors file: tensors, and no code
    return state


@contextmanager
def explaining_failures(name: str) -> Iterator[None]:
    """Turn whatever goes wrong with a published model into a sentence that says how to get it."""
    try:
        with offline_where_unreachable():
            yield
    except KeyError as error:
        raise PixelCAMError(
            f"encoder.name: the config.json of {name} names no timm architecture, so it is no timm model; "
            "docs/encoders.md names some that are"
        ) from error
    except Exception as error:  # the hub's client and timm raise many kinds
        if is_shortage(error):
            raise
        raise PixelCAMError(_explain(name, error)) from error


def _explain(name: str, error: Exception) -> str:
    source, model_id = parse_model_name(name)
    if source == FOLDER:
        return f"encoder.name: {name} cannot be read ({reason(error)}); it must hold config.json and model.safetensors"
    repository = model_id.partition("@")[0]
    page = f"{huggingface_hub.constants.ENDPOINT}/{repository}"
    access = f"request access at {page} and run 'hf auth login' with that account"
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if status in (401, 403):
        return f"encoder.name: {name} is gated, private or misspelt; {access}, or mend the name"
    if status == 404:
        return f"encoder.name: the hub has no {name} with timm weights ({reason(error)}); mend the name"
    return (
        f"encoder.name: {name} cannot be fetched ({reason(error)}); check the network, and if the model is gated "
        f"{access}, or copy its files here and set encoder.name to {FOLDER}:FOLDER"
    )


@contextmanager
def offline_where_unreachable() -> Iterator[None]:
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


def reason(error: Exception) -> str:
    """Return the first sentence of an error's message."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].split(". ")[0].rstrip(".")
