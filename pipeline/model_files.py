"""A trained model on disk: weights as safetensors, what it is and how it came about as JSON, its history as CSV."""

import hashlib
import importlib.metadata
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from pydantic import BaseModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from pipeline.choices import ImageHeadName, PixelHeadName, Weights
from pipeline.encoder import EncoderSpec
from pipeline.errors import PixelCAMError
from pipeline.files import replacing_folder, sha256_of
from pipeline.shortages import is_shortage
from pipeline.training import TrainingResult
from pipeline.training_state import State

SCHEMA_VERSION: Final = 2
WEIGHTS: Final = "model.safetensors"
DESCRIPTION: Final = "model.json"
HISTORY: Final = "history.csv"
RECORDED_PACKAGES: Final = ("pixelcam", "torch", "timm", "lightning-fabric", "zarr", "dvc")


@dataclass(frozen=True)
class ModelInfo:
    """What a model was trained on, class names in the order of `class_idx` and the domain, and what it is built of.

    `pixel_head` is None for a teacher, which has none.
    """

    classes: tuple[str, ...]
    domain: str
    encoder: EncoderSpec
    image_head: ImageHeadName
    pixel_head: PixelHeadName | None


def save_model(
    folder: Path, result: TrainingResult, *, info: ModelInfo, params: BaseModel, seed: int, parents: dict[str, str]
) -> None:
    """Write a model's folder, whole or not at all.

    Args:
        folder: is replaced.
        result: weights and history.
        info: what the model is.
        params: the section it was trained with, recorded.
        seed: recorded.
        parents: SHA-256 of the artifacts it was made from, by name, recorded.
    """
    description = {
        "schema_version": SCHEMA_VERSION,
        "classes": list(info.classes),
        "domain": info.domain,
        "encoder": asdict(info.encoder),
        "image_head": info.image_head,
        "pixel_head": info.pixel_head,
        "selection": result.selection,
        "epochs": {selection: kept.epoch for selection, kept in sorted(result.kept.items())},
        "params": params.model_dump(mode="json"),
        "seed": seed,
        "parents": parents,
        "device": result.device,
        "tensors_sha256": tensors_sha256(result.selected.state),
        "versions": {name: importlib.metadata.version(name) for name in RECORDED_PACKAGES},
    }
    with replacing_folder(folder) as temporary:
        _save_weights(result.selected.state, temporary / WEIGHTS)
        for selection, kept in result.kept.items():
            if selection is not result.selection:
                _save_weights(kept.state, temporary / _file_of(Weights(selection)))
        text = json.dumps(description, indent=2, sort_keys=True)
        (temporary / DESCRIPTION).write_text(text + "\n", encoding="utf-8")
        result.history.to_csv(temporary / HISTORY, index=False, float_format="%.6g", lineterminator="\n")


def tensors_sha256(state: State) -> str:
    """Return the SHA-256 of names, types, shapes and values, sorted by name, whatever file they stand in."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _file_of(weights: Weights) -> str:
    return WEIGHTS if weights is Weights.SELECTED else f"{weights}.safetensors"


def weights_sha256(folder: Path) -> str:
    """Return the SHA-256 of a model's weights file; raise a `PixelCAMError` if it cannot be read."""
    path = folder / WEIGHTS
    try:
        return sha256_of(path)
    except OSError as error:
        if is_shortage(error):
            raise
        raise PixelCAMError(f"{path}: cannot be read ({error.strerror}); train the model again") from error


def _save_weights(state: State, path: Path) -> None:
    # No metadata: more than one key would make the bytes vary from run to run.
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)


def read_info(folder: Path) -> ModelInfo:
    """Read what a model is; raise a `PixelCAMError` if its description is missing, damaged or of another schema."""
    description = _read_description(folder)
    try:
        return ModelInfo(
            classes=tuple(description["classes"]),
            domain=description["domain"],
            encoder=EncoderSpec(**description["encoder"]),
            image_head=ImageHeadName(description["image_head"]),
            pixel_head=None if description["pixel_head"] is None else PixelHeadName(description["pixel_head"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise _undescribed(folder, error) from error


def kept_epochs(folder: Path) -> dict[Weights, int]:
    """Return which weights a model has, and the epoch that each is of, those selected first.

    Raises:
        PixelCAMError: the description is missing, damaged or of another schema.
    """
    description = _read_description(folder)
    try:
        epochs: dict[str, int] = description["epochs"]
        selected = {Weights.SELECTED: epochs[description["selection"]]}
        return selected | {Weights(selection): epoch for selection, epoch in epochs.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _undescribed(folder, error) from error


def _read_description(folder: Path) -> dict[str, Any]:
    try:
        description: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        version = description["schema_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        if is_shortage(error):
            raise
        raise _undescribed(folder, error) from error
    if version != SCHEMA_VERSION:
        raise PixelCAMError(
            f"{folder / DESCRIPTION}: schema_version is {version}, this version reads {SCHEMA_VERSION}; train again"
        )
    return description


def _undescribed(folder: Path, error: Exception) -> PixelCAMError:
    return PixelCAMError(f"{folder / DESCRIPTION}: cannot be read as a model's description ({error}); train it again")


def load_weights(model: nn.Module, folder: Path, weights: Weights = Weights.SELECTED) -> None:
    """Load a model's weights; raise a `PixelCAMError` if they are missing, damaged, do not fit or are not finite."""
    if weights == _read_description(folder)["selection"]:
        weights = Weights.SELECTED
    path = folder / _file_of(weights)
    if weights is not Weights.SELECTED and not path.exists():
        raise PixelCAMError(f"{path}: was not kept; add {weights} to keep in the params and train the model again")
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        if is_shortage(error):
            raise
        raise PixelCAMError(f"{path}: its weights cannot be loaded ({error}); train the model again") from error
    _check_shapes(path, found=state, expected=model.state_dict())
    broken = [name for name, tensor in state.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise PixelCAMError(f"{path}: {broken[0]} holds values that are not finite; train the model again")
    model.load_state_dict(state)


def _check_shapes(path: Path, *, found: State, expected: State) -> None:
    shapes = [{name: tuple(tensor.shape) for name, tensor in state.items()} for state in (found, expected)]
    unfit = sorted({name for name, _ in shapes[0].items() ^ shapes[1].items()})
    if not unfit:
        return
    came, wanted = (shape.get(unfit[0], "none") for shape in shapes)
    raise PixelCAMError(
        f"{path}: expected {unfit[0]} of shape {wanted}, got {came} ({len(unfit)} weights differ); give a model of the "
        "right kind, or train the model again"
    )
