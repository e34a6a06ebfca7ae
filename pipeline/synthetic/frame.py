"""Physical coordinates: all is laid out in micrometres, so an image of any size shows the same kind of tissue."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatMap = npt.NDArray[np.float32]  # (H, W), or (N) for values at points
BoolMap = npt.NDArray[np.bool_]
Points = npt.NDArray[np.float32]  # (N, 2), micrometres, y before x

FIELD_WIDTH = 160.0  # micrometres: 1.6 pixels per micrometre, a 16x scan, at 256 px


@dataclass(frozen=True)
class Frame:
    """A square field of view, `FIELD_WIDTH` micrometres wide, sampled on `size` x `size` pixels."""

    size: int

    @property
    def scale(self) -> float:
        """Pixels per micrometre."""
        return self.size / FIELD_WIDTH

    def axis(self) -> FloatMap:
        """Return the pixel centres along one side: float32 (size), micrometres."""
        return ((np.arange(self.size) + 0.5) / self.scale).astype(np.float32)

    def grid(self) -> tuple[FloatMap, FloatMap]:
        """Return y as (size, 1) and x as (1, size), micrometres, to broadcast."""
        axis = self.axis()
        return axis[:, None], axis[None, :]

    def blank(self, value: float = 0.0) -> FloatMap:
        """Return a constant map, float32 (size, size)."""
        return np.full((self.size, self.size), value, dtype=np.float32)

    def sample(self, values: FloatMap, points: Points) -> FloatMap:
        """Return a map's values at points (N, 2), nearest pixel; points outside take the border's value."""
        rows, columns = np.clip(np.floor(points.T * self.scale).astype(np.intp), 0, self.size - 1)
        return np.asarray(values[rows, columns], dtype=np.float32)


def ramp(values: FloatMap, *, low: float, high: float) -> FloatMap:
    """Rise linearly from 0 at `low` to 1 at `high`, constant beyond."""
    return np.asarray(np.clip((values - low) / (high - low), 0.0, 1.0), dtype=np.float32)
