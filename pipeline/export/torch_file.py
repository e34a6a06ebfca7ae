"""A trained model as PyTorch's own exported program, a `.pt2` file, which runs without this project's code."""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.evaluation.prediction import load_model
from pipeline.export.checking import Answer, check_answers
from pipeline.export.metadata import describe_export
from pipeline.export.network import build_network, quietly, trace
from pipeline.metrics.scores import Threshold
from pipeline.params.config import Params

METADATA_FILE: Final = "pixelcam.json"
EXAMPLES: Final = "/data/sample_inputs/"  # in the archive: what a program was recorded with, which torch pickles


def write_torch_file(
    path: Path, folder: Path, *, params: Params, images: Sequence[NDArray[np.uint8]], threshold: Threshold
) -> dict[str, Any]:
    """Export a trained model as a `.pt2` file, check it on images, and return what it says of itself.

    Args:
        path: to write; what lies there half-written after an error is the caller's to remove.
        folder: of the model.
        params: say how its map is read.
        images: uint8 (H_i, W_i, 3), real ones, of several sizes.
        threshold: from which map value on there is a region.

    Raises:
        PixelCAMError: the model cannot be read or recorded, or the file says something else than PyTorch does here.
    """
    network = build_network(folder, params)
    program = trace(network)
    with quietly(), path.open("wb") as file:  # a file, since torch warns of names that do not end with .pt2
        torch.export.save(program, file)
    _remove_examples(path)
    predictor = load_model(folder, params=params)
    check = check_answers(folder, predictor, images=images, ask=program_of(path, network.output_names))
    metadata = describe_export(folder, predictor, threshold=threshold, check=check)
    with quietly(), path.open("wb") as file:
        torch.export.save(program, file, extra_files={METADATA_FILE: json.dumps(metadata, sort_keys=True)})
    _remove_examples(path)
    return metadata


def program_of(path: Path, output_names: Sequence[str]) -> Answer:
    """Return what asks a `.pt2` file for its outputs about one image."""
    with quietly(), path.open("rb") as file:
        module = torch.export.load(file).module()

    def ask(image: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        with torch.no_grad():
            found = module(torch.from_numpy(image)[None])
        return {name: values[0].numpy() for name, values in zip(output_names, found, strict=True)}

    return ask


def _remove_examples(path: Path) -> None:
    """Empty the one part of the archive that is a pickle; torch reads it as no examples."""
    written = path.with_name(f"{path.name}.rewritten")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as new:
        for member in old.infolist():
            plain = zipfile.ZipInfo(member.filename, date_time=(1980, 1, 1, 0, 0, 0))
            new.writestr(plain, b"" if EXAMPLES in f"/{member.filename}" else old.read(member))
    written.replace(path)
