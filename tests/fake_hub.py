"""A model hub without a network: published timm models in the layout of the hub's local cache."""

import json
import socket
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from safetensors.torch import save_file
from torch import Tensor

from pipeline.encoders import weights as encoder_hub
from pipeline.encoders.weights import create_trunk
from pipeline.runtime.seeding import global_seed

MEAN, STD = [0.7, 0.6, 0.7], [0.2, 0.25, 0.2]


def cut_off(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Leave a machine without network or proxy, with `cache` for all that was ever fetched."""

    def fail(*_: object) -> None:
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setattr(encoder_hub, "getproxies", dict)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))


def publish(
    cache: Path,
    repository: str,
    *,
    architecture: str = "test_vit",
    published_arguments: dict[str, Any] | None = None,
    needed_arguments: dict[str, Any] | None = None,
) -> dict[str, Tensor]:
    """Put a model with random weights into the hub's cache and return them.

    Args:
        cache: the hub's cache.
        repository: owner/name.
        architecture: timm's name.
        published_arguments: of the model, in its config.json.
        needed_arguments: further ones that its config.json does not tell.
    """
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("0" * 40)
    return write_model(
        folder / "snapshots" / ("0" * 40),
        architecture=architecture,
        published_arguments=published_arguments or {},
        needed_arguments=needed_arguments or {},
    )


def write_model(
    folder: Path, *, architecture: str, published_arguments: dict[str, Any], needed_arguments: dict[str, Any]
) -> dict[str, Tensor]:
    """Write config.json and model.safetensors of a model with random weights and return them."""
    folder.mkdir(parents=True)
    with global_seed(7):
        state: dict[str, Tensor] = create_trunk(architecture, published_arguments | needed_arguments).state_dict()
    config = {
        "architecture": architecture,
        "num_classes": 0,
        "model_args": {"num_classes": 0, **published_arguments},
        "pretrained_cfg": {"mean": MEAN, "std": STD, "num_classes": 0, "input_size": [3, 160, 160]},
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(state, folder / "model.safetensors")
    return state
