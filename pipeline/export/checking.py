"""Does what leaves the house say what the model says here? Asked on real images before anything is written."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.evaluation.prediction import Prediction, Predictor
from pipeline.export.network import CLASS_MAPS, MAP, PROBABILITIES
from pipeline.params.errors import PixelCAMError

TOLERANCE: Final = 1e-4  # of any probability, of a class or of a pixel
Answer = Callable[[NDArray[np.uint8]], dict[str, NDArray[np.float32]]]


@dataclass(frozen=True)
class Check:
    """How far an exported model was off, at most, over some images.

    Attributes:
        images: how many there were.
        sizes: theirs, as height x width.
        largest_difference: from what PyTorch says, by output.
        tolerance: what was allowed.
        against: the version of PyTorch.
    """

    images: int
    sizes: tuple[str, ...]
    largest_difference: dict[str, float]
    tolerance: float
    against: str

    def describe(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        return asdict(self) | {"sizes": list(self.sizes)}


def check_answers(
    folder: Path,
    predictor: Predictor,
    *,
    images: Sequence[NDArray[np.uint8]],
    ask: Answer,
    tolerance: float = TOLERANCE,
) -> Check:
    """Compare what an exported model says of images with what the model says here.

    Args:
        folder: of the model.
        predictor: the model here.
        images: uint8 (H_i, W_i, 3).
        ask: gives the outputs of the exported model for one image, by name.
        tolerance: how far any value may be off.

    Raises:
        PixelCAMError: there are no images, or a value is further off, or not a number.
    """
    if not images:
        raise PixelCAMError("an export is checked on real images; give some with --image, or run 'dvc repro prepare'")
    largest: dict[str, float] = {}
    for image in images:
        expected = _outputs(predictor.predict([image])[0])
        found = ask(image)
        for name, values in expected.items():
            off = float(np.abs(found[name].astype(np.float64) - values).max())
            largest[name] = max(largest.get(name, 0.0), off) if off == off else off  # noqa: PLR0124 - NaN stays
    unfit = {name: off for name, off in largest.items() if not off <= tolerance}
    if unfit:
        name, off = next(iter(unfit.items()))
        raise PixelCAMError(
            f"{folder}: the exported {name} differ by up to {off:.2g} from those of PyTorch, more than {tolerance:g}; "
            "nothing was written. Export in another format, or read the map otherwise (--one-view, cam.method)"
        )
    sizes = dict.fromkeys(f"{image.shape[0]}x{image.shape[1]}" for image in images)
    rounded = {name: float(f"{off:.2g}") for name, off in largest.items()}
    return Check(len(images), tuple(sizes), rounded, tolerance, f"torch {torch.__version__.split('+')[0]}")


def _outputs(said: Prediction) -> dict[str, NDArray[np.float32]]:
    outputs = {PROBABILITIES: np.array(list(said.probabilities.values()), dtype=np.float32), MAP: said.map}
    if said.class_maps:
        outputs[CLASS_MAPS] = np.stack(list(said.class_maps.values()))
    return outputs
