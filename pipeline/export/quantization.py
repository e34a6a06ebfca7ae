"""An exported ONNX file in whole numbers of 8 bits: a quarter of the size, for what its PxAP says it costs."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import torch

from pipeline.data.manifest import PreparedDomain, Split
from pipeline.data.pixels import UInt8Image, read_row, read_row_mask
from pipeline.export.network import INPUT, MAP, PROBABILITIES, quietly
from pipeline.export.onnx_file import Exported, session_of, with_metadata
from pipeline.export.optional import optional_module
from pipeline.metrics import pixel_histogram
from pipeline.params.errors import PixelCAMError
from pipeline.runtime.console import progress

QUANTIZED: Final = ("Conv", "Gemm", "MatMul")
CALIBRATION_IMAGES: Final = 32


def quantize(exported: Exported, *, calibration: Sequence[UInt8Image], domain: PreparedDomain) -> Exported:
    """Return an exported model with weights and activations of 8 bits, which says what that cost on a domain's images.

    Convolutions and products with weights are quantized, each output channel by a factor of its own; resizing is not,
    which has to be exact. Activations are calibrated on images by their lowest and highest values.

    Args:
        exported: in float32.
        calibration: images, uint8 (H_i, W_i, 3), of the kind that the model will see.
        domain: whose test images are scored, with masks.

    Raises:
        PixelCAMError: the packages of the extra `export` are missing, or there is no image.
    """
    model = _quantized(exported.model, calibration)
    scores = {kind: score_file(each, domain) for kind, each in (("float32", exported.model), ("int8", model))}
    metadata = exported.metadata | {
        "quantization": {"calibration_images": len(calibration), "domain": domain.name, "scores": scores}
    }
    onnx = optional_module("onnx")
    return Exported(with_metadata(onnx.load_from_string(model), metadata), metadata, exported.output_names)


def score_file(model: bytes, domain: PreparedDomain) -> dict[str, Any]:
    """Return PxAP, at the size of each image, and accuracy of an ONNX file on the test images of a domain.

    PxAP is None where no image has a mask.
    """
    rows = domain.manifest.of_split(Split.TEST)
    if not rows.rows:
        raise PixelCAMError(f"domain '{domain.name}' has no test image to measure the loss of int8 on")
    ask, right = session_of(model), 0
    histogram = pixel_histogram.empty_histogram(device=torch.device("cpu"))
    for row in progress(rows.rows, label="scoring"):
        said = ask(read_row(rows, row))
        right += int(said[PROBABILITIES].argmax()) == row.class_idx
        if row.mask or row.class_idx == domain.background_class_idx:
            found = torch.from_numpy(said[MAP])[None]
            truth = torch.from_numpy(read_row_mask(rows, row, row.mask)) if row.mask else torch.zeros(found.shape[1:])
            counted = pixel_histogram.count_images(found, target=truth.bool()[None])
            histogram = pixel_histogram.add_images(histogram, counted)
    pxap = pixel_histogram.pxap(histogram)
    return {
        "pxap": None if np.isnan(pxap) else round(pxap, 6),
        "accuracy": round(right / len(rows.rows), 6),
        "images": len(rows.rows),
    }


def _quantized(model: bytes, calibration: Sequence[UInt8Image]) -> bytes:
    if not calibration:
        raise PixelCAMError("int8 needs training images to calibrate on; run 'dvc repro prepare'")
    onnx, quantization = optional_module("onnx"), optional_module("onnxruntime.quantization")
    graph = onnx.load_from_string(model).graph
    weights = {each.name for each in graph.initializer}
    exact = [node.name for node in graph.node if node.op_type == "MatMul" and not weights.intersection(node.input)]
    with TemporaryDirectory() as folder, quietly():
        old, new = Path(folder, "float32.onnx"), Path(folder, "int8.onnx")
        old.write_bytes(model)
        quantization.quantize_static(
            old,
            new,
            _reader(quantization, calibration),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTIZED),
            nodes_to_exclude=exact,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        return new.read_bytes()


def _reader(quantization: Any, images: Sequence[UInt8Image]) -> Any:  # noqa: ANN401 - of an optional package
    """Return what gives a quantization one image after the other."""

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._inputs: Iterator[dict[str, UInt8Image]] = ({INPUT: image[np.newaxis]} for image in images)

        def get_next(self) -> dict[str, UInt8Image] | None:
            return next(self._inputs, None)

    return Reader()
