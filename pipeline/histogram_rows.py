"""Histograms of any number of images, one after the other: in memory while they are few, in a temporary file beyond.

What a bootstrap needs of every image is its pair of histograms. Kept in memory, that would be 8 kB per image and model.
"""

from collections.abc import Iterator
from os import SEEK_END
from tempfile import SpooledTemporaryFile
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.pixel_histogram import STEPS

KEPT_BYTES: Final = 2**23  # in memory; the file lies where TMPDIR says
ROWS_AT_ONCE: Final = 512
ROW_SHAPE: Final = (2, STEPS + 1)
ROW_BYTES: Final = 4 * 2 * (STEPS + 1)

Int32Array = NDArray[np.int32]


class HistogramRows:
    """Pairs of histograms, int32 (2, 1001) each: the map over foreground pixels, and over background pixels."""

    def __init__(self) -> None:
        self._file = SpooledTemporaryFile(max_size=KEPT_BYTES)  # noqa: SIM115 - it lives as long as the rows do
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, rows: Int32Array) -> None:
        """Add the pairs of some images, int32 (n, 2, 1001).

        Raises:
            ValueError: they have another shape or dtype.
        """
        if rows.shape[1:] != ROW_SHAPE or rows.dtype != np.int32:
            raise ValueError(f"rows must be int32 (n, 2, {STEPS + 1}), got {rows.dtype} {rows.shape}")
        self._file.seek(0, SEEK_END)  # a reader may have left it anywhere
        self._file.write(rows.tobytes())
        self._count += len(rows)

    def blocks(self) -> Iterator[Int32Array]:
        """Yield all pairs in their order, int32 (n, 2, 1001) at a time, n up to 512."""
        for first in range(0, self._count, ROWS_AT_ONCE):
            self._file.seek(first * ROW_BYTES)
            block = self._file.read(min(ROWS_AT_ONCE, self._count - first) * ROW_BYTES)
            yield np.frombuffer(block, dtype=np.int32).reshape(-1, *ROW_SHAPE)
