"""Files of 8 bits: smaller, resized to the same bytes, and what they cost is measured."""

import numpy as np
import pytest
from exported_nets import images
from tiny import Run

from pipeline.data.manifest import PreparedDomain, read_domain
from pipeline.data.pixels import read_row_mask
from pipeline.evaluation.prediction import load_model
from pipeline.export.onnx_file import Exported
from pipeline.export.quantization import quantize, score_file
from pipeline.metrics.curves import average_precision
from pipeline.params.config import load_params
from pipeline.params.errors import PixelCAMError

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def home(finished: Run) -> PreparedDomain:
    return read_domain("home", load_params(finished.params), finished.prepared / "home")


def test_a_file_is_scored_as_its_maps_are(exported: Exported, home: PreparedDomain, finished: Run) -> None:
    scores = score_file(exported.model, home)
    rows = [row for row in home.manifest.rows if row.split == "test"]
    said = load_model(finished.pixelcam, params=load_params(finished.params)).predict(
        [home.manifest.root / row.image for row in rows]
    )
    maps = np.concatenate([each.map.ravel() for each in said])
    masks = np.concatenate([read_row_mask(home.manifest, row, row.mask).ravel() for row in rows])
    right = [each.class_name == row.label for each, row in zip(said, rows, strict=True)]
    assert scores["images"] == len(rows) == 3
    assert scores["accuracy"] == pytest.approx(np.mean(right), abs=1e-6)
    by_thresholds = np.floor(maps.astype(np.float64) * 1000) / 1000
    assert scores["pxap"] == pytest.approx(average_precision(preds=by_thresholds, target=masks), abs=1e-3)


def test_int8_is_a_third_of_the_size_and_says_what_it_cost(exported: Exported, home: PreparedDomain) -> None:
    small = quantize(exported, calibration=images(), domain=home)
    said = small.metadata["quantization"]
    assert len(small.model) < len(exported.model)
    assert said["calibration_images"] == 3
    assert said["scores"] == {"float32": score_file(exported.model, home), "int8": score_file(small.model, home)}
    assert {key: small.metadata[key] for key in exported.metadata} == exported.metadata


def test_int8_needs_images_to_calibrate_on(exported: Exported, home: PreparedDomain) -> None:
    with pytest.raises(PixelCAMError, match="calibrate"):
        quantize(exported, calibration=[], domain=home)
