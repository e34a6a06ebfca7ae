"""Write a trained model into its folder: whole or not at all, the same bytes for the same training."""

import hashlib
import importlib.metadata
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch
from pydantic import BaseModel
from safetensors.torch import save_file

from pipeline.data.manifest import PreparedDomain, Split
from pipeline.models.files import (
    ADAPTATION,
    DESCRIPTION,
    HISTORY,
    SCHEMA_VERSION,
    WEIGHTS,
    ModelInfo,
    State,
    weights_file,
)
from pipeline.params.vocabulary import Selection, Weights
from pipeline.runtime.files import replacing_folder, write_json
from pipeline.training.loop import TrainingResult

RECORDED_PACKAGES: Final = ("pixelcam", "torch", "timm", "lightning-fabric", "zarr", "dvc")


def save_model(
    folder: Path,
    result: TrainingResult,
    *,
    info: ModelInfo,
    params: BaseModel,
    seed: int,
    parents: dict[str, str],
    adaptation: Mapping[str, Any] | None = None,
) -> None:
    """Write a model's folder, whole or not at all.

    Args:
        folder: is replaced.
        result: weights and history.
        info: what the model is.
        params: the section it was trained with, recorded.
        seed: recorded.
        parents: SHA-256 of the artifacts it was made from, by name, recorded.
        adaptation: of a model that was adapted to a domain, how; a file of its own.
    """
    description = {
        "schema_version": SCHEMA_VERSION,
        "classes": list(info.classes),
        "class_shares": info.class_shares,
        "domain": info.domain,
        "encoder": asdict(info.encoder),
        "image_head": info.image_head,
        "pixel_head": info.pixel_head,
        "pixel_classes": info.pixel_classes,
        "selection": result.selection,
        "epochs": {selection: kept.epoch for selection, kept in sorted(result.kept.items())},
        "params": params.model_dump(mode="json"),
        "seed": seed,
        "parents": parents,
        "device": result.device,
        "tensors_sha256": tensors_sha256(result.selected.state),
        "versions": _versions(),
    }
    with replacing_folder(folder) as temporary:
        _save_weights(result.selected.state, temporary / WEIGHTS)
        for selection, kept in result.kept.items():
            if isinstance(selection, Selection) and selection is not result.selection:
                _save_weights(kept.state, temporary / weights_file(Weights(selection)))
        text = json.dumps(description, indent=2, sort_keys=True)
        (temporary / DESCRIPTION).write_text(text + "\n", encoding="utf-8")
        result.history.to_csv(temporary / HISTORY, index=False, float_format="%.6g", lineterminator="\n")
        if adaptation is not None:
            write_json(temporary / ADAPTATION, adaptation)


def _versions() -> dict[str, str]:
    """Return the packages' versions without what tells one build of a version from another, such as "+cpu"."""
    return {name: importlib.metadata.version(name).partition("+")[0] for name in RECORDED_PACKAGES}


def class_shares(source: PreparedDomain) -> tuple[float, ...]:
    """Return which share of a domain's training images each class has, in the order of its classes."""
    rows = source.manifest.of_split(Split.TRAIN).rows
    counts = Counter(row.class_idx for row in rows)
    return tuple(counts[class_idx] / len(rows) for class_idx in range(len(source.classes)))


def tensors_sha256(state: State) -> str:
    """Return the SHA-256 of names, types, shapes and values, sorted by name, whatever file they stand in."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _save_weights(state: State, path: Path) -> None:
    # No metadata: more than one key would make the bytes vary from run to run.
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
