"""Rows of arrays that grow batch by batch: kept in blocks, so that no growth copies what is there already."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

ROWS_IN_BLOCK: Final = 4096


class RowBlocks:
    """The rows of any number of arrays that have one type, and one shape but for their number of rows."""

    def __init__(self) -> None:
        self._blocks: list[NDArray[Any]] = []
        self._free = 0  # rows of the last block

    def append(self, rows: NDArray[Any]) -> None:
        """Add rows at the end."""
        while len(rows):
            if not self._free:
                self._blocks.append(np.empty((ROWS_IN_BLOCK, *rows.shape[1:]), dtype=rows.dtype))
                self._free = ROWS_IN_BLOCK
            first = ROWS_IN_BLOCK - self._free
            fitting, rows = rows[: self._free], rows[self._free :]
            self._blocks[-1][first : first + len(fitting)] = fitting
            self._free -= len(fitting)

    def blocks(self) -> list[NDArray[Any]]:
        """Return all rows, without a copy, in arrays of up to 4096."""
        return [*self._blocks[:-1], *(block[: ROWS_IN_BLOCK - self._free] for block in self._blocks[-1:])]
