"""What an exported model says of itself: whoever finds the file alone, years later, finds this within it."""

import importlib.metadata
from pathlib import Path
from typing import Any, Final

from pipeline.evaluation.prediction import Predictor
from pipeline.export.checking import Check
from pipeline.export.network import SMALLEST_SIDE
from pipeline.metrics.scores import Threshold
from pipeline.models.files import read_info

SCHEMA_VERSION: Final = 1
RECORDED_PACKAGES: Final = ("pixelcam", "torch", "timm")
RESIZING: Final = (
    "within the model: squashed to a square of input_size pixels by a triangle filter without aliasing, width first, "
    "rounded to whole grey levels after each, and maps back to the size of the image bilinearly"
)
INTENDED: Final = "research: where a model sees what it was trained to tell apart; no diagnosis, and no medical device"


def describe_export(folder: Path, predictor: Predictor, *, threshold: Threshold, check: Check) -> dict[str, Any]:
    """Return what an exported file says of itself, JSON values.

    Args:
        folder: of the model.
        predictor: the model as its map is read.
        threshold: from which map value on there is a region.
        check: how the file was checked.
    """
    info = read_info(folder)
    return predictor.describe() | {
        "schema_version": SCHEMA_VERSION,
        "kind": "teacher" if info.pixel_head is None else "pixelcam",
        "domain": info.domain,
        "input_size": info.encoder.input_size,
        "input": f"uint8 RGB (batch, height, width, 3), of any size from {SMALLEST_SIDE} pixels a side",
        "normalization": {"within": "the model", "mean": list(info.encoder.mean), "std": list(info.encoder.std)},
        "resizing": RESIZING,
        "threshold": threshold.value,
        "threshold_from": threshold.source.value,
        "intended_use": INTENDED,
        "check": check.describe(),
        "versions": {name: importlib.metadata.version(name) for name in RECORDED_PACKAGES},
    }
