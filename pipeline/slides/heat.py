"""A slide's heatmap: what a model says of every place that shows tissue, small enough to be held in memory."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

CERTAIN: Final = 254  # stands for probability 1
NOT_LOOKED_AT: Final = 255  # no tissue


@dataclass(frozen=True, eq=False)
class Heat:
    """Probabilities on a lattice over a slide.

    Attributes:
        values: uint8 (h, w); v up to 254 stands for the probability v / 254, 255 for a place that shows no tissue.
        stride: level-0 pixels of the slide for a pixel of the lattice; pixel (i, j) covers the square from
            (j * stride, i * stride) on.
        mpp: micrometres for a level-0 pixel of the slide.
    """

    values: NDArray[np.uint8]
    stride: float
    mpp: float

    @property
    def pixel_size(self) -> float:
        """Micrometres for a pixel of the lattice."""
        return self.stride * self.mpp

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Where there is tissue, bool (h, w)."""
        return np.not_equal(self.values, NOT_LOOKED_AT)

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """Probabilities, float32 (h, w) in [0, 1]; 0 where there is no tissue."""
        return np.where(self.seen, self.values, 0).astype(np.float32) / np.float32(CERTAIN)


def quantize(probabilities: NDArray[np.float32], *, seen: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return probabilities (h, w) in [0, 1] as `Heat` holds them, `NOT_LOOKED_AT` where nothing was seen."""
    return np.where(seen, np.rint(np.clip(probabilities, 0, 1) * CERTAIN), NOT_LOOKED_AT).astype(np.uint8)
