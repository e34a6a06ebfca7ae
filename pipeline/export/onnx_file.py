"""A trained model as one ONNX file, which runs without PyTorch, checked against PyTorch before it is given away."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram

from pipeline.evaluation.prediction import load_model
from pipeline.export.checking import Answer, check_answers
from pipeline.export.metadata import describe_export
from pipeline.export.network import INPUT, SIZES, ExportedNetwork, build_network, quietly, trace
from pipeline.export.optional import optional_module
from pipeline.metrics.scores import Threshold
from pipeline.params.config import Params
from pipeline.params.errors import PixelCAMError
from pipeline.runtime.files import first_line, is_shortage

OPSET: Final = 18
METADATA_KEY: Final = "pixelcam"


@dataclass(frozen=True, eq=False)
class Exported:
    """A model that may leave.

    Attributes:
        model: the file's bytes.
        metadata: what the file says of itself, JSON values; they stand within it.
        output_names: of the network, in their order.
    """

    model: bytes
    metadata: dict[str, Any]
    output_names: tuple[str, ...]


def export_onnx(folder: Path, *, params: Params, images: Sequence[NDArray[np.uint8]], threshold: Threshold) -> Exported:
    """Export a trained model as ONNX, and check it on images.

    Args:
        folder: of the model.
        params: say how its map is read.
        images: uint8 (H_i, W_i, 3), real ones, of several sizes.
        threshold: from which map value on there is a region.

    Raises:
        PixelCAMError: the packages of the extra `export` are missing, the model cannot be read or recorded, or what the
            file says differs from what PyTorch says.
    """
    network = build_network(folder, params)
    model = to_onnx(network)
    predictor = load_model(folder, params=params)
    check = check_answers(folder, predictor, images=images, ask=session_of(model.SerializeToString()))
    metadata = describe_export(folder, predictor, threshold=threshold, check=check)
    return Exported(with_metadata(model, metadata), metadata, network.output_names)


def to_onnx(network: ExportedNetwork) -> Any:  # noqa: ANN401 - an onnx.ModelProto
    """Convert a network, without what it says of itself.

    Raises:
        PixelCAMError: the packages of the extra `export` are missing, or the network holds what ONNX has no word for.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):  # said before minutes go by
        optional_module(package)
    return _named_sizes(_without_traces(_convert(trace(network), network)))


def with_metadata(model: Any, metadata: dict[str, Any]) -> bytes:  # noqa: ANN401 - an onnx.ModelProto
    """Return the bytes of an ONNX model that says these JSON values of itself."""
    model.producer_name = METADATA_KEY
    del model.metadata_props[:]
    model.metadata_props.add(key=METADATA_KEY, value=json.dumps(metadata, sort_keys=True))
    return bytes(model.SerializeToString(deterministic=True))


def session_of(model: bytes) -> Answer:
    """Return what asks an ONNX file for all its outputs about one image, on the processor."""
    onnxruntime = optional_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def ask(image: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        found = session.run(names, {INPUT: image[np.newaxis]})
        return {name: values[0] for name, values in zip(names, found, strict=True)}

    return ask


def _convert(program: ExportedProgram, network: ExportedNetwork) -> Any:  # noqa: ANN401 - an onnx.ModelProto
    """Translate a recorded network by torch's own exporter."""
    try:
        with quietly():
            converted = torch.onnx.export(
                program,
                input_names=[INPUT],
                output_names=list(network.output_names),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # the exporter raises many kinds
        if is_shortage(error):
            raise
        raise PixelCAMError(
            f"the model cannot be written as ONNX ({first_line(error)}); export it with --format torch-export, or read "
            "a teacher's map without gradients, by cam.method: cam"
        ) from error
    return converted.model_proto  # type: ignore[union-attr]


def _named_sizes(model: Any) -> Any:  # noqa: ANN401 - an onnx.ModelProto
    """Call the free sizes of inputs and outputs what they are."""
    taken = [dimension.dim_param for dimension in model.graph.input[0].type.tensor_type.shape.dim]
    names = dict(zip(taken, SIZES, strict=False))
    for each in (*model.graph.input, *model.graph.output):
        for dimension in each.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_param = names[dimension.dim_param]
    return model


def _without_traces(model: Any) -> Any:  # noqa: ANN401 - an onnx.ModelProto
    """Remove what the exporter notes of the code that each node comes from: paths of this machine, and megabytes."""
    for part in (model.graph.node, model.graph.value_info, model.graph.input, model.graph.output, [model.graph]):
        for each in part:
            each.doc_string = ""
            del each.metadata_props[:]
    for function in model.functions:
        del function.metadata_props[:]
    del model.graph.value_info[:]
    return model
