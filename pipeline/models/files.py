"""A trained model on disk: weights as safetensors, what it is and how it came about as JSON, its history as CSV.

Here it is read; what writes it is `pipeline.training.saving`, beside what makes it.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.encoders.encoder import EncoderSpec
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import ImageHeadName, PixelClasses, PixelHeadName, UnsupervisedScore, Weights
from pipeline.runtime.files import is_shortage, sha256_of

SCHEMA_VERSION: Final = 2
WEIGHTS: Final = "model.safetensors"
DESCRIPTION: Final = "model.json"
HISTORY: Final = "history.csv"
ADAPTATION: Final = "adaptation.json"  # of a model that was adapted to a domain
UNSUPERVISED: Final = tuple(score.value for score in UnsupervisedScore)  # choose the weights of adapted models alone
State = dict[str, Tensor]


@dataclass(frozen=True)
class ModelInfo:
    """What a model was trained on, class names in the order of `class_idx` and the domain, and what it is built of.

    `pixel_head` and what it tells pixels apart as, `pixel_classes`, are None for a teacher, which has none.
    `class_shares` are those of the images that it learned from, in the order of `classes`; None where not known.
    """

    classes: tuple[str, ...]
    domain: str
    encoder: EncoderSpec
    image_head: ImageHeadName
    pixel_head: PixelHeadName | None
    pixel_classes: PixelClasses | None
    class_shares: tuple[float, ...] | None = None


def weights_file(weights: Weights) -> str:
    """Return the name of the file that holds a selection of weights."""
    return WEIGHTS if weights is Weights.SELECTED else f"{weights}.safetensors"


def weights_sha256(folder: Path, weights: Weights = Weights.SELECTED) -> str:
    """Return the SHA-256 of a model's weights file; raise a `PixelCAMError` if it cannot be read."""
    path = folder / weights_file(weights)
    try:
        return sha256_of(path)
    except OSError as error:
        if is_shortage(error):
            raise
        raise PixelCAMError(f"{path}: cannot be read ({error.strerror}); train the model again") from error


def read_info(folder: Path) -> ModelInfo:
    """Read what a model is; raise a `PixelCAMError` if its description is missing, damaged or of another schema."""
    description = _read_description(folder)
    try:
        pixel_head = description["pixel_head"]
        pixel_classes = description.get("pixel_classes", PixelClasses.FOREGROUND)  # the first models do not say it
        class_shares = description.get("class_shares")  # likewise
        return ModelInfo(
            classes=tuple(description["classes"]),
            domain=description["domain"],
            encoder=EncoderSpec(**description["encoder"]),
            image_head=ImageHeadName(description["image_head"]),
            pixel_head=None if pixel_head is None else PixelHeadName(pixel_head),
            pixel_classes=None if pixel_head is None else PixelClasses(pixel_classes),
            class_shares=None if class_shares is None else tuple(map(float, class_shares)),
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
        return selected | {Weights(name): epoch for name, epoch in epochs.items() if name not in UNSUPERVISED}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _undescribed(folder, error) from error


def check_kept(folder: Path, weights: Weights) -> None:
    """Raise a `PixelCAMError` unless a model has these weights."""
    if weights not in kept_epochs(folder):
        raise PixelCAMError(
            f"{folder / weights_file(weights)}: was not kept; add {weights} to keep in the params and train the model "
            "again, or score other evaluate_ood.weights"
        )


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
    check_kept(folder, weights)
    path = folder / weights_file(weights)
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
